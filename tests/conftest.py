"""Fixtures that more than one folder of tests uses: private database servers."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.servers import postgresql as servers


def have(version: int) -> Iterator[servers.PostgresServer]:
    """A server for the whole session. One that cannot be had is skipped by name at a desk and is a failure in CI."""
    try:
        server = servers.start(version)
    except servers.NoServer as missing:
        if os.environ.get("REQUIRE_SERVERS"):
            pytest.fail(str(missing))
        pytest.skip(str(missing))
    try:
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def postgresql15() -> Iterator[servers.PostgresServer]:
    yield from have(15)


@pytest.fixture(scope="session")
def postgresql16() -> Iterator[servers.PostgresServer]:
    yield from have(16)


@pytest.fixture(scope="session")
def postgresql18() -> Iterator[servers.PostgresServer]:
    yield from have(18)


@pytest.fixture(params=[15, 18], ids=["postgresql15", "postgresql18"])
def postgresql(request: pytest.FixtureRequest) -> servers.PostgresServer:
    server: servers.PostgresServer = request.getfixturevalue(f"postgresql{request.param}")
    return server
