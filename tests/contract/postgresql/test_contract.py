"""The contract on PostgreSQL."""

from __future__ import annotations

import pytest

from adapters.contract import AdapterContract
from tests.contract.postgresql.harness import ContractHarness, EngineHarness


class TestPostgreSQL(AdapterContract):
    @pytest.fixture
    def harness(self, harness: EngineHarness) -> ContractHarness:
        return ContractHarness(harness)
