"""The servers of the contract: the stand-in in its shapes, and a real mongod where the machine has one."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.conftest import had
from tests.contract.mongodb.harness import MongoDBHarness
from tests.servers.mongodb import mongod, server
from tests.servers.mongodb.server import MongoServer
from tests.servers.postgresql import NoServer

KINDS: dict[str, Callable[[], MongoServer]] = {
    "stand-in": server.start,
    "stand-in, set of two": lambda: server.start(members=2),
    "stand-in, two routers": lambda: server.start(members=2, routers=True),
    "stand-in as 8.2": lambda: server.start(variant="8.2"),
}
"""A mongod comes first where the machine has one."""

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
def harness(mongodb: MongoServer) -> MongoDBHarness:
    return MongoDBHarness(mongodb)
