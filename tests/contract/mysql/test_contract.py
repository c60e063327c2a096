"""The contract suite on MySQL and MariaDB, with the hostile acts."""

from __future__ import annotations

import pytest

from adapters.contract import AdapterContract
from adapters.contract.acts import mysql
from tests.contract.mysql.harness import build
from tests.contract.mysql.hostile_harness import HostileHarness
from tests.servers.mysql import MySQLServer


class TestMySQLFamily(AdapterContract):
    """Runs on both servers, by the fixture ``mysql_family`` of ``tests/conftest.py``."""

    acts = mysql.ACTS

    @pytest.fixture
    def hostile_harness(self, mysql_family: MySQLServer) -> HostileHarness:
        """Every act has a database, roles and a bot of its own."""
        return build(mysql_family, of=HostileHarness)
