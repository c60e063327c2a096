"""Run tasks: claim each due task under a lease, run its job, and finish it or put it back.

The runner sleeps until the earliest task is due; every commit wakes it, also one of another process. After a crash the
lease runs out and the task is claimed again. A late task runs late; it is never skipped.

Slack and each target server have a pool of slots of their own. In each pool, ends of grants and alerts have slots
reserved. A pool that hangs fills its own slots only: the runner does not claim a task that has no free slot.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Mapping
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING

import structlog

from adapters.base import AdapterError
from bot.access.alerts import raise_alert
from bot.access.context import Context
from bot.access.descriptions import shorten
from bot.access.ports import Delayed
from bot.jobs.job import Job, JobContext, Retry, backoff, is_alert_due
from storage.errors import ClaimLost, LedgerError, NoSuchRequest, NotPossible
from storage.pools import SLACK, Priority, Slot
from storage.records import TaskKind
from storage.task_queue import Claim
from storage.transitions import Obstacle, TaskPlan

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LEASE = timedelta(seconds=90)
"""Longer than every adapter time limit: a worker loses its claim only when it has stopped."""

SLOTS: Mapping[tuple[bool, Priority], tuple[int, int]] = {
    (False, Priority.SAFETY): (4, 4),
    (False, Priority.GRANT): (3, 1),
    (True, Priority.SAFETY): (1, 1),
    (True, Priority.GRANT): (2, 1),
    (True, Priority.DECISION): (4, 2),
    (True, Priority.BACKGROUND): (2, 1),
}
"""(Is it the pool of Slack, priority) → (how many first tries, how many retries) run at a time.

