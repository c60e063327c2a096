"""Benches: MySQL as Debian sid has it, and MariaDB 10.11."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.mysql import hostile
from tests.contract.mysql.harness import EngineHarness, build
from tests.servers.mysql import MySQLServer


@pytest.fixture(autouse=True)
def nothing_held() -> Iterator[None]:
    """What a test's hostile users hold is let go when it is over."""
    yield
    hostile.close_all()


_built: dict[str, EngineHarness] = {}


@pytest.fixture
def harness(mysql_family: MySQLServer) -> EngineHarness:
    """One per server for the whole session; its names are its own."""
    key = str(mysql_family.folder)
    if key not in _built:
        _built[key] = build(mysql_family)
    return _built[key]


@pytest.fixture
def own_harness(mysql_family: MySQLServer) -> EngineHarness:
    """A bench that a test may spoil."""
    return build(mysql_family)
