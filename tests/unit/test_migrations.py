"""The migrations create exactly the tables that the program uses, on both databases, as a whole or not at all."""

from __future__ import annotations

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, inspect

from storage.database import Database
from storage.errors import LedgerUnavailable
from storage.ledger import Ledger
from storage.schema import metadata
from tests.unit.ledgers import draft, execute, open_ledger

NAMED = {"alembic_version", *metadata.tables}


def differences(connection: Connection) -> list[object]:
    context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
    return list(compare_metadata(context, metadata))


def tables(connection: Connection) -> set[str]:
    return set(inspect(connection).get_table_names())


async def test_the_migrations_create_the_tables_of_the_schema(ledger: Ledger) -> None:
    assert await ledger.database.read(differences) == []
    assert await ledger.database.read(tables) == NAMED


async def test_the_comparison_finds_a_missing_column(ledger: Ledger) -> None:
    """This proves that the comparison above can fail."""
    await execute(ledger, "ALTER TABLE requests DROP COLUMN receipt")
    assert await ledger.database.read(differences) != []


async def test_the_database_refuses_two_claims_of_a_lock_key(ledger: Ledger) -> None:
    """``compare_metadata`` does not compare the condition of the partial index."""
    row = "'mend', 'user:1', '{}', '2026-11-23 10:00:00', '2026-11-23 10:00:00', 0, 0, 'a server'"
    columns = "(kind, lock_key, payload, due_at, created_at, attempts, priority, pool, claim, held_key)"
    free, claimed = f"({row}, NULL, NULL)", f"({row}, 1, 'user:2')"
    await execute(ledger, f"INSERT INTO tasks {columns} VALUES {free}, {free}, {claimed}")
    for other in (f"({row}, 2, NULL)", f"({row.replace('user:1', 'user:3')}, 3, 'user:2')"):
        with pytest.raises(LedgerUnavailable, match=r"(?i)integrity|unique"):
            await execute(ledger, f"INSERT INTO tasks {columns} VALUES {other}")


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO decisions (request_id, person_id, person_name, verdict, stage, at) VALUES (999, 'U1', 'Ada', 'approve', 0, '2026-11-23 10:00:00')",
        "INSERT INTO messages (request_id, purpose, channel, version) VALUES (999, 'card', 'C1', 0)",
        "DELETE FROM requests",
    ],
)
async def test_the_database_refuses_references_to_a_missing_request(ledger: Ledger, statement: str) -> None:
    await ledger.requests.submit(draft())
    with pytest.raises(LedgerUnavailable, match=r"(?i)integrity|foreign"):
        await execute(ledger, statement)


async def test_upgrading_a_current_ledger_changes_nothing(ledger: Ledger, ledger_url: str) -> None:
    request, _ = await ledger.requests.submit(draft())
    again = await open_ledger(ledger_url)
    assert again.id == ledger.id
    assert (await again.requests.get(request.id)).key == request.key
    await again.close()


async def test_an_interrupted_upgrade_creates_no_table(ledger_url: str) -> None:
    database = Database(ledger_url)

    def interrupted(_tx: Connection) -> None:
        raise RuntimeError("the power went")

    with pytest.raises(RuntimeError):
        await database.migrate(interrupted)
    assert await database.read(tables) == set()
    await database.close()
