"""Move the expiry of a live grant on its server after an extension was applied."""

from __future__ import annotations

from datetime import timedelta

from adapters.base import AdapterError, ForeignUser, Rejected
from bot.access.alerts import raise_alert
from bot.access.context import Context
from bot.access.server_errors import describe_server_error, remedies
from bot.access.targets import target_of
from bot.engines import Share
from bot.jobs.job import ALERT_AT_TRY, JobContext
from storage.records import Request, State


async def move_expiry(context: Context, job: JobContext) -> None:
    """Job of ``move_expiry``, under the lock key of the grant's user. Open sessions stay open.

    Until it is done, the server may end the grant earlier than the ledger, never later.
    """
    grant = await job.request()
    if grant.state is not State.ACTIVE or grant.username is None or grant.expires_at is None:
        return
    username, remaining = grant.username, grant.expires_at - await context.ledger.now()
    if remaining <= timedelta(0):
        return
    await job.check_claim()
    try:
        await context.engines.call(
            target_of(grant),
            lambda adapter: adapter.set_expiry(username, remaining.total_seconds()),
            share=Share.GRANTS,
        )
    except (Rejected, ForeignUser) as error:
        await _alert(context, grant, error)
    except AdapterError as error:
        if job.tries == ALERT_AT_TRY:
            await _alert(context, grant, error)
        raise


async def _alert(context: Context, grant: Request, error: AdapterError) -> None:
    problem = (
        f"The end of #{grant.id} was moved, but not on the server: {describe_server_error(grant.database, error)}."
    )
    effect = "The server may end it at its former end; the requester can request access again."
    await raise_alert(
        context, grant, problem, cause=f"expiry:{grant.id}", steps=(*remedies(error), effect), is_event=True
    )
