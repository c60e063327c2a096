"""Set a new password for a live grant and show it in the credential message. Open sessions live on."""

from __future__ import annotations

from adapters.base import Adapter, AdapterError, Endpoint, ForeignUser, Rejected
from bot.access.alerts import raise_alert
from bot.access.context import Context
from bot.access.password import make_password
from bot.access.server_errors import describe_server_error, remedies
from bot.access.targets import level_of, target_of
from bot.engines import Share
from bot.jobs.job import ALERT_AT_TRY, JobContext
from bot.notifications.credentials import credentials_notice, deliver
from storage.commands import RenewPassword, Repair
from storage.errors import NotPossible
from storage.records import Purpose, Request, State
from storage.task_plans import user_lock_key
from storage.transitions import Obstacle


async def renew_password(context: Context, job: JobContext) -> None:
    """Job of ``renew_password``. The requester asked for it, or the ``repair`` of an active grant needs it."""
    request = await job.request()
    if request.state is State.ACTIVE:
        await _set_new_password(context, job, request, is_repair=bool(job.payload.get("mends")))


async def _set_new_password(context: Context, job: JobContext, request: Request, *, is_repair: bool) -> None:
    """Set a new password on the server, then show it in the credential message. A retry sets another one and shows that."""
    assert request.username is not None, "an active grant has its user"
    username, level, password = request.username, level_of(request), make_password()

    def set_password(adapter: Adapter) -> Endpoint:
        adapter.set_password(username, password)
        return adapter.endpoint(level)

    await job.check_claim()
    try:
        async with job.holding(user_lock_key(request)):
            if (await job.request()).state is not State.ACTIVE:
                return
            endpoint = await context.engines.call(target_of(request), set_password, share=Share.GRANTS)
    except (Rejected, ForeignUser) as error:
        await _alert(context, request, error)
        return
    except AdapterError as error:
        if job.tries == ALERT_AT_TRY:
            await _alert(context, request, error)
        raise
    if (await job.request()).state is not State.ACTIVE:
        return  # it is being ended: the revoke task of its user drops it and closes the message
    (message,) = await context.ledger.messages.of(request.id, Purpose.CREDENTIALS)
    await deliver(job, request, message, credentials_notice(request, endpoint, password))
    try:
        await job.advance(request, Repair(actor="bot") if is_repair else RenewPassword(actor=request.requester_id))
    except NotPossible as error:
        if error.obstacle not in (Obstacle.STATE, Obstacle.ENDED):
            raise


async def _alert(context: Context, request: Request, error: AdapterError) -> None:
    problem = f"No new password for #{request.id}: {describe_server_error(request.database, error)}."
    await raise_alert(context, request, problem, cause=f"password:{request.id}", steps=remedies(error), is_event=True)
