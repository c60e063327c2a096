"""Engine harnesses on MySQL (the version in Debian sid) and on MariaDB 10.11."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from adapters.mysql import spares
from tests.contract.mysql import hostile
from tests.contract.mysql.harness import EngineHarness, build
from tests.servers.mysql import MySQLServer


@pytest.fixture(autouse=True)
def connections_closed() -> Iterator[None]:
    """Close the connections of hostile users after each test, so that their locks are released, and the spare ones of the bots."""
    yield
    hostile.close_all()
    for spare in spares._spares.values():
        if spare.driver is not None and spare.driver.open:
            spare.driver.close()
        spare.driver = None


_built: dict[str, EngineHarness] = {}


@pytest.fixture
def harness(mysql_family: MySQLServer) -> EngineHarness:
    """One harness per server for the whole session, with unique names."""
    key = str(mysql_family.folder)
    if key not in _built:
        _built[key] = build(mysql_family)
    return _built[key]


@pytest.fixture
def own_harness(mysql_family: MySQLServer) -> EngineHarness:
    """A harness that a test may change."""
    return build(mysql_family)
