"""The contract on PostgreSQL, with the hostile acts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from adapters.contract import AdapterContract, HostileAct
from adapters.contract.acts import postgresql
from tests.contract.postgresql.harness import ContractHarness, EngineHarness
from tests.contract.postgresql.hostile_harness import HostileHarness
from tests.open_faults import open_fault

WAITS = "a grant of the same table to another person waits for the lock: lock timeout"
OPEN = {
    "grants a right on a table of its level in an open transaction": ("F2", WAITS),
    "grants a right on the schema of its level in an open transaction": ("F2", WAITS),
}
"""The acts that the adapter does not withstand yet, each with its kind and with what happens today."""
OPEN_ON_18 = {"locks the tables of its level": ("F2", WAITS)}
"""From PostgreSQL 18 on, GRANT waits for a lock on the table."""


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

    def open_fault(self, act: HostileAct, harness: HostileHarness) -> pytest.MarkDecorator | None:
        found = OPEN | (OPEN_ON_18 if harness.harness.server.version >= 18 else {})
        fault = found.get(act.name)
        return None if fault is None else open_fault(*fault)
