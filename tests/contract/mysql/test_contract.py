"""The contract suite on MySQL and MariaDB, with the hostile acts."""

from __future__ import annotations

import pytest

from adapters.contract import AdapterContract, HostileAct
from adapters.contract.acts import mysql
from tests.contract.mysql.harness import build
from tests.contract.mysql.hostile_harness import HostileHarness
from tests.open_faults import open_fault
from tests.servers.mysql import MySQLServer

OPEN: dict[str, tuple[str, str]] = {}
"""The acts that the adapter does not withstand yet, each with its kind and with what happens today."""
OPEN_ON_MYSQL: dict[str, tuple[str, str]] = {}
OPEN_ON_MARIADB: dict[str, tuple[str, str]] = {}


class TestMySQLFamily(AdapterContract):
    """Runs on both servers, by the fixture ``mysql_family`` of ``tests/conftest.py``."""

    acts = mysql.ACTS

    @pytest.fixture
    def hostile_harness(self, mysql_family: MySQLServer) -> HostileHarness:
        """Every act has a database, roles and a bot of its own."""
        return build(mysql_family, of=HostileHarness)

    def open_fault(self, act: HostileAct, harness: HostileHarness) -> pytest.MarkDecorator | None:
        fault = (OPEN | (OPEN_ON_MARIADB if harness.is_mariadb else OPEN_ON_MYSQL)).get(act.name)
        return None if fault is None else open_fault(*fault)
