"""Benches: a Redis with an ACL file, one that keeps users in its configuration, a Valkey, and a primary with its replica."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.conftest import had
from tests.contract.redis.bench import Bench
from tests.servers import redis as servers
from tests.servers.redis import PASSWORD, REDIS, TESTER, VALKEY, RedisServer


@pytest.fixture(scope="session")
def redis7() -> Iterator[RedisServer]:
    yield from had(lambda: servers.start(REDIS))


@pytest.fixture(scope="session")
def redis7_config() -> Iterator[RedisServer]:
    yield from had(lambda: servers.start(REDIS, keeps="config"))


@pytest.fixture(scope="session")
def redis7_replica(redis7: RedisServer) -> Iterator[RedisServer]:
    yield from had(lambda: servers.start(REDIS, extra=replica_of(redis7)))


@pytest.fixture(scope="session")
def valkey() -> Iterator[RedisServer]:
    yield from had(lambda: servers.start(VALKEY))


def replica_of(primary: RedisServer) -> str:
    return f"replicaof {primary.host} {primary.port}\nmasteruser {TESTER}\nmasterauth {PASSWORD}\nrepl-diskless-sync-delay 0\n"


NODES = {
    "redis7": ("redis7",),
    "redis7 with its replica": ("redis7", "redis7_replica"),
    "redis7 without ACL file": ("redis7_config",),
    "valkey": ("valkey",),
}


@pytest.fixture(params=NODES)
def bench(request: pytest.FixtureRequest) -> Bench:
    return Bench(tuple(request.getfixturevalue(name) for name in NODES[request.param]))


@pytest.fixture
def pair(redis7: RedisServer, redis7_replica: RedisServer) -> Bench:
    return Bench((redis7, redis7_replica))


@pytest.fixture(params=[REDIS, VALKEY], ids=lambda flavour: flavour.name)
def fresh(request: pytest.FixtureRequest) -> Iterator[Callable[..., RedisServer]]:
    """Starts a server that a test may spoil."""
    started = list[Iterator[RedisServer]]()

    def start(**options: str) -> RedisServer:
        had_one = had(lambda: servers.start(request.param, **options))
        started.append(had_one)
        return next(had_one)

    yield start
    for one in started:
        next(one, None)
