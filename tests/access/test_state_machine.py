"""Random steps of people, clock, servers, Slack, configuration and bots, in any order: every grant ends, and nobody is left.

``tests/nightly/state_machine.py`` has the steps, ``tests/nightly/invariants.py`` what must be true after each of them. The steps are the same at every run.
"""

from __future__ import annotations

from collections import Counter

import pytest

from storage.audit_kinds import AuditKind
from tests.nightly.state_machine import UseCases, profile, run
from tests.servers.postgresql import PostgresServer
from tests.soak import rounds

EXAMPLES = {"sqlite": 12, "postgresql": 4}
USUAL = {
    AuditKind.REQUESTED, AuditKind.APPROVED, AuditKind.STARTED, AuditKind.ACTIVATED, AuditKind.REVOKING,
    AuditKind.REVOKED,
}  # fmt: skip


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("store", EXAMPLES)
def test_any_order_of_events_ends_every_grant(request: pytest.FixtureRequest, store: str) -> None:
    server: PostgresServer | None = request.getfixturevalue("postgresql18") if store == "postgresql" else None

    class Machine(UseCases):
        reached = Counter[str]()

        @classmethod
        def _new_url(cls) -> str | None:
            if server is None:
                return None
            return server.superuser_url(server.new_database()).replace("postgresql://", "postgresql+psycopg://")

    run(Machine, profile(rounds(EXAMPLES[store]), fixed=True))
    assert set(Machine.reached) >= USUAL, Machine.reached