First tries and retries have separate slots: ends that fail again and again never take the slot of a new end. The slots
of a server are no more than its threads (``bot.engines.WORKERS``), so that no claimed task waits in memory.
"""

LONGEST_SLEEP_SECONDS = 30.0
SHORTEST_SLEEP_SECONDS = 0.02
"""Used where a task is due and cannot be claimed: another worker is claiming it at this moment."""
LEDGER_PAUSE_SECONDS = 1.0
ERROR_MAX = 1000
"""Characters of the last error of a task that the ledger stores."""

ENDS = frozenset({TaskKind.REVOKE, TaskKind.REPAIR})
"""Kinds of tasks that drop a user."""

log = structlog.get_logger(__name__)


def slots_for(slot: Slot) -> int:
    """The number of tasks that may run at a time in slots of this kind."""
    return SLOTS[slot.pool == SLACK, slot.priority][slot.is_retry]


class Runner:
    """Runs jobs: ``run`` until it is stopped, or ``drain`` the tasks that are due now."""

    def __init__(self, context: Context, jobs: Mapping[TaskKind, Job], *, lease: timedelta = LEASE) -> None:
        self.context = context
        self.ledger = context.ledger
        self.jobs = jobs
        self.lease = lease
        self.worker = secrets.token_hex(4)
        self._busy: dict[asyncio.Task[None], Slot] = {}
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Look for due tasks now."""
        self._woken.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Run due tasks until ``stop`` is set, then wait for the running jobs. A ledger that fails is tried again, without limit."""
        try:
            while not stop.is_set():
                await self._run_round(stop)
        except Exception:
            await self._wait_for_running()
            raise
        await self._wait_for_running()

    async def _run_round(self, stop: asyncio.Event) -> None:
        try:
            await self._start_due_tasks()
            await self._sleep(stop)
        except LedgerError:
            log.exception("ledger_unavailable")
            await asyncio.sleep(LEDGER_PAUSE_SECONDS)

    async def drain(self) -> int:
        """Run all tasks that are due now, and the tasks that follow from them, one after the other. Returns how many ran."""
        count = 0
        while (claim := await self.ledger.claim(self.worker, self.lease)) is not None:
            await self._run_task(claim)
            count += 1
        return count

    def _full_slots(self) -> list[Slot]:
        """The kinds of slots of which none is free."""
        return [slot for slot, count in Counter(self._busy.values()).items() if count >= slots_for(slot)]

    async def _start_due_tasks(self) -> None:
        while (claim := await self.ledger.claim(self.worker, self.lease, full=self._full_slots())) is not None:
            task = asyncio.create_task(self._run_task(claim))
            self._busy[task] = claim.slot
            task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        del self._busy[task]
        self.wake()

    async def _sleep(self, stop: asyncio.Event) -> None:
        seconds = LONGEST_SLEEP_SECONDS
        due = await self.ledger.next_due(full=self._full_slots())
        if due is not None:
            seconds = max(SHORTEST_SLEEP_SECONDS, min(seconds, (due - await self.ledger.now()).total_seconds()))
        waits = [
            asyncio.ensure_future(self.ledger.wait_for_commit(seconds)),
            asyncio.ensure_future(self._woken.wait()),
            asyncio.ensure_future(stop.wait()),
        ]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
            self._woken.clear()

    async def _wait_for_running(self) -> None:
        if self._busy:
            await asyncio.wait(self._busy)

    async def _run_task(self, claim: Claim) -> None:
        """Run one task. Afterwards it is finished, put back, or claimed by another worker, whatever its job raised."""
        job = JobContext(self.context, claim)
        try:
            await self._run_under_lease(job)
        except LedgerError:
            log.exception("task_interrupted", task=claim.task.kind, request=claim.task.request_id)
            await self._put_back_after_ledger_failure(claim)

    async def _run_under_lease(self, job: JobContext) -> None:
        try:
            async with self._lease_renewed(job.claim):
                await self._run_job(job)
        except (ClaimLost, NotPossible) as error:
            await self._on_claim_lost(job.claim, error)

    async def _put_back_after_ledger_failure(self, claim: Claim) -> None:
        """Put the task back as soon as the ledger answers, so that an end does not wait for its lease to run out.

        Gives up when the lease has run out, or when another worker has the task.
        """
        for _ in range(int(self.lease.total_seconds() / LEDGER_PAUSE_SECONDS)):
            await asyncio.sleep(LEDGER_PAUSE_SECONDS)
            with suppress(LedgerError):
                try:
                    task = claim.task
                    await self.ledger.reschedule(
                        claim, due_at=task.due_at, error="the ledger failed", is_untried=task.attempts == 1
                    )
                except ClaimLost:
                    return
                return

    async def _run_job(self, job: JobContext) -> None:
        """Run the job. Errors of the ledger are raised; this is the only place that catches every other error."""
        claim, task = job.claim, job.claim.task
        try:
            await self.jobs[task.kind](self.context, job)
        except Retry as retry:
            at = retry.at or await self.ledger.now() + backoff(task.attempts)
            reason = shorten(str(retry), ERROR_MAX)
            await self.ledger.reschedule(claim, due_at=at, error=reason, is_untried=retry.is_untried)
        except Delayed as error:
            pause = timedelta(seconds=error.retry_after) if error.retry_after else backoff(task.attempts)
            await self._put_back_after(claim, pause, str(error))
        except AdapterError as error:
            await self._put_back_after(claim, backoff(task.attempts), str(error))
        except NoSuchRequest:
            await self.ledger.finish(claim)
        except LedgerError:
            raise
        except Exception as error:  # noqa: BLE001 - a fault in one job must not stop the runner
            await self._on_unexpected_error(claim, error)
        else:
            await self.ledger.finish(claim)

    async def _put_back_after(self, claim: Claim, pause: timedelta, error: str) -> None:
        due_at = await self.ledger.now() + pause
        await self.ledger.reschedule(claim, due_at=due_at, error=shorten(error, ERROR_MAX))

    async def _on_unexpected_error(self, claim: Claim, error: Exception) -> None:
        """A fault in dbaccess itself. The task is put back; an end that fails again and again raises an alert."""
        task, reference = claim.task, secrets.token_hex(4).upper()
        log.error("task_failed", task=task.kind, request=task.request_id, reference=reference, exc_info=error)
        summary = f"{type(error).__name__}, reference {reference}"
        if task.kind in ENDS and is_alert_due(task.attempts):
            what = f"Cannot end #{task.request_id}: dbaccess failed with {summary}."
            steps = ("End it by hand on its server. The log has more under the reference.",)
            await raise_alert(self.context, None, what, tries=task.attempts, steps=steps)
        await self._put_back_after(claim, backoff(task.attempts), summary)

    async def _on_claim_lost(self, claim: Claim, error: ClaimLost | NotPossible) -> None:
        """Another worker has the task, or the state has moved on. A ``repair`` task checks what this run left on the server."""
        task = claim.task
        log.warning("claim_lost", task=task.kind, request=task.request_id)
        if task.lock_key.startswith("db:"):
            plan = TaskPlan(
                kind=TaskKind.REPAIR, lock_key=task.lock_key, due_at=await self.ledger.now(), is_single=True
            )
            await self.ledger.add_task(plan, request_id=task.request_id)
        if isinstance(error, NotPossible) and error.obstacle is not Obstacle.CLAIM_LOST:
            if task.kind is TaskKind.REVOKE and error.request.is_live:
                await self.ledger.reschedule(claim, due_at=await self.ledger.now(), error=str(error.obstacle))
            else:
                await self.ledger.finish(claim)

    @asynccontextmanager
    async def _lease_renewed(self, claim: Claim) -> AsyncIterator[None]:
        """Renew the lease, three times within its length, while the job runs."""
        renewal = asyncio.create_task(self._renew_lease(claim))
        try:
            yield
        finally:
            renewal.cancel()
            with suppress(asyncio.CancelledError):
                await renewal

    async def _renew_lease(self, claim: Claim) -> None:
        while True:
            await asyncio.sleep(self.lease.total_seconds() / 3)
            with suppress(LedgerError):
                await self.ledger.renew(claim, self.lease)
