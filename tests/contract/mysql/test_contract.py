"""The contract on MySQL and MariaDB."""

from __future__ import annotations

from adapters.contract import AdapterContract


class TestMySQLFamily(AdapterContract):
    """Both: see ``mysql_family`` among the fixtures of all tests."""
