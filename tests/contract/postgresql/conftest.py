"""Harnesses for PostgreSQL 15 and 18: each with a bot that acts as an admin role, and with a bot that acts as its own login."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import pytest

from adapters.postgresql import held
from tests.conftest import had
from tests.contract.postgresql.attacks import Attack
from tests.contract.postgresql.harness import EngineHarness, build
from tests.contract.postgresql.standby_pair import Pair, close_sessions, had_here
from tests.servers import postgresql as servers
from tests.servers.postgresql import PostgresServer

_built: dict[tuple[str, bool], EngineHarness] = {}


def harness_of(server: PostgresServer, *, with_owner: bool) -> EngineHarness:
    """One harness per server and kind of bot for the whole session. Its names are unique."""
    key = (str(server.folder), with_owner)
    if key not in _built:
        _built[key] = build(server, with_owner=with_owner)
    return _built[key]


@pytest.fixture(params=["admin role", "own login"])
def harness(request: pytest.FixtureRequest, postgresql: PostgresServer) -> EngineHarness:
    return harness_of(postgresql, with_owner=request.param == "admin role")


@pytest.fixture
def own_harness(postgresql: PostgresServer) -> EngineHarness:
    """A harness that a test may change."""
    return build(postgresql)


@pytest.fixture(scope="session", params=[15, 18], ids=["postgresql15", "postgresql18"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """A primary and its standby. The other servers have no standby."""
    with (
        had_here(lambda: servers.start(request.param)) as primary,
        had_here(lambda: servers.start_standby(primary)) as standby,
    ):
        yield Pair(primary, standby)


@pytest.fixture(params=["admin role", "own login"])
def paired(request: pytest.FixtureRequest, pair: Pair) -> EngineHarness:
    """A harness on the primary that names the standby as replica."""
    found = build(pair.primary, with_owner=request.param == "admin role")
    pair.catch_up()
    return replace(found, standbys=(pair.standby,))


@pytest.fixture(scope="module", params=[15, 18], ids=["postgresql15", "postgresql18"])
def attacked(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """A server for one module, which tests may damage. The module may define ``SETTINGS`` for it."""
    settings = getattr(request.module, "SETTINGS", "")
    yield from had(lambda: servers.start(request.param, extra=settings))


@pytest.fixture
def attack(request: pytest.FixtureRequest, attacked: PostgresServer) -> Iterator[Attack]:
    """An attack on this server. The bot acts as an admin role, unless a test has the parameter "own login"."""
    with contextlib.ExitStack() as stack:
        yield Attack(build(attacked, with_owner=getattr(request, "param", None) != "own login"), stack)


@pytest.fixture(autouse=True)
def _close_sessions() -> Iterator[None]:
    """Close the sessions that a test left open, and the connections that adapters hold."""
    yield
    close_sessions()
    held.close_all()
