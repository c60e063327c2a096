"""Readiness and metrics of the running bot. Each answer comes within seconds, also while the ledger hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import timedelta
from time import monotonic
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from bot.access.context import Context
from bot.access.descriptions import count
from bot.durations import format_duration
from bot.jobs.runner import Runner
from storage.errors import LedgerError
from storage.figures import LedgerFigures
from storage.records import Priority

LATE_AFTER = timedelta(minutes=1)
"""An end that is due for longer than this makes the bot not ready."""
ANSWER_SECONDS = 3.0
"""The longest time that the ledger has to answer. After it the ledger counts as not working."""
WRITE_KNOWN_SECONDS = 2.0
"""The result of a write check counts for this long."""

log = structlog.get_logger(__name__)


class WriteCheck:
    """Tries whether the ledger can be written: one try at a time, however many ask."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._running: asyncio.Task[str | None] | None = None
        self._known: str | None = None
        self._known_until = 0.0

    async def problem(self) -> str | None:
        """Why the ledger cannot be written; None where it can."""
        if monotonic() < self._known_until:
            return self._known
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(self._check())
        await asyncio.wait({self._running}, timeout=ANSWER_SECONDS)
        if not self._running.done():
            return f"cannot be written: no answer within {ANSWER_SECONDS:.0f} s"
        return self._running.result()

    async def _check(self) -> str | None:
        try:
            await self._context.ledger.check_writable()
        except LedgerError as error:
            self._known = f"cannot be written: {error}"
        except Exception as error:  # noqa: BLE001 - a check that fails in any way means not ready
            self._known = f"cannot be written ({type(error).__name__})"
        else:
            self._known = None
        self._known_until = monotonic() + WRITE_KNOWN_SECONDS
        return self._known

    async def stop(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running}, timeout=1.0)


class Health:
    """What is wrong with the bot now, and its metrics. ``is_connected``: whether Slack is connected."""

    def __init__(self, context: Context, runner: Runner, is_connected: Callable[[], bool]) -> None:
        self._context = context
        self._runner = runner
        self._is_connected = is_connected
        self.writes = WriteCheck(context)
        self.had_errors_at_start = False
        self.is_starting = False
        """The ledger is not open yet. It is not written to before."""

    async def unready_reasons(self) -> Mapping[str, str]:
        """The reasons why the bot is not ready, by component. Empty where it is ready. A refused reload leaves it ready."""
        reasons = dict[str, str]()
        if self.is_starting:
            reasons["store"] = "is being opened"
        elif (problem := await self.writes.problem()) is not None:
            reasons["store"] = problem
        elif (late := await self._overdue()) is not None:
            reasons["ends"] = late
        if not self._is_connected():
            reasons["slack"] = "not connected"
        if self.had_errors_at_start and self._context.files.config is None:
            reasons["configuration"] = "had errors at start; nothing is granted, live grants are ended"
        return reasons

    async def _overdue(self) -> str | None:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                ends = await self._context.ledger.figures.overdue_ends(LATE_AFTER)
        except (LedgerError, TimeoutError) as error:
            return f"not known: {error or 'the ledger does not answer'}"
        if not ends.late:
            return None
        return f"{count(ends.late, 'end')} overdue, the oldest by {format_duration(ends.oldest)}"

    # Metrics.

    async def metrics(self) -> bytes:
        """The metrics in the text format of Prometheus. Those of the ledger are left out while it does not answer."""
        registry, figures = CollectorRegistry(), None
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                figures = await self._context.ledger.figures.all(LATE_AFTER)
        except Exception as error:  # noqa: BLE001 - a ledger in whatever state must not hide the other metrics
            log.warning("ledger_unavailable", error=type(error).__name__)
        _gauge(registry, "ledger_reachable", "Whether the ledger answered", figures is not None)
        if figures is not None:
            _ledger_gauges(registry, figures)
        self._process_gauges(registry)
        return generate_latest(registry)

    def _process_gauges(self, registry: CollectorRegistry) -> None:
        _gauge(registry, "slack_connected", "Whether Slack is connected", self._is_connected())
        running = Gauge(
            "dbaccess_running_tasks", "Tasks that run now", ("pool", "priority", "retry"), registry=registry
        )
        for slot, number in self._runner.places.taken().items():
            retry = "yes" if slot.is_retry else "no"
            running.labels(slot.pool, slot.priority.name.lower(), retry).set(number)
        closed = self._runner.probes.failed
        _gauge(registry, "closed_servers", "Servers that do not answer; their tasks wait", len(closed))
        failed = Gauge(
            "dbaccess_failed_probes", "Probes of a closed server that failed", ("server",), registry=registry
        )
        for server, number in closed.items():
            failed.labels(server).set(number)
        files = self._context.files
        info = Gauge("dbaccess_configuration_info", "The configuration in force", ("digest",), registry=registry)
        if files.config is not None:
            info.labels(files.config.digest).set(1)
        _gauge(registry, "configuration_refused", "Whether the files on disk have errors", files.problems is not None)
        is_older = self._context.ledger.replicas.is_older
        _gauge(registry, "configuration_older", "Whether another replica has a newer configuration", is_older)


def _ledger_gauges(registry: CollectorRegistry, figures: LedgerFigures) -> None:
    ends = figures.ends
    _gauge(registry, "live_grants", "Grants whose user exists, or may exist", figures.live)
    _gauge(registry, "ending_grants", "Grants that are being ended", figures.ending)
    _gauge(registry, "overdue_revocations", "Ends that are due and not confirmed", ends.due)
    _gauge(registry, "late_revocations", "Those that are due for more than a minute", ends.late)
    _gauge(registry, "oldest_overdue_revocation_seconds", "How long the oldest is due", ends.oldest.total_seconds())
    _gauge(
        registry, "recovery_mode", "Whether the ledger is in recovery mode: nothing is granted", figures.is_in_recovery
    )
    _gauge(registry, "open_alerts", "Alerts that are not resolved", figures.open_alerts)
    labels: dict[str, Any] = {"labelnames": ("priority",), "registry": registry}
    unfinished = Gauge("dbaccess_tasks", "Unfinished tasks", **labels)
    due = Gauge("dbaccess_due_tasks", "Tasks that are due", **labels)
    oldest = Gauge("dbaccess_oldest_due_task_seconds", "How long the oldest due task waits", **labels)
    for priority in Priority:
        found, name = figures.tasks.get(priority), priority.name.lower()
        unfinished.labels(name).set(found.unfinished if found else 0)
        due.labels(name).set(found.due if found else 0)
        oldest.labels(name).set(found.oldest.total_seconds() if found else 0)


def _gauge(registry: CollectorRegistry, name: str, about: str, value: float) -> None:
    Gauge(f"dbaccess_{name}", about, registry=registry).set(value)
