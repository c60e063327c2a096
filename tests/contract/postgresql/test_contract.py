"""The contract on PostgreSQL, with the hostile acts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from adapters.contract import AdapterContract
from adapters.contract.acts import postgresql
from tests.contract.postgresql.harness import ContractHarness, EngineHarness
from tests.contract.postgresql.hostile_harness import HostileHarness


class TestPostgreSQL(AdapterContract):
    acts = postgresql.ACTS

    @pytest.fixture
    def harness(self, harness: EngineHarness) -> ContractHarness:
        return ContractHarness(harness)

    @pytest.fixture
    def hostile_harness(self, own_harness: EngineHarness) -> Iterator[HostileHarness]:
        """Every act has databases of its own."""
        found = HostileHarness(own_harness)
        yield found
        found.remove()
