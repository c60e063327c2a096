"""The contract on MongoDB."""

from __future__ import annotations

from adapters.contract import AdapterContract


class TestMongoDB(AdapterContract):
    """The fixture ``mongodb`` names the servers."""
