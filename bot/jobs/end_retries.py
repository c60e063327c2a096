"""The retry of an end that failed, and its alert: raised at the third try, changed at every later one. For ``revoke`` and ``repair``.

It lasts until the grant has ended. The job resolves it then, and ``bot.monitors.alerts`` where the bot stopped in between.
"""

from __future__ import annotations

from datetime import datetime

from adapters.base import AdapterError, Blocked, ForeignUser, ServerDown, WrongServer
from bot.access.alerts import end_cause, raise_alert
from bot.access.context import Context
from bot.access.server_errors import describe_server_error, remedies
from bot.access.server_side import describe_enforced, statements_by_hand
from bot.engines import AdapterFailed
from bot.jobs.job import ALERT_AT_TRY, JobContext, Retry, backoff
from storage.audit_kinds import AuditKind
from storage.records import Request


async def retry_with_alert(context: Context, job: JobContext, request: Request, error: AdapterError) -> Retry:
    """The Retry to raise after a failed end. Raises or changes its alert first, where one is due at this try."""
    now = await context.ledger.now()
    next_try = now + backoff(job.tries)
    if job.tries >= ALERT_AT_TRY or isinstance(error, WrongServer | ForeignUser):
        await raise_alert(
            context,
            request,
            _problem(request, error),
            cause=end_cause(request.id),
            since=await _ending_since(context, request),
            tries=job.tries,
            enforced=describe_enforced(context, request, now=now, blocked_at=job.claim.task.blocked_at),
            steps=_steps(request, error),
            statements=statements_by_hand(context, request),
            next_try_at=next_try,
        )
    return Retry(str(error), at=next_try, is_server_down=isinstance(error, ServerDown))


async def _ending_since(context: Context, request: Request) -> datetime | None:
    """The time at which the end began: the first try followed at once. None where the audit log does not have it."""
    history = await context.ledger.audit.history(request.id)
    return max((event.at for event in history if event.kind == AuditKind.REVOKING), default=None)


def _problem(request: Request, error: AdapterError) -> str:
    """The sentence of the alert. A blocked step is not reported as a server that is down, and concerns one user."""
    alone = f" Only {request.username} waits for it." if isinstance(error, Blocked) else ""
    return f"#{request.id} is not ended: {describe_server_error(request.database, error)}.{alone}"


def _steps(request: Request, error: AdapterError) -> tuple[str, ...]:
    when = "If nobody needs that user" if isinstance(error, ForeignUser) else "To end it by hand"
    what = f"block the login of {request.username}, end its sessions, drop it. dbaccess then finds it gone and says so."
    return (
        *(remedies(error) or _steps_to_unblock(request, error)),
        f"{when}: {what}",
        f"If the server is no more: dbaccess revoke {request.id} --gone REASON",
    )


def _steps_to_unblock(request: Request, error: AdapterError) -> tuple[str, ...]:
    """Steps after which dbaccess ends the grant by itself, where the adapter names none."""
    match error:
        case AdapterFailed():
            return ("The log has more under the reference.",)
        case ServerDown():
            return (f"Make {request.database} answer again; dbaccess goes on by itself.",)
        case Blocked():
            return ("End the session or transaction that holds it up; dbaccess goes on by itself.",)
        case ForeignUser():
            return ("Ask the administrators of the ledger that the mark names. dbaccess never touches their user.",)
        case _:
            return ()
