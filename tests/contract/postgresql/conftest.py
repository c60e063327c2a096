"""Benches: PostgreSQL 15 and 18, each with a bot that takes on an admin role and with one that acts as its own login."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.conftest import had
from tests.contract.postgresql.attacks import Attack
from tests.contract.postgresql.harness import EngineHarness, build
from tests.contract.postgresql.pair import Pair, close_sessions, had_here
from tests.servers import postgresql as servers
from tests.servers.postgresql import PostgresServer

_built: dict[tuple[str, bool], EngineHarness] = {}


def harness_of(server: PostgresServer, *, with_owner: bool) -> EngineHarness:
    """One bench per server and kind of bot for the whole session; its names are its own."""
    key = (str(server.folder), with_owner)
    if key not in _built:
        _built[key] = build(server, with_owner=with_owner)
    return _built[key]


@pytest.fixture(params=["admin role", "own login"])
def harness(request: pytest.FixtureRequest, postgresql: PostgresServer) -> EngineHarness:
    return harness_of(postgresql, with_owner=request.param == "admin role")


@pytest.fixture
def own_harness(postgresql: PostgresServer) -> EngineHarness:
    """A bench that a test may spoil."""
    return build(postgresql)


@pytest.fixture(scope="session", params=[15, 18], ids=["postgresql15", "postgresql18"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Servers of their own: the others have no standby."""
    with (
        had_here(lambda: servers.start(request.param)) as primary,
        had_here(lambda: servers.start_standby(primary)) as standby,
    ):
        yield Pair(primary, standby)


@pytest.fixture(params=["admin role", "own login"])
def paired(request: pytest.FixtureRequest, pair: Pair) -> EngineHarness:
    """A bench on the primary that names the standby."""
    found = build(pair.primary, with_owner=request.param == "admin role")
    pair.catch_up()
    return replace(found, standbys=(pair.standby,))


@pytest.fixture(scope="module", params=[15, 18], ids=["postgresql15", "postgresql18"])
def attacked(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """A server of the module's own, which may be spoiled. The module may have ``SETTINGS`` for it."""
    settings = getattr(request.module, "SETTINGS", "")
    yield from had(lambda: servers.start(request.param, extra=settings))


@pytest.fixture
def attack(request: pytest.FixtureRequest, attacked: PostgresServer) -> Iterator[Attack]:
    """The bot takes on an admin role, unless a test asks for "own login"."""
    with contextlib.ExitStack() as stack:
        yield Attack(build(attacked, with_owner=getattr(request, "param", None) != "own login"), stack)


@pytest.fixture(autouse=True)
def _close_sessions() -> Iterator[None]:
    """Sessions that a test left open are closed after it."""
    yield
    close_sessions()
