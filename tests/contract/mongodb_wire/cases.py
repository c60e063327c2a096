"""The table of the cases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.contract.mongodb_wire.harness import EngineHarness

Judge = Callable[[EngineHarness], None]


@dataclass(frozen=True)
class Case:
    """``is_auth_on`` is the server it needs."""

    number: int
    assert_on: Judge
    is_auth_on: bool

    @property
    def id(self) -> str:
        return f"{self.number:02}-{self.assert_on.__name__}"


CASES: dict[int, Case] = {}


def case(number: int, *, is_auth_on: bool = True) -> Callable[[Judge], Judge]:
    def add(judge: Judge) -> Judge:
        assert number not in CASES
        CASES[number] = Case(number, judge, is_auth_on)
        return judge

    return add
