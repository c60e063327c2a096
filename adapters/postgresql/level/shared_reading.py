"""One reading of a level's state for several callers at once: grants and ends of one level that fall together need the same answer.

Nothing is kept: a caller never gets a reading that began before its call.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from adapters.level_state import LevelState

WAIT_SECONDS = 10.0
"""Seconds that a caller waits for others. After that it reads by itself."""


@dataclass
class Reading:
    """A reading that has not begun. ``state`` stays None where it fails; then each caller reads by itself."""

    is_over: threading.Event = field(default_factory=threading.Event)
    state: LevelState | None = None


_next_readings: dict[tuple[str, ...], Reading] = {}
_turns: dict[tuple[str, ...], threading.Lock] = {}
_guard = threading.Lock()


def shared_reading(key: tuple[str, ...], read: Callable[[], LevelState]) -> LevelState:
    """The answer of a ``read`` that began after this call.

    Callers with the same key read one after another, and those that wait share the next reading.
    """
    with _guard:
        turn = _turns.setdefault(key, threading.Lock())
        shared = _next_readings.get(key)
        is_first = shared is None
        if shared is None:
            shared = _next_readings[key] = Reading()
    if is_first:
        return _read_for_all(key, shared, turn, read)
    shared.is_over.wait(WAIT_SECONDS)
    return shared.state if shared.state is not None else read()


def _read_for_all(
    key: tuple[str, ...], shared: Reading, turn: threading.Lock, read: Callable[[], LevelState]
) -> LevelState:
    """Read for everybody who waits for ``shared``, when it is its turn. Whoever comes after the reading began waits for the next one."""
    is_turn = turn.acquire(timeout=WAIT_SECONDS)
    with _guard:
        del _next_readings[key]
    try:
        shared.state = read()
        return shared.state
    finally:
        shared.is_over.set()
        if is_turn:
            turn.release()
