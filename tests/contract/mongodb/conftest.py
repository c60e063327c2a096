"""Benches: one server and a set of two, of the stand-in; and of a real mongod where the machine has one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.conftest import had
from tests.contract.mongodb.bench import Bench
from tests.servers.mongodb import server
from tests.servers.mongodb.server import MongoServer

KINDS: dict[str, Callable[[], MongoServer]] = {
    "stand-in": server.start,
    "stand-in, set of two": lambda: server.start(members=2),
}


@pytest.fixture(scope="session", params=KINDS)
def mongodb(request: pytest.FixtureRequest) -> Iterator[MongoServer]:
    yield from had(KINDS[request.param])


@pytest.fixture
def bench(mongodb: MongoServer) -> Bench:
    return Bench(mongodb)
