"""What a lost claim may have left on a server is put right, in its turn in the same lock key."""

from __future__ import annotations

from adapters.base import AdapterError, ForeignUser
from bot.access.context import Context
from bot.jobs.job import JobContext
from bot.jobs.revoke import drop_user, retry_after_alert
from storage.commands import Repair
from storage.records import ReceiptOutcome, Request, State, TaskKind
from storage.transitions import TaskPlan


async def repair(context: Context, job: JobContext) -> None:
    """Effect of the ``repair`` task. It talks to the server alone: it has a slot of those that end access, and Slack may not hold it.

    Somebody lost the task while a statement of theirs was on its way. ACTIVE: their late statement may have set
    another password, so a fresh one goes into the message. Over: their late statement may have made the user
    again, so it is dropped and read back, and its message closed. Otherwise the lock key's own ``provision`` or ``revoke`` sees to it.
    """
    request = await job.request()
    if request.state is State.ACTIVE:
        await _plan(job, TaskKind.RENEW_PASSWORD)
    elif request.state is State.REVOKED and request.started_at is not None and not _is_declared_gone(request):
        try:
            removal = await drop_user(context, job, request)
        except ForeignUser:
            return
        except AdapterError as trouble:
            raise await retry_after_alert(context, job, request, trouble) from None
        await _plan(job, TaskKind.CLOSE_CREDENTIALS)
        if not removal.was_absent:
            await job.advance(request, Repair(actor="bot", facts={"sessions_ended": removal.sessions_ended}))


def _is_declared_gone(request: Request) -> bool:
    return request.receipt is not None and request.receipt.outcome is ReceiptOutcome.DECLARED_GONE


async def _plan(job: JobContext, kind: TaskKind) -> None:
    """The part that is shown in Slack, behind us in this lock key."""
    ledger, task = job.context.ledger, job.claim.task
    plan = TaskPlan(kind=kind, lock_key=task.lock_key, due_at=await ledger.now(), payload={"mends": True})
    await ledger.add_task(plan, request_id=task.request_id)
