"""The contract suite on MySQL and MariaDB, with the hostile acts."""

from __future__ import annotations

import pytest

from adapters.contract import AdapterContract, HostileAct
from adapters.contract.acts import mysql
from tests.contract.mysql.harness import build
from tests.contract.mysql.hostile_harness import HostileHarness
from tests.open_faults import open_fault
from tests.servers.mysql import MySQLServer

HOLDS_UP_OTHERS = "the end of another user waits for the lock, and names its holder and does not end it"
WORKS_ON = "an object defined by the level's role works on, and the receipt does not name it"
OPEN = {
    "locks the accounts": ("A2", HOLDS_UP_OTHERS),
    "locks all tables": ("A2", HOLDS_UP_OTHERS),
    "locks the instance for a backup": ("A2", HOLDS_UP_OTHERS),
    "locks the accounts again and again": ("A2", HOLDS_UP_OTHERS),
    "fills the server with half-open logins": ("H", "each connection of the bot fails with 'Too many connections'"),
}
"""The acts that the adapter does not withstand yet, each with its kind and with what happens today."""
OPEN_ON_MARIADB = {
    "defines a view": ("C4", WORKS_ON),
    "defines a routine": ("C4", WORKS_ON),
    "defines a trigger": ("C4", WORKS_ON),
    "schedules an event": ("C4", WORKS_ON),
    "is running an endless event as the role of its level": ("C4", WORKS_ON),
}
RACES_ON_MYSQL = {
    "changes its password again and again": "A: the end gives up after 10 s behind the lock of the cache of accounts"
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
        if not harness.is_mariadb and act.name in RACES_ON_MYSQL:
            return pytest.mark.xfail(strict=False, raises=AssertionError, reason=RACES_ON_MYSQL[act.name])
        fault = (OPEN | (OPEN_ON_MARIADB if harness.is_mariadb else {})).get(act.name)
        return None if fault is None else open_fault(*fault)
