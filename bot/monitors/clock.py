"""Watch the clock of the ledger, which decides when a grant ends.

Two signs of a wrong clock: the ledger has times in the future, or the clock moves against the monotonic clock of this machine. While there is
one, an alert says how much longer grants would live. What the servers enforce by their own clocks comes on time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog

from bot.access.alerts import raise_alert, resolve_alert
from bot.access.context import Context
from bot.access.descriptions import count
from bot.access.server_side import enforced_by_servers
from bot.durations import format_duration
from storage.errors import LedgerError
from storage.figures import LedgerTimes
from storage.records import Request

CLOCK_SECONDS = 60
CAUSE = "clock"
FUTURE_MAX = timedelta(minutes=1)
"""A time in the ledger that is further ahead than this is a sign of a wrong clock."""
JUMP_MIN = timedelta(seconds=5)
"""A clock that moves by this much against the monotonic clock was set."""
EVEN_SECONDS = 600.0
"""A clock that was set counts as right after it ran evenly for this long."""
SLOW_SECONDS = 2.0
"""A look that takes longer says nothing about the clock."""

STEPS = (
    "Set the clock right, and let chronyd or ntpd keep it: on PostgreSQL of the ledger's server, else of the bot's machine.",
    "End a grant that must not wait: dbaccess revoke ID",
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class _Reading:
    """One look at both clocks."""

    at: datetime
    monotonic: float

    def moved_since(self, before: _Reading) -> timedelta:
        """By how much more the ledger's clock moved than the monotonic one. NTP moves a clock a little all the time: that is no jump."""
        moved = (self.at - before.at) - timedelta(seconds=self.monotonic - before.monotonic)
        return moved if abs(moved) >= JUMP_MIN else timedelta(0)


class ClockWatch:
    """Looks at the clock again and again. It remembers by how much the clock was set and not set right again."""

    def __init__(self, context: Context, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._context = context
        self._monotonic = monotonic
        self._last: _Reading | None = None
        self._off = timedelta(0)
        self._set_at = 0.0
        self._is_alerted: bool | None = None

    async def run(self) -> None:
        """Look once. Raises nothing."""
        try:
            await self._check()
        except LedgerError:
            log.exception("ledger_unavailable")
        except Exception:
            log.exception("clock_look_failed")

    async def _check(self) -> None:
        began = self._monotonic()
        times = await self._context.ledger.figures.times()
        ended = self._monotonic()
        was_set = self._follow(_Reading(times.now, ended)) if ended - began < SLOW_SECONDS else False
        ahead = times.newest - times.now if times.newest is not None else timedelta(0)
        ahead = ahead if ahead > FUTURE_MAX else timedelta(0)
        if ahead or self._off:
            if was_set or not self._is_alerted:
                await self._alert(times, ahead)
            self._is_alerted = True
        elif self._is_alerted is not False:
            await resolve_alert(self._context, CAUSE, "The clock agrees with the ledger again and runs evenly.")
            self._is_alerted = False

    def _follow(self, now: _Reading) -> bool:
        """Note by how much the clock was set. Returns whether it was set since the last look."""
        moved = now.moved_since(self._last) if self._last is not None else timedelta(0)
        self._last = now
        self._off += moved
        self._set_at = now.monotonic if moved else self._set_at
        if abs(self._off) < JUMP_MIN or now.monotonic - self._set_at >= EVEN_SECONDS:
            self._off = timedelta(0)
        return bool(moved)

    async def _alert(self, times: LedgerTimes, ahead: timedelta) -> None:
        log.error("clock_wrong", ahead=ahead.total_seconds(), moved=self._off.total_seconds())
        live = (await self._context.ledger.figures.grants(ended_within=timedelta(0))).live
        what, enforced = _sentence(times, ahead, self._off, live), _enforced(self._context, live)
        await raise_alert(self._context, None, what, cause=CAUSE, enforced=enforced, steps=STEPS)


def _sentence(times: LedgerTimes, ahead: timedelta, moved: timedelta, live: tuple[Request, ...]) -> str:
    late = max(ahead, -moved)
    if ahead:
        what = f"The ledger has entries from the future: the newest is from {times.newest:%Y-%m-%d %H:%M:%S} UTC, {format_duration(ahead)} ahead of its clock."
    else:
        word = "forward" if moved > timedelta(0) else "back"
        what = f"The clock of the ledger was set {word} by {format_duration(max(abs(moved), timedelta(seconds=1)))}."
    if late > timedelta(0):
        return f"{what} {count(len(live), 'live grant')} would live up to {format_duration(late)} longer."
    return f"{what} {count(len(live), 'live grant')} would end that much earlier."


def _enforced(context: Context, live: tuple[Request, ...]) -> str | None:
    found = enforced_by_servers(context, live)
    return f"The servers go by their own clocks. {found}." if found else None
