"""The migrations make exactly the tables the program uses, on both stores, all of it or nothing."""

from __future__ import annotations

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, inspect

from storage.database import Database
from storage.errors import LedgerUnavailable
from storage.ledger import Ledger
from storage.schema import metadata
from tests.unit.ledgers import draft, open_ledger

NAMED = {"alembic_version", *metadata.tables}


def differences(connection: Connection) -> list[object]:
    context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
    return list(compare_metadata(context, metadata))


def tables(connection: Connection) -> set[str]:
    return set(inspect(connection).get_table_names())


async def test_the_migrations_make_the_tables_of_the_program(ledger: Ledger) -> None:
    async with ledger.reading() as tx:
        assert await tx.run_sync(differences) == []
        assert await tx.run_sync(tables) == NAMED


async def test_a_table_that_is_missing_would_be_seen(ledger: Ledger) -> None:
    """The comparison above can fail: without this it might compare nothing."""
    async with ledger.writing() as tx:
        await tx.exec_driver_sql("ALTER TABLE requests DROP COLUMN receipt")
        assert await tx.run_sync(differences) != []


async def test_one_of_a_lane_is_the_store_s_own_rule(ledger: Ledger) -> None:
    """The partial index, which compare_metadata does not look into: two claims of a lock key are refused by the store."""
    row = "'mend', 'db:1', '{}', '2026-11-23 10:00:00', '2026-11-23 10:00:00', 0"
    columns = "(kind, lock_key, payload, due_at, created_at, attempts, claim)"
    async with ledger.writing() as tx:
        await tx.exec_driver_sql(f"INSERT INTO tasks {columns} VALUES ({row}, NULL), ({row}, NULL), ({row}, 1)")
    with pytest.raises(LedgerUnavailable, match=r"(?i)integrity|unique"):
        async with ledger.writing() as tx:
            await tx.exec_driver_sql(f"INSERT INTO tasks {columns} VALUES ({row}, 2)")


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO decisions (request_id, person_id, person_name, verdict, stage, at) VALUES (999, 'U1', 'Ada', 'approve', 0, '2026-11-23 10:00:00')",
        "INSERT INTO messages (request_id, purpose, channel, version) VALUES (999, 'card', 'C1', 0)",
        "DELETE FROM requests",
    ],
)
async def test_nothing_points_at_a_request_that_is_not_there(ledger: Ledger, statement: str) -> None:
    await ledger.submit(draft())
    with pytest.raises(LedgerUnavailable, match=r"(?i)integrity|foreign"):
        async with ledger.writing() as tx:
            await tx.exec_driver_sql(statement)


async def test_an_upgrade_of_a_ledger_that_is_up_to_date_changes_nothing(ledger: Ledger, ledger_url: str) -> None:
    request, _ = await ledger.submit(draft())
    again = await open_ledger(ledger_url)
    assert again.id == ledger.id
    assert (await again.request(request.id)).key == request.key
    await again.close()


async def test_an_upgrade_that_is_broken_off_leaves_nothing(ledger_url: str) -> None:
    store = Database(ledger_url)

    async def broken_off() -> None:
        async with store.migrated():
            raise RuntimeError("the power went")

    with pytest.raises(RuntimeError):
        await broken_off()
    async with store.reading() as tx:
        assert await tx.run_sync(tables) == set()
    await store.close()
