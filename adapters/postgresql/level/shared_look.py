"""One look at the server for several callers at once: grants and ends of one level that fall together need the same answer.

Nothing is kept: a caller never gets a look that began before its call.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from adapters.level_state import LevelState

WAIT_SECONDS = 10.0
"""Seconds that a caller waits for others. After that it looks itself."""


@dataclass
class Look:
    """A look that has not begun. ``state`` stays None where it fails; then each caller looks itself."""

    is_over: threading.Event = field(default_factory=threading.Event)
    state: LevelState | None = None


_next_looks: dict[tuple[str, ...], Look] = {}
_turns: dict[tuple[str, ...], threading.Lock] = {}
_guard = threading.Lock()


def shared_look(key: tuple[str, ...], look: Callable[[], LevelState]) -> LevelState:
    """The answer of ``look``, which began after this call. Callers with the same key look one after another, and those that wait share the next look."""
    with _guard:
        turn = _turns.setdefault(key, threading.Lock())
        shared = _next_looks.get(key)
        is_first = shared is None
        if shared is None:
            shared = _next_looks[key] = Look()
    if is_first:
        return _look_for_all(key, shared, turn, look)
    shared.is_over.wait(WAIT_SECONDS)
    return shared.state if shared.state is not None else look()


def _look_for_all(
    key: tuple[str, ...], shared: Look, turn: threading.Lock, look: Callable[[], LevelState]
) -> LevelState:
    """Look for everybody who waits for ``shared``, when it is its turn. Whoever comes after the look began waits for the next one."""
    is_turn = turn.acquire(timeout=WAIT_SECONDS)
    with _guard:
        del _next_looks[key]
    try:
        shared.state = look()
        return shared.state
    finally:
        shared.is_over.set()
        if is_turn:
            turn.release()
