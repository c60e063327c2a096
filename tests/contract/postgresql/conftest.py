"""Benches: PostgreSQL 15 and 18, each with a bot that takes on an admin role and with one that acts as its own login."""

from __future__ import annotations

import pytest

from tests.contract.postgresql.bench import Bench, build
from tests.servers.postgresql import PostgresServer

_built: dict[tuple[str, bool], Bench] = {}


def bench_of(server: PostgresServer, *, with_owner: bool) -> Bench:
    """One bench per server and kind of bot for the whole session; its names are its own."""
    key = (str(server.folder), with_owner)
    if key not in _built:
        _built[key] = build(server, with_owner=with_owner)
    return _built[key]


@pytest.fixture(params=["admin role", "own login"])
def bench(request: pytest.FixtureRequest, postgresql: PostgresServer) -> Bench:
    return bench_of(postgresql, with_owner=request.param == "admin role")


@pytest.fixture
def own_bench(postgresql: PostgresServer) -> Bench:
    """A bench that a test may spoil."""
    return build(postgresql)
