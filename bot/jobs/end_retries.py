"""The retry of an end that failed, and the alert that says what to do by hand. For ``revoke`` and ``repair``."""

from __future__ import annotations

from adapters.base import AdapterError, Blocked, ForeignUser, ServerDown, WrongServer
from bot.access.alerts import raise_alert
from bot.access.context import Context
from bot.access.server_errors import describe_server_error, remedies
from bot.engines import AdapterFailed
from bot.jobs.job import JobContext, Retry, backoff, is_alert_due
from storage.records import Request


async def retry_with_alert(context: Context, job: JobContext, request: Request, error: AdapterError) -> Retry:
    """The Retry to raise after a failed end. Raises an alert first, where one is due at this try."""
    next_try = await context.ledger.now() + backoff(job.tries)
    if is_alert_due(job.tries) or (job.tries == 1 and isinstance(error, WrongServer | ForeignUser)):
        problem, steps = _problem(request, error), _manual_steps(request, error)
        await raise_alert(
            context, request, problem, cause=f"end:{request.id}", tries=job.tries, steps=steps, next_try_at=next_try
        )
    return Retry(str(error), at=next_try, is_server_down=isinstance(error, ServerDown))


def _problem(request: Request, error: AdapterError) -> str:
    """The sentence of the alert. A blocked step is not reported as a server that is down, and concerns one user."""
    alone = f" Only {request.username} waits for it." if isinstance(error, Blocked) else ""
    return f"Cannot end #{request.id}: {describe_server_error(request.database, error)}.{alone}"


def _manual_steps(request: Request, error: AdapterError) -> tuple[str, ...]:
    by_hand = (
        f"block the login of {request.username}, end its sessions, drop it. dbaccess then finds it gone and says so."
    )
    return (
        *(remedies(error) or _steps_to_unblock(request, error)),
        f"If nobody needs that user: {by_hand}" if isinstance(error, ForeignUser) else f"To end it by hand: {by_hand}",
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
