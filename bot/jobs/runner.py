"""Run tasks: claim each due task under a lease, run its job, and finish it or put it back.

The runner sleeps until the earliest task is due; every commit wakes it, also one of another process. After a crash the
lease runs out and the task is claimed again, on PostgreSQL sooner (``storage.gone_workers``). A late task runs late; it is never skipped.

Slack and each target server have places of their own (``pools``). A server that does not answer is probed (``probes``). Ends that fall
together are blocked together (``end_together``), and then each user is dropped by its own task.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import datetime, timedelta
from time import monotonic

import structlog

from adapters.base import AdapterError, ServerDown
from bot.access.alerts import end_cause, raise_alert
from bot.access.context import Context
from bot.access.descriptions import shorten
from bot.access.ports import Delayed
from bot.jobs.end_together import begin_and_block, drop_blocked_users
from bot.jobs.job import ALERT_AT_TRY, LEASE, Job, JobContext, Retry, backoff
from bot.jobs.outage import LedgerOutage
from bot.jobs.pools import Places
from bot.jobs.probes import Probes
from storage.claims import Claim, SetAside
from storage.errors import ClaimLost, LedgerError, NoSuchRequest, NotPossible
from storage.pools import ALERTS, LOCKDOWNS, ON_SERVER, SLACK, UNKNOWN, Slot
from storage.records import Priority, TaskKind
from storage.transitions import Obstacle, TaskPlan

LONGEST_SLEEP_SECONDS = 30.0
SHORTEST_SLEEP_SECONDS = 0.02
"""Used where a task is due and cannot be claimed: another worker is claiming it at this moment."""
PAUSE_SECONDS = 1.0
"""The pause after the ledger, or the runner itself, failed."""
GROUP_PAUSE_SECONDS = 0.25
FAILED_GROUP_PAUSE_SECONDS = 30.0
"""The pause after a group that was not answered. A group has its ends for as long as it hangs; their own tasks may get through meanwhile."""
LEFT_SECONDS = 60.0
"""After this time without a group, a new group looks again at the users that the last ones left to their own tasks."""
BLOCKING_FIRST_SECONDS = 6.0
ERROR_MAX = 1000
"""Characters of the last error of a task that the ledger stores."""

ENDS = frozenset({TaskKind.REVOKE, TaskKind.REPAIR})
"""Kinds of tasks that drop a user."""

log = structlog.get_logger(__name__)


class Runner:
    """Runs jobs: ``run`` until it is stopped, or ``drain`` the tasks that are due now."""

    def __init__(self, context: Context, jobs: Mapping[TaskKind, Job], *, lease: timedelta = LEASE) -> None:
        self.context = context
        self.tasks = context.ledger.tasks
        self.jobs = jobs
        self.lease = lease
        self.worker = secrets.token_hex(4)
        self.places = Places()
        self.probes = Probes(context, self.worker, self.wake)
        self._running: set[asyncio.Task[None]] = set()
        self._groups: dict[str, float] = {}
        self._groups_began: dict[str, float] = {}
        self._left: dict[str, set[int]] = {}
        self._woken = asyncio.Event()
        self._outage = LedgerOutage()

    def wake(self) -> None:
        """Look for due tasks now."""
        self._woken.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Run due tasks until ``stop`` is set, then wait for the running jobs. Survives every error: the next round tries again."""
        try:
            while not stop.is_set():
                try:
                    await self._run_round(stop)
                except LedgerError:
                    self._outage.begins()
                    log.exception("ledger_unavailable")
                    await _pause(stop, PAUSE_SECONDS)
                except Exception:
                    log.exception("runner_failed")
                    await _pause(stop, PAUSE_SECONDS)
        finally:
            await self.probes.stop()
            await self._wait_for_running()

    async def _run_round(self, stop: asyncio.Event) -> None:
        self._woken.clear()
        full = [*self.places.full(), *self._paused_drops()]
        due = await self.tasks.claim_due(
            self.worker, self.lease, room=self.places.room, full=full, closed=self.probes.closed
        )
        for claim in due.claims:
            self._start(claim)
        await self._outage.ends(self.context)
        for unreadable in due.set_aside:
            await self._on_set_aside(unreadable)
        for slot in self.places.full():
            await self._block_groups(slot)
        await self._sleep(stop, due.next_due, due.now)

    async def drain(self) -> int:
        """Run all tasks that are due now, and the tasks that follow from them, one after the other. Returns how many ran."""
        count = 0
        while True:
            due = await self.tasks.claim_due(self.worker, self.lease, limit=1)
            for unreadable in due.set_aside:
                await self._on_set_aside(unreadable)
            for claim in due.claims:
                await self._run_task(claim)
                count += 1
            if not due.claims and not due.set_aside:
                return count

    def _start(self, claim: Claim) -> None:
        self.places.take(claim.slot)
        task = asyncio.create_task(self._run_task(claim))
        self._running.add(task)

        def on_done(done: asyncio.Task[None]) -> None:
            self._running.discard(done)
            self.places.free(claim.slot)
            self.wake()

        task.add_done_callback(on_done)

    async def _block_groups(self, slot: Slot) -> None:
        """More ends are due than there are places: block the logins of all of them now, in places of their own.

        Addresses that hang may have all places of their pool. The ends of its other addresses are blocked all the same.
        """
        if slot.priority is not Priority.SAFETY or slot.is_retry or slot.is_blocked:
            return
        if slot.server is not None:
            self._block_group(slot.server)
        elif slot.pool not in (ALERTS, LOCKDOWNS, SLACK):
            for server in await self.tasks.servers_with_new_ends(slot.pool):
                self._block_group(server)

    def _block_group(self, server: str) -> None:
        if monotonic() < self._groups.get(server, 0.0) or server in self.probes.closed:
            return
        if monotonic() > self._groups.get(server, 0.0) + LEFT_SECONDS:
            self._left.pop(server, None)
        self._groups[server] = float("inf")
        self._groups_began[server] = monotonic()
        task = asyncio.create_task(self._run_group(server))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    def _paused_drops(self) -> list[Slot]:
        """While users of a server are being blocked or dropped together, the own tasks of those that are blocked wait, for some seconds at most."""
        recent = monotonic() - BLOCKING_FIRST_SECONDS
        servers = [server for server, began in self._groups_began.items() if began > recent]
        return [
            Slot(pool=UNKNOWN, server=server, priority=Priority.SAFETY, is_retry=False, is_blocked=True)
            for server in servers
        ]

    async def _run_group(self, server: str) -> None:
        pause = GROUP_PAUSE_SECONDS
        try:
            answer = await begin_and_block(self.context, server, self.worker)
            if answer.error is not None:
                pause = FAILED_GROUP_PAUSE_SECONDS
                log.warning("group_not_blocked", server=server, error=str(answer.error))
            else:
                self._groups_began[server] = monotonic()
                await drop_blocked_users(self.context, server, self.worker, self._left.setdefault(server, set()))
        except Exception:
            log.exception("group_failed", server=server)
        finally:
            self._groups[server] = monotonic() + pause
            self._groups_began.pop(server, None)
            self.wake()

    async def _sleep(self, stop: asyncio.Event, due: datetime | None, now: datetime) -> None:
        seconds = LONGEST_SLEEP_SECONDS
        if due is not None:
            seconds = max(SHORTEST_SLEEP_SECONDS, min(seconds, (due - now).total_seconds()))
        waits = [
            asyncio.ensure_future(self.context.ledger.wait_for_commit(seconds)),
            asyncio.ensure_future(self._woken.wait()),
            asyncio.ensure_future(stop.wait()),
        ]
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)

    async def _wait_for_running(self) -> None:
        """Wait for the running jobs. If that is cancelled, they are cancelled, too."""
        try:
            while self._running:
                await asyncio.wait(self._running)
        except asyncio.CancelledError:
            for task in self._running:
                task.cancel()
            raise

    async def _run_task(self, claim: Claim) -> None:
        """Run one task. Afterwards it is finished, put back, or claimed by another worker, whatever its job raised."""
        job = JobContext(self.context, claim)
        try:
            await self._run_under_lease(job)
        except LedgerError:
            self._outage.begins()
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
        for _ in range(int(self.lease.total_seconds() / PAUSE_SECONDS)):
            await asyncio.sleep(PAUSE_SECONDS)
            with suppress(LedgerError):
                try:
                    task = claim.task
                    await self.tasks.reschedule(
                        claim, due_at=task.due_at, error="the ledger failed", is_untried=task.attempts == 1
                    )
                except ClaimLost:
                    return
                return

    async def _run_job(self, job: JobContext) -> None:
        """Run the job, then finish its task or put it back. Errors of the ledger are raised."""
        claim = job.claim
        try:
            await self.jobs[claim.task.kind](self.context, job)
        except NoSuchRequest:
            await self.tasks.finish(claim)
        except LedgerError:
            raise
        except Exception as error:  # noqa: BLE001 - the only place that catches every error of a job
            await self._put_back(claim, error)
        else:
            if not job.is_finished:
                await self.tasks.finish(claim)

    async def _put_back(self, claim: Claim, error: Exception) -> None:
        """The job was not done: its task is tried again. A fault of a job must not stop the runner."""
        match error:
            case Retry():
                await self._on_retry(claim, error)
            case Delayed():
                await self._on_delayed(claim, error)
            case AdapterError():
                if isinstance(error, ServerDown):
                    await self.probes.suspect(claim.task)
                await self._put_back_after(claim, backoff(claim.task.attempts), str(error))
            case _:
                await self._on_unexpected_error(claim, error)

    async def _on_retry(self, claim: Claim, retry: Retry) -> None:
        if retry.is_server_down:
            await self.probes.suspect(claim.task)
        at = retry.at or await self.context.ledger.now() + backoff(claim.task.attempts)
        reason = shorten(str(retry), ERROR_MAX)
        await self.tasks.reschedule(claim, due_at=at, error=reason, is_untried=retry.is_untried)

    async def _on_delayed(self, claim: Claim, error: Delayed) -> None:
        """Slack did not take a message, or it is not its turn yet. A message that waits for its turn was not tried."""
        pause = timedelta(seconds=error.retry_after) if error.retry_after else backoff(claim.task.attempts)
        due_at = await self.context.ledger.now() + pause
        await self.tasks.reschedule(
            claim, due_at=due_at, error=shorten(str(error), ERROR_MAX), is_untried=error.is_paced
        )

    async def _put_back_after(self, claim: Claim, pause: timedelta, error: str) -> None:
        due_at = await self.context.ledger.now() + pause
        await self.tasks.reschedule(claim, due_at=due_at, error=shorten(error, ERROR_MAX))

    async def _on_unexpected_error(self, claim: Claim, error: Exception) -> None:
        """A fault in dbaccess itself. The task is put back; an end that fails again and again raises an alert."""
        task, reference = claim.task, secrets.token_hex(4).upper()
        log.error("task_failed", task=task.kind, request=task.request_id, reference=reference, exc_info=error)
        summary = f"{type(error).__name__}, reference {reference}"
        pause = backoff(task.attempts)
        if task.kind in ENDS and task.request_id is not None and task.attempts >= ALERT_AT_TRY:
            await raise_alert(
                self.context,
                None,
                f"#{task.request_id} is not ended: dbaccess failed with {summary}.",
                cause=end_cause(task.request_id),
                tries=task.attempts,
                steps=("End it by hand on its server. The log has more under the reference.",),
                next_try_at=await self.context.ledger.now() + pause,
            )
        await self._put_back_after(claim, pause, summary)

    async def _on_set_aside(self, task: SetAside) -> None:
        """A row of the ledger cannot be read. An end that it stood for gets a new task."""
        log.error("task_set_aside", task_id=task.task_id, request=task.request_id, reason=task.reason)
        planned = await self.tasks.plan_missing_ends()
        of = f" of #{task.request_id}" if task.request_id else ""
        what = f"A task{of} in the ledger cannot be read ({task.reason}) and was set aside."
        if planned:
            what += f" The ends of {', '.join(f'#{one}' for one in planned[:5])} were planned again, due now."
        steps = (
            f"Look at row {task.task_id} of the table tasks. If #{task.request_id or '…'} waits, request it again.",
        )
        await raise_alert(self.context, None, what, cause=f"task:{task.task_id}", steps=steps, is_event=True)

    async def _on_claim_lost(self, claim: Claim, error: ClaimLost | NotPossible) -> None:
        """Another worker has the task, or the state has moved on. A ``repair`` task checks what this run left on the server."""
        task, now = claim.task, await self.context.ledger.now()
        log.warning("claim_lost", task=task.kind, request=task.request_id)
        if task.kind in ON_SERVER:
            plan = TaskPlan(kind=TaskKind.REPAIR, lock_key=f"user:{task.request_id}", due_at=now, is_single=True)
            await self.tasks.add(plan, request_id=task.request_id)
        if isinstance(error, NotPossible) and error.obstacle is not Obstacle.CLAIM_LOST:
            if task.kind is TaskKind.REVOKE and error.request.is_live:
                await self.tasks.reschedule(claim, due_at=now, error=str(error.obstacle))
            else:
                await self.tasks.finish(claim)

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
                await self.tasks.renew(claim, self.lease)


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
