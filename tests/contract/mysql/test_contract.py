"""The contract suite on MySQL and MariaDB, with the hostile acts."""

from __future__ import annotations

import pytest

from adapters.contract import AdapterContract, HostileAct
from adapters.contract.acts import mysql
from tests.contract.mysql.harness import build
from tests.contract.mysql.hostile_harness import HostileHarness
from tests.servers.mysql import MySQLServer

RACES_ON_MYSQL = {
    "changes its password again and again": "H: KILL reads the cache of accounts, and the changes of three sessions always go first"
}
"""Acts that the adapter withstands in some runs."""


class TestMySQLFamily(AdapterContract):
    """Runs on both servers, by the fixture ``mysql_family`` of ``tests/conftest.py``."""

    acts = mysql.ACTS

    @pytest.fixture
    def hostile_harness(self, mysql_family: MySQLServer) -> HostileHarness:
        """Every act has a database, roles and a bot of its own."""
        return build(mysql_family, of=HostileHarness)

    def open_fault(self, act: HostileAct, harness: HostileHarness) -> pytest.MarkDecorator | None:
        if harness.is_mariadb or act.name not in RACES_ON_MYSQL:
            return None
        return pytest.mark.xfail(strict=False, raises=AssertionError, reason=RACES_ON_MYSQL[act.name])
