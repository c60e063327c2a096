"""The runner: claims what is due by lease, runs its effect, marks it done or backs off.

It sleeps until the earliest due task and is woken by every commit, of another process too. What a crash
leaves behind is claimed again when its lease runs out; a task that is late is done, never skipped.

Each target server has slots of its own, and so has Slack; in each of these pools the ends of grants and the alerts have
slots that nothing else can take. A pool that hangs fills its own slots and nobody else's: what it has no slot for
is not claimed.
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

from adapters.base import ServerDown
from bot.access.alerts import raise_alert
from bot.access.context import Context
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
"""Outlasts every adapter time limit, so that only a worker that is truly gone loses its claim."""

SLOTS: Mapping[tuple[bool, Priority], tuple[int, int]] = {
    (False, Priority.SAFETY): (4, 4),
    (False, Priority.GRANT): (3, 1),
    (True, Priority.SAFETY): (1, 1),
    (True, Priority.GRANT): (2, 1),
    (True, Priority.DECISION): (4, 2),
    (True, Priority.BACKGROUND): (2, 1),
}
"""By "the pool is Slack's" and priority: how many tasks run at a time that were never tried, and how many that were.

Those two never wait for each other: ends that are held up again and again leave the slots of a fresh one alone. On a server
they are no more than its threads (``bot.engines.WORKERS``), so that no claimed task waits in memory.
"""

LONGEST_SLEEP = 30.0
SHORTEST_SLEEP = 0.02
"""What is due and was not to be claimed is another worker's at this moment."""
STORE_PAUSE = 1.0

ENDS = frozenset({TaskKind.REVOKE, TaskKind.REPAIR})
"""Tasks that take a user away."""

log = structlog.get_logger(__name__)


def slots_for(slot: Slot) -> int:
    """How many tasks may be in slots of this kind at a time."""
    return SLOTS[slot.pool == SLACK, slot.priority][slot.is_retry]


