"""Remove what ended longer ago than ``retention`` in policy.yml, once a day and by one replica."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog

from bot.access.context import Context
from storage.errors import LedgerError

RETENTION_SECONDS = 3600
TURN = timedelta(hours=23)
"""A replica begins only where none has within this time."""
PAUSE_SECONDS = 0.2
"""The pause between two transactions: tasks are claimed meanwhile."""

log = structlog.get_logger(__name__)


class RetentionMonitor:
    """Looks every hour whether the daily removal is due."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def run(self) -> None:
        """Remove what is older than the policy keeps it. Raises nothing. Without ``retention`` everything is kept."""
        try:
            await self._remove()
        except LedgerError:
            log.exception("ledger_unavailable")
        except Exception:
            log.exception("retention_failed")

    async def _remove(self) -> None:
        config, ledger = self._context.files.config, self._context.ledger
        if config is None or config.policy.retention is None:
            return
        if ledger.replicas.is_older or not await ledger.observations.take_turn("retention", TURN):
            return
        before = await ledger.now() - config.policy.retention
        up_to = await ledger.observations.cursor("feed") if config.policy.audit_channel else None
        requests, events, after = 0, 0, 0
        while True:
            removed = await ledger.retention.remove(before, after=after, up_to_event=up_to)
            requests, events, after = requests + removed.requests, events + removed.events, removed.last or after
            if removed.is_all:
                break
            await asyncio.sleep(PAUSE_SECONDS)
        log.info("old_entries_removed", requests=requests, events=events, before=before.isoformat(timespec="seconds"))
