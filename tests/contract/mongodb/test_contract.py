"""The contract on MongoDB."""

from __future__ import annotations

from adapters.contract import AdapterContract


class TestMongoDB(AdapterContract):
    """See ``mongodb`` among the fixtures for what it runs against."""