class Runner:
    """``run`` until told to stop, or ``drain`` what is due now."""

    def __init__(self, context: Context, effects: Mapping[TaskKind, Job], *, lease: timedelta = LEASE) -> None:
        self.context = context
        self.ledger = context.ledger
        self.effects = effects
        self.lease = lease
        self.worker = secrets.token_hex(4)
        self._busy: dict[asyncio.Task[None], Slot] = {}
        self._nudge = asyncio.Event()

    def nudge(self) -> None:
        """Look again now; the net under the runner calls this."""
        self._nudge.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until ``stop`` is set, then let what was begun end. A store that fails is tried again for ever."""
        try:
            while not stop.is_set():
                await self._one_round(stop)
        except Exception:
            await self._finish_all()
            raise
        await self._finish_all()

    async def _one_round(self, stop: asyncio.Event) -> None:
        try:
            await self._fill()
            await self._sleep(stop)
        except LedgerError:
            log.exception("the ledger does not answer")
            await asyncio.sleep(STORE_PAUSE)

    async def drain(self) -> int:
        """Run all that is due now, and what follows from it, one after the other; the number of tasks run."""
        count = 0
        while (claim := await self.ledger.claim(self.worker, self.lease)) is not None:
            await self._perform(claim)
            count += 1
        return count

    def _full(self) -> list[Slot]:
        """The slots of which none is free."""
        return [slot for slot, count in Counter(self._busy.values()).items() if count >= slots_for(slot)]

    async def _fill(self) -> None:
        while (claim := await self.ledger.claim(self.worker, self.lease, full=self._full())) is not None:
            task = asyncio.create_task(self._perform(claim))
            self._busy[task] = claim.slot
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        del self._busy[task]
        self.nudge()

    async def _sleep(self, stop: asyncio.Event) -> None:
        seconds = LONGEST_SLEEP
        due = await self.ledger.next_due(full=self._full())
        if due is not None:
            seconds = max(SHORTEST_SLEEP, min(seconds, (due - await self.ledger.now()).total_seconds()))
        waits = [
            asyncio.ensure_future(self.ledger.wait_for_commit(seconds)),
            asyncio.ensure_future(self._nudge.wait()),
            asyncio.ensure_future(stop.wait()),
        ]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
            self._nudge.clear()

    async def _finish_all(self) -> None:
        if self._busy:
            await asyncio.wait(self._busy)

    async def _perform(self, claim: Claim) -> None:
        """One task. The only broad catch of the program: whatever happens, the task is done, put back, or another's."""
        job = JobContext(self.context, claim)
        try:
            await self._held(job)
        except LedgerError:
            log.exception("the ledger failed under a task; it is put back", task=claim.task.kind)
            await self._put_back_when_it_answers(claim)

    async def _held(self, job: JobContext) -> None:
        try:
            async with self._renewed(job.claim):
                await self._effect(job)
        except (ClaimLost, NotPossible) as lost:
            await self._lost(job.claim, lost)

    async def _put_back_when_it_answers(self, claim: Claim) -> None:
        """At once, so that an end does not wait for its lease to run out. Given up when it has run out, or the task is another's."""
        for _ in range(int(self.lease.total_seconds() / STORE_PAUSE)):
            await asyncio.sleep(STORE_PAUSE)
            with suppress(LedgerError):
                try:
                    task = claim.task
                    await self.ledger.reschedule(
                        claim, due_at=task.due_at, error="the ledger failed", is_untried=task.attempts == 1
                    )
                except ClaimLost:
                    return
                return

    async def _effect(self, job: JobContext) -> None:
        claim, task = job.claim, job.claim.task
        try:
            await self.effects[task.kind](self.context, job)
        except Retry as again:
            at = again.at or await self.ledger.now() + backoff(task.attempts)
            await self.ledger.reschedule(claim, due_at=at, error=str(again), is_untried=again.is_untried)
        except Delayed as delayed:
            pause = timedelta(seconds=delayed.retry_after) if delayed.retry_after else backoff(task.attempts)
            await self.ledger.reschedule(claim, due_at=await self.ledger.now() + pause, error=str(delayed))
        except ServerDown as silent:
            await self.ledger.reschedule(
                claim, due_at=await self.ledger.now() + backoff(task.attempts), error=str(silent)
            )
        except NoSuchRequest:
            await self.ledger.finish(claim)
        except LedgerError:
            raise
        except Exception as unforeseen:  # noqa: BLE001 - see _perform
            await self._failed(claim, unforeseen)
        else:
            await self.ledger.finish(claim)

    async def _failed(self, claim: Claim, unforeseen: Exception) -> None:
        """A mistake of ours. It is tried again like any other trouble; of an end that fails again and again somebody is told."""
        task, reference = claim.task, secrets.token_hex(4).upper()
        log.error("a task failed", task=task.kind, request=task.request_id, reference=reference, exc_info=unforeseen)
        words = f"{type(unforeseen).__name__}, reference {reference}"
        if task.kind in ENDS and is_alert_due(task.attempts):
            what = f"Cannot end #{task.request_id}: dbaccess failed with {words}."
            steps = ("End it by hand on its server. The log has more under the reference.",)
            await raise_alert(self.context, None, what, tries=task.attempts, steps=steps)
        await self.ledger.reschedule(claim, due_at=await self.ledger.now() + backoff(task.attempts), error=words)

    async def _lost(self, claim: Claim, lost: ClaimLost | NotPossible) -> None:
        """Another worker has the task, or the state moved on: nothing more outside; what we left there is looked at in turn."""
        task = claim.task
        log.warning("a claim was lost", task=task.kind, request=task.request_id)
        if task.lock_key.startswith("db:"):
            plan = TaskPlan(
                kind=TaskKind.REPAIR, lock_key=task.lock_key, due_at=await self.ledger.now(), is_single=True
            )
            await self.ledger.add_task(plan, request_id=task.request_id)
        if isinstance(lost, NotPossible) and lost.obstacle is not Obstacle.CLAIM_LOST:
            if task.kind is TaskKind.REVOKE and lost.request.is_live:
                await self.ledger.reschedule(claim, due_at=await self.ledger.now(), error=str(lost.obstacle))
            else:
                await self.ledger.finish(claim)

    @asynccontextmanager
    async def _renewed(self, claim: Claim) -> AsyncIterator[None]:
        """Renew the lease at every third of it while the effect lives."""
        renewing = asyncio.create_task(self._renew(claim))
        try:
            yield
        finally:
            renewing.cancel()
            with suppress(asyncio.CancelledError):
                await renewing

    async def _renew(self, claim: Claim) -> None:
        while True:
            await asyncio.sleep(self.lease.total_seconds() / 3)
            with suppress(LedgerError):
                await self.ledger.renew(claim, self.lease)
