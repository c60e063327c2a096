"""A reading of a level's state that several ends share: nobody gets one that began before the call."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from adapters.harness import PATIENCE, wait_until
from adapters.level_state import LevelState
from adapters.postgresql.level import shared_reading as module
from adapters.postgresql.level.shared_reading import shared_reading

KEY = ("a server", "a level")


class Readings:
    """Readings that take as long as the test wants. ``begun`` counts them."""

    def __init__(self) -> None:
        self.begun, self.may_end, self.is_failing = 0, threading.Event(), False

    def read(self) -> LevelState:
        self.begun += 1
        number = self.begun
        assert self.may_end.wait(PATIENCE)
        if self.is_failing:
            raise ConnectionError
        return LevelState.of([("readings", str(number))])


def number_of(state: LevelState) -> int:
    return int(state.kinds["readings"][0])


def waiting() -> int:
    """The number of readings that have not begun."""
    return len(module._next_readings)


def test_whoever_asks_during_a_reading_gets_the_next_one_and_shares_it() -> None:
    readings = Readings()
    with ThreadPoolExecutor(5) as pool:
        first = pool.submit(shared_reading, KEY, readings.read)
        wait_until(lambda: readings.begun == 1)
        later = [pool.submit(shared_reading, KEY, readings.read) for _ in range(4)]
        wait_until(lambda: waiting() == 1)
        readings.may_end.set()
        assert number_of(first.result(PATIENCE)) == 1
        assert all(number_of(one.result(PATIENCE)) >= 2 for one in later)
    assert readings.begun < 5, "they share"
    assert waiting() == 0


def test_other_keys_do_not_wait() -> None:
    slow, fast = Readings(), Readings()
    fast.may_end.set()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(shared_reading, KEY, slow.read)
        wait_until(lambda: slow.begun == 1)
        assert number_of(shared_reading(("another",), fast.read)) == 1
        slow.may_end.set()
        assert number_of(first.result(PATIENCE)) == 1


@pytest.mark.parametrize("outcome", ["fails", "takes too long"])
def test_a_reading_that_fails_is_made_again_by_each(outcome: str, monkeypatch: pytest.MonkeyPatch) -> None:
    readings = Readings()
    if outcome == "takes too long":
        monkeypatch.setattr(module, "WAIT_SECONDS", 0.05)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(shared_reading, KEY, readings.read)
        wait_until(lambda: readings.begun == 1)
        readings.is_failing = outcome == "fails"
        later = [pool.submit(shared_reading, KEY, readings.read) for _ in range(2)]
        calls: Callable[[], bool] = lambda: waiting() == 1 if readings.is_failing else readings.begun == 3  # noqa: E731
        wait_until(calls)
        readings.may_end.set()
        for one in (first, *later):
            if readings.is_failing:
                with pytest.raises(ConnectionError):
                    one.result(PATIENCE)
            else:
                one.result(PATIENCE)
    assert readings.begun == 3
