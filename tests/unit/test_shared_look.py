"""A look at a level's state that several ends share: nobody gets one that began before the call."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from adapters.harness import PATIENCE, wait_until
from adapters.level_state import LevelState
from adapters.postgresql.level import shared_look as module
from adapters.postgresql.level.shared_look import shared_look

KEY = ("a server", "a level")


class Looks:
    """Looks that take as long as the test wants. ``begun`` counts them."""

    def __init__(self) -> None:
        self.begun, self.may_end, self.is_failing = 0, threading.Event(), False

    def look(self) -> LevelState:
        self.begun += 1
        number = self.begun
        assert self.may_end.wait(PATIENCE)
        if self.is_failing:
            raise ConnectionError
        return LevelState.of([("looks", str(number))])


def number_of(state: LevelState) -> int:
    return int(state.kinds["looks"][0])


def waiting() -> int:
    """The number of looks that have not begun."""
    return len(module._next_looks)


def test_whoever_asks_during_a_look_gets_the_next_one_and_shares_it() -> None:
    looks = Looks()
    with ThreadPoolExecutor(5) as pool:
        first = pool.submit(shared_look, KEY, looks.look)
        wait_until(lambda: looks.begun == 1)
        later = [pool.submit(shared_look, KEY, looks.look) for _ in range(4)]
        wait_until(lambda: waiting() == 1)
        looks.may_end.set()
        assert number_of(first.result(PATIENCE)) == 1
        assert all(number_of(one.result(PATIENCE)) >= 2 for one in later)
    assert looks.begun < 5, "they share"
    assert waiting() == 0


def test_other_keys_do_not_wait() -> None:
    slow, fast = Looks(), Looks()
    fast.may_end.set()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(shared_look, KEY, slow.look)
        wait_until(lambda: slow.begun == 1)
        assert number_of(shared_look(("another",), fast.look)) == 1
        slow.may_end.set()
        assert number_of(first.result(PATIENCE)) == 1


@pytest.mark.parametrize("outcome", ["fails", "takes too long"])
def test_a_look_that_fails_is_made_again_by_each(outcome: str, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = Looks()
    if outcome == "takes too long":
        monkeypatch.setattr(module, "WAIT_SECONDS", 0.05)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(shared_look, KEY, looks.look)
        wait_until(lambda: looks.begun == 1)
        looks.is_failing = outcome == "fails"
        later = [pool.submit(shared_look, KEY, looks.look) for _ in range(2)]
        calls: Callable[[], bool] = lambda: waiting() == 1 if looks.is_failing else looks.begun == 3  # noqa: E731
        wait_until(calls)
        looks.may_end.set()
        for one in (first, *later):
            if looks.is_failing:
                with pytest.raises(ConnectionError):
                    one.result(PATIENCE)
            else:
                one.result(PATIENCE)
    assert looks.begun == 3
