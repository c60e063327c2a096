"""``dbaccess run --observe``: look at the servers and the ledger again and again, and report to the log and the metrics.

It changes nothing: not on the servers, not in the ledger, not in Slack. It takes no task, so it ends nothing and may run beside a bot.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping
from contextlib import suppress

import structlog

from bot.app import build_context
from bot.health import LATE_AFTER, Health
from bot.http import HealthServer
from bot.jobs.registry import JOBS
from bot.jobs.runner import Runner
from bot.monitors.strays import find_strays
from bot.monitors.sweep import SWEEP_SECONDS
from bot.settings import Settings
from storage.errors import LedgerError

NOT_READY = {"mode": "observes only: nothing is granted and nothing is ended"}

log = structlog.get_logger(__name__)


class Observer:
    """A process that only looks. ``stop`` ends it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._context = build_context(settings)
        self._reported = frozenset[str]()
        self.stop = asyncio.Event()

    async def run(self) -> None:
        """Look every five minutes until ``stop`` is set. Raises SchemaMismatch, LedgerUnavailable, CannotListen."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop.set)
        health = Health(self._context, Runner(self._context, JOBS), lambda: False)
        server = HealthServer(_not_ready, health.metrics)
        try:
            await self._context.ledger.open(create=False)
            await server.start(self._settings.http_host, self._settings.http_port)
            log.warning(
                "observing_only", effect="nothing is ended, nothing is granted", ledger=self._context.ledger.place
            )
            while not self.stop.is_set():
                await self._look_once()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self.stop.wait(), SWEEP_SECONDS)
        finally:
            await server.stop()
            await asyncio.to_thread(self._context.engines.close_within, 2.0)
            await self._context.ledger.close()

    async def _look_once(self) -> None:
        try:
            await self._compare()
        except LedgerError:
            log.exception("ledger_unavailable")
        except Exception:
            log.exception("look_failed")

    async def _compare(self) -> None:
        """Look at ledger and servers. A difference is logged once, and again where it was gone meanwhile."""
        self._context.files.refresh()
        if self._context.files.problems is not None:
            log.error("configuration_invalid", problems=str(self._context.files.problems).splitlines())
        ends = await self._context.ledger.figures.overdue_ends(LATE_AFTER)
        if ends.late:
            log.error("ends_overdue", ends=ends.late, oldest_seconds=ends.oldest.total_seconds())
        found = await find_strays(self._context)
        differences = {stray.what for stray in found.strays} | set(found.unanswered.values())
        for what in sorted(differences - self._reported):
            log.warning("difference_found", what=what)
        self._reported = frozenset(differences)
        unexplained = sum(map(len, found.unexplained.values()))
        if unexplained:
            log.error("ledger_not_newest", users=unexplained)
        log.info("servers_observed", servers=found.servers, users=found.users, differences=len(differences))


async def _not_ready() -> Mapping[str, str]:
    return NOT_READY
