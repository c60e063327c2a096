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
UNNAMED = "it stays, and the receipt does not name it"
OPEN = {
    "takes the advisory locks of the bot": ("F2", "a grant with a managed role waits for the lock: lock timeout"),
    "grants a right on a table of its level in an open transaction": ("F2", WAITS),
    "grants a right on the schema of its level in an open transaction": ("F2", WAITS),
    "is given a right by a friend": ("A3", "the end is Rejected until a superuser revokes the right"),
    "fills the lock table": ("H1", "each connection of the bot fails with 'out of shared memory'"),
    "fills the server with half-open logins": (
        "H2",
        "each connection of the bot fails with 'too many clients already'",
    ),
    "has a friend as a member": ("C1", "the friend's session keeps the level's rights after a clean receipt"),
    "sets the password of its level's role": ("C2", "the user logs in as the role after its end"),
    "makes a function as the role of its level": ("C5", UNNAMED),
    "changes the default privileges of its level's role": ("C5", UNNAMED),
    "changes a setting of its level's role": ("C5", UNNAMED),
    "grants the rights of its level on a table to a friend": ("C5", UNNAMED),
    "grants the rights of its level on a column to a friend": ("C5", UNNAMED),
    "grants the rights of its level on a schema to a friend": ("C5", UNNAMED),
    "opens a table of its level by a policy": ("C5", UNNAMED),
    "adds a rule to a table of its level": ("C5", UNNAMED),
    "leaves a trigger on a table of the team": (
        "C6",
        "it runs as the role that writes, and the receipt does not name it",
    ),
    "leaves code in a default of a table of the team": ("C6", "it runs as the role that writes, and is not named"),
    "leaves code in an index of a table of the team": (
        "C6",
        "it runs as the role that owns the table, and is not named",
    ),
    "sets a trap for tables of ended users": ("G1", "the trigger runs as the owner of what all ended users left"),
    "makes many objects with long names": ("E1", "the receipt names 200 objects"),
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
