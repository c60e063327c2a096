"""The contract suite on MySQL and MariaDB."""

from __future__ import annotations

from adapters.contract import AdapterContract


class TestMySQLFamily(AdapterContract):
    """Runs on both servers, by the fixture ``mysql_family`` of ``tests/conftest.py``."""
