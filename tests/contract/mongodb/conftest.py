"""Benches: one server and a set of two, of the stand-in; and of a real mongod where the machine has one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.conftest import had
from tests.contract.mongodb.harness import EngineHarness
from tests.servers.mongodb import mongod, server
from tests.servers.mongodb.server import MongoServer
from tests.servers.postgresql import NoServer

KINDS: dict[str, Callable[[], MongoServer]] = {
    "stand-in": server.start,
    "stand-in, set of two": lambda: server.start(members=2),
    "stand-in, two routers": lambda: server.start(members=2, routers=True),
    "stand-in as 4.4": lambda: server.start(like="4.4"),
    "stand-in as 8.2": lambda: server.start(like="8.2"),
}
"""Where the machine has a mongod, it is the first."""

try:
    mongod.program()
except NoServer:
    pass
else:
    KINDS = {"mongod": mongod.start, "mongod, set of two": lambda: mongod.start(members=2), **KINDS}


@pytest.fixture(scope="session", params=KINDS)
def mongodb(request: pytest.FixtureRequest) -> Iterator[MongoServer]:
    yield from had(KINDS[request.param])


@pytest.fixture
def harness(mongodb: MongoServer) -> EngineHarness:
    return EngineHarness(mongodb)
