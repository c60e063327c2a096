"""Benches: MySQL as Debian sid has it, and MariaDB 10.11."""

from __future__ import annotations

import pytest

from tests.contract.mysql_family.bench import Bench, build
from tests.servers.mysql import MySQLServer

_built: dict[str, Bench] = {}


@pytest.fixture
def bench(mysql_family: MySQLServer) -> Bench:
    """One per server for the whole session; its names are its own."""
    key = str(mysql_family.folder)
    if key not in _built:
        _built[key] = build(mysql_family)
    return _built[key]


@pytest.fixture
def own_bench(mysql_family: MySQLServer) -> Bench:
    """A bench that a test may spoil."""
    return build(mysql_family)
