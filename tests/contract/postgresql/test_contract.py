"""The contract on PostgreSQL."""

from __future__ import annotations

import pytest

from adapters.contract import AdapterContract
from tests.contract.postgresql.bench import Bench, ContractBench


class TestPostgreSQL(AdapterContract):
    @pytest.fixture
    def bench(self, bench: Bench) -> ContractBench:
        return ContractBench(bench)
