"""Fixtures of the end-to-end tests: the environment and the servers of the other engines."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo import local_slack
from tests.conftest import had
from tests.e2e import harness
from tests.servers import redis
from tests.servers.mongodb import server as mongodb
from tests.servers.postgresql import PostgresServer


@pytest.fixture
def environment(postgresql15: PostgresServer, tmp_path: Path) -> Iterator[harness.Environment]:
    try:
        local_slack.binary()
    except local_slack.LocalSlackMissing as missing:
        if os.environ.get("REQUIRE_SERVERS"):
            pytest.fail(str(missing))
        pytest.skip(str(missing))
    with harness.running_environment(postgresql15, tmp_path) as found:
        yield found


@pytest.fixture(scope="session")
def redis7() -> Iterator[redis.RedisServer]:
    yield from had(lambda: redis.start(redis.REDIS))


@pytest.fixture(scope="session")
def mongodb_server() -> Iterator[mongodb.MongoServer]:
    """The stand-in for MongoDB. How a real mongod answers is tested by the contract tests."""
    yield from had(mongodb.start)
