"""Fixtures for several folders of tests: private database servers."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

import pytest

from tests.servers import debian
from tests.servers import mysql as mysql_servers
from tests.servers import postgresql as servers
from tests.soak import IS_SOAK


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests that take minutes, except in ``make soak``."""
    if IS_SOAK:
        return
    left_out = [item for item in items if item.get_closest_marker("soak")]
    items[:] = [item for item in items if not item.get_closest_marker("soak")]
    config.hook.pytest_deselected(items=left_out)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Report the versions of the servers that are installed or unpacked on this machine."""
    for line in _servers():
        terminalreporter.write_line(f"server: {line}")


def _servers() -> Iterator[str]:
    for version in filter(_is_there, (15, 18)):
        program = servers.installed(version) / "postgres"
        yield subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout.strip()
    for flavour in (mysql_servers.MYSQL, mysql_servers.MARIADB):
        if (debian.CACHE / flavour.folder / "complete").exists():
            yield mysql_servers.version(flavour)
    yield from sorted(
        p.parent.name for p in debian.CACHE.glob("*/complete") if p.parent.name.startswith(("redis", "valkey"))
    )
    real = os.environ.get("MONGOD") or shutil.which("mongod")
    yield real or "MongoDB: the simulator only; no mongod was run"


def _is_there(version: int) -> bool:
    try:
        servers.installed(version)
    except servers.NoServer:
        return False
    return True


class Server(Protocol):
    """The common part of the servers of all engines."""

    def remove(self) -> None:
        """Stop the server and remove its files."""


S = TypeVar("S", bound=Server)


def had(start: Callable[[], S]) -> Iterator[S]:
    """A server for the whole session. If it is not available, the test is skipped; with REQUIRE_SERVERS set, it fails."""
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


def postgresql_server(version: int) -> Iterator[servers.PostgresServer]:
    yield from had(lambda: servers.start(version))


@pytest.fixture(scope="session")
def postgresql15() -> Iterator[servers.PostgresServer]:
    yield from postgresql_server(15)


@pytest.fixture(scope="session")
def postgresql16() -> Iterator[servers.PostgresServer]:
    yield from postgresql_server(16)


@pytest.fixture(scope="session")
def postgresql18() -> Iterator[servers.PostgresServer]:
    yield from postgresql_server(18)


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
