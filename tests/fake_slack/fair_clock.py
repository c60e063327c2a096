"""A clock that counts the seconds in which this process could run.

Slack's three seconds are a limit for the bot. While another program has the processor the bot cannot run, so that time does
not count. Time in which the bot sleeps or waits for an answer counts.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

THREADS = Path("/proc/self/task")


@dataclass
class FairClock:
    """A call returns the counted seconds. Linux reports how long a thread waited for a processor; on other systems all time counts."""

    at: float = 0.0
    _last_time: float = field(default_factory=time.monotonic)
    _last_waits: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._last_waits = _waits()

    def __call__(self) -> float:
        now, waits = time.monotonic(), _waits()
        held_up = max((waits[thread] - self._last_waits.get(thread, 0) for thread in waits), default=0)
        self.at += max(0.0, now - self._last_time - held_up / 1e9)
        self._last_time, self._last_waits = now, waits
        return self.at


def _waits() -> dict[str, int]:
    """Return the nanoseconds that each thread waited: the second number of ``schedstat``."""
    found = {}
    for thread in THREADS.iterdir() if THREADS.is_dir() else ():
        with suppress(OSError, ValueError, IndexError):  # the thread has ended, or waits are not reported
            found[thread.name] = int((thread / "schedstat").read_text().split()[1])
    return found
