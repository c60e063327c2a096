"""Each case against the stand-in and, where there is one, a real mongod; and against a stand-in that is wrong in just that."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import pytest
from pymongo.errors import OperationFailure

from tests.contract.mongodb_wire import cases_killing, cases_login, cases_rights, cases_users
from tests.contract.mongodb_wire.cases import CASES, Case
from tests.contract.mongodb_wire.harness import EngineHarness
from tests.servers.mongodb import broken, mongod, server
from tests.servers.mongodb.broken import Fault
from tests.servers.mongodb.server import MongoServer
from tests.servers.postgresql import NoServer

assert [cases_login, cases_users, cases_rights, cases_killing]
EACH = pytest.mark.parametrize("case", [CASES[number] for number in sorted(CASES)], ids=lambda case: case.id)
STARTS = {"stand-in": server.start, "mongod": mongod.start}


class Servers:
    """Those of this run, one of each kind."""

    def __init__(self) -> None:
        self.started: list[MongoServer] = []
        self.of = cache(self._start)

    def _start(self, kind: str, *, auth: bool) -> MongoServer:
        made = STARTS[kind](auth=auth)
        self.started.append(made)
        return made


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    kept = Servers()
    yield kept
    mistakes = [
        line for made in kept.started for line in made.log_text().splitlines() if "The stand-in is wrong" in line
    ]
    for made in kept.started:
        made.remove()
    assert mistakes == []


def need_mongod() -> None:
    """No registry has one, so a machine without is no failure; one that is there and does not start is."""
    try:
        mongod.program()
    except NoServer as missing:
        pytest.skip(str(missing))


@contextmanager
def harness_on(on: MongoServer) -> Iterator[EngineHarness]:
    harness = EngineHarness(on)
    try:
        harness.open()
        yield harness
    finally:
        harness.close()


def test_there_are_forty() -> None:
    assert sorted(CASES) == list(range(1, 41))
    assert {fault.case for fault in broken.FAULTS.values()} == set(CASES)


@pytest.mark.parametrize("kind", STARTS)
@EACH
def test_case(case: Case, kind: str, servers: Servers) -> None:
    if kind == "mongod":
        need_mongod()
    with harness_on(servers.of(kind, auth=case.is_auth_on)) as harness:
        case.assert_on(harness)


@pytest.mark.parametrize("fault", broken.FAULTS.values(), ids=lambda fault: f"{fault.case:02}-{fault.name}")
def test_case_notices_a_wrong_server(fault: Fault) -> None:
    case = CASES[fault.case]
    wrong = server.start(auth=case.is_auth_on, broken=fault.name)
    try:
        with harness_on(wrong) as harness, pytest.raises((AssertionError, OperationFailure)):
            case.assert_on(harness)
    finally:
        wrong.remove()
