"""Fixtures that more than one folder of tests uses: private database servers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

import pytest

from tests.servers import mysql as mysql_servers
from tests.servers import postgresql as servers


class Server(Protocol):
    """What the servers of all engines have in common here."""

    def remove(self) -> None:
        """Stop it, and leave nothing."""


S = TypeVar("S", bound=Server)


def had(start: Callable[[], S]) -> Iterator[S]:
    """A server for the whole session. One that cannot be had is skipped by name at a desk and is a failure in CI."""
    try:
        server = start()
    except servers.NoServer as missing:
        if os.environ.get("REQUIRE_SERVERS"):
            pytest.fail(str(missing))
        pytest.skip(str(missing))
    try:
        yield server
    finally:
        server.remove()


def have(version: int) -> Iterator[servers.PostgresServer]:
    yield from had(lambda: servers.start(version))


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


@pytest.fixture(scope="session")
def mariadb() -> Iterator[mysql_servers.MySQLServer]:
    yield from had(lambda: mysql_servers.start(mysql_servers.MARIADB))


@pytest.fixture(scope="session")
def mysql() -> Iterator[mysql_servers.MySQLServer]:
    yield from had(lambda: mysql_servers.start(mysql_servers.MYSQL))


@pytest.fixture(params=["mysql", "mariadb"])
def mysql_family(request: pytest.FixtureRequest) -> mysql_servers.MySQLServer:
    server: mysql_servers.MySQLServer = request.getfixturevalue(request.param)
    return server
