"""Runs each case on the stand-in, on a real mongod where there is one, and on the mutants that the case must notice."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest
from pymongo.errors import OperationFailure

from tests.contract.mongodb_wire import cases_login, cases_operations, cases_rights, cases_users
from tests.contract.mongodb_wire.harness import CASES, Case, harness_of
from tests.servers.mongodb import mongod, mutants, server
from tests.servers.mongodb.connection import STAND_IN_BUG
from tests.servers.mongodb.mutants import Mutant
from tests.servers.mongodb.server import MongoServer
from tests.servers.postgresql import NoServer

assert [cases_login, cases_users, cases_rights, cases_operations]
EACH = pytest.mark.parametrize("case", [CASES[number] for number in sorted(CASES)], ids=lambda case: case.id)
STARTS = {"stand-in": server.start, "mongod": mongod.start}


class Servers:
    """The servers of this run, one of each kind."""

    def __init__(self) -> None:
        self.started: list[MongoServer] = []
        self.of = cache(self._start)

    def _start(self, kind: str, *, auth: bool) -> MongoServer:
        made = STARTS[kind](auth=auth)
        self.started.append(made)
        return made


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    used = Servers()
    yield used
    bugs = [line for made in used.started for line in made.log_text().splitlines() if STAND_IN_BUG in line]
    for made in used.started:
        made.remove()
    assert bugs == []


def need_mongod() -> None:
    """A missing mongod is no failure, because no package registry has one. A mongod that does not start is a failure."""
    try:
        mongod.program()
    except NoServer as missing:
        pytest.skip(str(missing))


def test_each_case_has_a_mutant() -> None:
    assert {mutant.case for mutant in mutants.MUTANTS.values()} == set(CASES)


@pytest.mark.parametrize("kind", STARTS)
@EACH
def test_case(case: Case, kind: str, servers: Servers) -> None:
    if kind == "mongod":
        need_mongod()
    with harness_of(servers.of(kind, auth=case.is_auth_on)) as harness:
        case.check(harness)


@pytest.mark.parametrize("mutant", mutants.MUTANTS.values(), ids=lambda mutant: f"{mutant.case:02}-{mutant.name}")
def test_case_notices_its_mutant(mutant: Mutant) -> None:
    case = CASES[mutant.case]
    wrong = server.start(auth=case.is_auth_on, mutant=mutant.name)
    try:
        with harness_of(wrong) as harness, pytest.raises((AssertionError, OperationFailure)):
            case.check(harness)
    finally:
        wrong.remove()
