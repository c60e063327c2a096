"""Seconds in which this process could run.

Slack's three seconds are for what the bot does. While another program has the processor the bot does nothing, so that
time does not count; a bot that sleeps, or waits for somebody's answer, uses its seconds up.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

THREADS = Path("/proc/self/task")


@dataclass
class FairClock:
    """Called, it says its time. Linux knows how long a thread was ready and waited for a processor; elsewhere all time counts."""

    at: float = 0.0
    _seen: float = field(default_factory=time.monotonic)
    _waited: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._waited = _waited()

    def __call__(self) -> float:
        now, waited = time.monotonic(), _waited()
        held_up = max((waited[thread] - self._waited.get(thread, 0) for thread in waited), default=0)
        self.at += max(0.0, now - self._seen - held_up / 1e9)
        self._seen, self._waited = now, waited
        return self.at


def _waited() -> dict[str, int]:
    """Nanoseconds by thread: the second number of ``schedstat``."""
    found = {}
    for thread in THREADS.iterdir() if THREADS.is_dir() else ():
        with suppress(OSError, ValueError, IndexError):  # it has just ended, or this system keeps no count
            found[thread.name] = int((thread / "schedstat").read_text().split()[1])
    return found
