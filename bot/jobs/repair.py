"""Repair a user after a lost claim, under the lock key of that user.

The worker that lost the claim may have had a statement on its way. It may take effect after another worker went on.
"""

from __future__ import annotations

from adapters.base import AdapterError, ForeignUser
from bot.access.alerts import resolve_end_alert
from bot.access.context import Context
from bot.jobs.end_retries import retry_with_alert
from bot.jobs.job import JobContext
from bot.jobs.revoke import drop_user
from storage.commands import Repair
from storage.records import ReceiptOutcome, Request, State, TaskKind
from storage.transitions import TaskPlan


async def repair(context: Context, job: JobContext) -> None:
    """Job of ``repair``. It talks to the server only: it runs in a slot of the ends, which Slack must not hold.

    ACTIVE: the late statement may have set another password, so a task sets a new one and shows it. REVOKED: the late
    statement may have created the user again, so it is dropped and read back. In other states the ``provision`` or
    ``revoke`` task of the same lock key repairs the user.
    """
    request = await job.request()
    if request.state is State.ACTIVE:
        await _add_follow_up(job, TaskKind.RENEW_PASSWORD)
    elif request.state is State.REVOKED and request.started_at is not None and not _is_declared_gone(request):
        try:
            removal = await drop_user(context, job, request)
        except ForeignUser:
            return
        except AdapterError as error:
            raise await retry_with_alert(context, job, request, error) from None
        await resolve_end_alert(context, request)
        await _add_follow_up(job, TaskKind.CLOSE_CREDENTIALS)
        if not removal.was_absent:
            await job.advance(request, Repair(actor="bot", facts={"sessions_ended": removal.sessions_ended}))


def _is_declared_gone(request: Request) -> bool:
    return request.receipt is not None and request.receipt.outcome is ReceiptOutcome.DECLARED_GONE


async def _add_follow_up(job: JobContext, kind: TaskKind) -> None:
    """Add the task for the part that is shown in Slack."""
    ledger, task = job.context.ledger, job.claim.task
    lock_key = f"message:{task.request_id}:credentials"
    plan = TaskPlan(kind=kind, lock_key=lock_key, due_at=await ledger.now(), payload={"mends": True})
    await ledger.tasks.add(plan, request_id=task.request_id)
