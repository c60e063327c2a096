"""What a lost claim may have left on a server is put right, in its turn in the same lock key."""

from __future__ import annotations

from adapters.base import AdapterError, ForeignUser
from bot.access.context import Context
from bot.jobs.job import JobContext
from bot.jobs.revoke import again, drop
from storage.audit_log import AuditKind
from storage.records import State, TaskKind
from storage.transitions import TaskPlan, Transition, TransitionInput


async def repair(context: Context, work: JobContext) -> None:
    """Effect of the ``repair`` task. It talks to the server alone: it has a slot of those that end access, and Slack may not hold it.

    Somebody lost the task while a statement of theirs was on its way. ACTIVE: their late statement may have set
    another password, so a fresh one goes into the message. Over: their late statement may have made the user
    again, so it is dropped and read back, and its message closed. Otherwise the lock key's own ``provision`` or ``revoke`` sees to it.
    """
    request = await work.request()
    if request.state is State.ACTIVE:
        await _plan(work, TaskKind.PASSWORD)
    elif request.state is State.REVOKED and request.started_at is not None and not (request.receipt or {}).get("gone"):
        try:
            receipt = await drop(context, work, request)
        except ForeignUser:
            return
        except AdapterError as trouble:
            raise await again(context, work, request, trouble) from None
        await _plan(work, TaskKind.CLOSE_CREDENTIALS)
        if not receipt.was_absent:
            await work.advance(
                request,
                Transition.NOTE,
                TransitionInput(
                    actor="bot", audit=AuditKind.REPAIRED, facts={"sessions_ended": receipt.sessions_ended}
                ),
            )


async def _plan(work: JobContext, kind: TaskKind) -> None:
    """The part that is shown in Slack, behind us in this lock key."""
    ledger, task = work.context.ledger, work.claim.task
    plan = TaskPlan(kind=kind, lock_key=task.lock_key, due_at=await ledger.now(), payload={"mends": True})
    await ledger.add_task(plan, request_id=task.request_id)
