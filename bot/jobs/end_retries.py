"""The retry of an end that failed, and the alert that says what to do by hand. For ``revoke`` and ``repair``."""

from __future__ import annotations

from adapters.base import AdapterError, Blocked, ForeignUser, Rejected, ServerDown, WrongServer
from bot.access.alerts import raise_alert
from bot.access.context import Context
from bot.jobs.job import JobContext, Retry, backoff, is_alert_due
from storage.records import Request


async def retry_with_alert(context: Context, job: JobContext, request: Request, error: AdapterError) -> Retry:
    """The Retry to raise after a failed end. Raises an alert first, where one is due at this try."""
    next_try = await context.ledger.now() + backoff(job.tries)
    if is_alert_due(job.tries) or (job.tries == 1 and isinstance(error, WrongServer | ForeignUser)):
        problem, steps = _problem(request, error), _manual_steps(request, error)
        await raise_alert(context, request, problem, tries=job.tries, steps=steps)
    return Retry(str(error), at=next_try)


def _problem(request: Request, error: AdapterError) -> str:
    """The sentence of the alert. A lock that somebody holds is not reported as a server that is down."""
    if isinstance(error, ServerDown):
        return f"Cannot end #{request.id}: {request.database} does not answer ({error})."
    reason = error.what if isinstance(error, Blocked) else str(error)
    return f"Cannot end #{request.id} on {request.database}: {reason}."


def _manual_steps(request: Request, error: AdapterError) -> tuple[str, ...]:
    return (
        *_steps_to_unblock(request, error),
        f"To end it by hand: block the login of {request.username}, end its sessions, drop it. dbaccess then finds it gone and says so.",
        f"If the server is no more: dbaccess revoke {request.id} --gone REASON",
    )


def _steps_to_unblock(request: Request, error: AdapterError) -> list[str]:
    """Steps after which dbaccess ends the grant by itself."""
    if isinstance(error, Blocked | Rejected):
        return [error.remedy] if error.remedy else []
    if isinstance(error, ServerDown):
        return [f"Make {request.database} answer again; dbaccess goes on by itself."]
    return []
