"""Close a request that nobody decided in time."""

from __future__ import annotations

from bot.access.context import Context
from bot.access.decide import extended_grant
from bot.jobs.job import JobContext
from storage.commands import TimeOutRequest
from storage.records import State


async def time_out(context: Context, job: JobContext) -> None:
    """Job of ``time_out``: the time to decide is over, or the grant to be extended has ended."""
    request = await job.request()
    if request.state.is_over or request.state.is_live:
        return
    grant = await extended_grant(context, request)
    has_grant_ended = grant is not None and grant.state is not State.ACTIVE
    note = f"the access #{request.parent_id} that it would have extended has ended." if has_grant_ended else None
    await job.advance(request, TimeOutRequest(actor="clock", note=note))
