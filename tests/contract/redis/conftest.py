"""Harnesses: Redis 7 with an ACL file, Redis 7 that saves users in its configuration file, Redis 8, Valkey, and a primary with its replica."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from adapters.redis.links import held_links, sightings
from tests.conftest import had
from tests.contract.redis.harness import EngineHarness
from tests.servers import redis as servers
from tests.servers.redis import PASSWORD, REDIS, REDIS8, TESTER, VALKEY, RedisServer


@pytest.fixture(scope="session")
def redis7() -> Iterator[RedisServer]:
    yield from had(lambda: servers.start(REDIS))


@pytest.fixture(scope="session")
def redis7_config() -> Iterator[RedisServer]:
    yield from had(lambda: servers.start(REDIS, saves_in="config"))


@pytest.fixture(scope="session")
def redis7_replica(redis7: RedisServer) -> Iterator[RedisServer]:
    yield from had(lambda: servers.start(REDIS, extra=replica_of(redis7)))


@pytest.fixture(scope="session")
def redis8() -> Iterator[RedisServer]:
    yield from had(lambda: servers.start(REDIS8))


@pytest.fixture(scope="session")
def valkey() -> Iterator[RedisServer]:
    yield from had(lambda: servers.start(VALKEY))


def replica_of(primary: RedisServer) -> str:
    return f"replicaof {primary.host} {primary.port}\nmasteruser {TESTER}\nmasterauth {PASSWORD}\n"


NODES = {
    "redis7": ("redis7",),
    "redis7 with its replica": ("redis7", "redis7_replica"),
    "redis7 without ACL file": ("redis7_config",),
    "redis8": ("redis8",),
    "valkey": ("valkey",),
}


@pytest.fixture(params=NODES)
def harness(request: pytest.FixtureRequest) -> EngineHarness:
    return EngineHarness(tuple(request.getfixturevalue(name) for name in NODES[request.param]))


@pytest.fixture
def pair(redis7: RedisServer, redis7_replica: RedisServer) -> EngineHarness:
    return EngineHarness((redis7, redis7_replica))


@pytest.fixture(autouse=True)
def no_held_links() -> Iterator[None]:
    """Each test begins as a bot that has just started."""
    held_links.clear()
    sightings.clear()
    yield
    held_links.clear()


KINDS = {f"{f.name} {place}": (f, place) for f in (REDIS, VALKEY) for place in ("aclfile", "config")}


@pytest.fixture(params=KINDS)
def own(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A server of the test's own, which it may break."""
    flavour, place = KINDS[request.param]
    yield from had(lambda: servers.start(flavour, saves_in=place))


@pytest.fixture
def started() -> Iterator[Callable[..., RedisServer]]:
    """Starts servers of the test's own, which end with it."""
    running = list[Iterator[RedisServer]]()

    def start(flavour: servers.Flavour = REDIS, **how: Any) -> RedisServer:
        running.append(had(lambda: servers.start(flavour, **how)))
        return next(running[-1])

    yield start
    for one in running:
        next(one, None)
