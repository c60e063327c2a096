"""A ledger of an earlier version is migrated, and its live grant ends. Version 0.1.0 made the dumps."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from alembic import command
from sqlalchemy import Connection

from storage.alerts import AlertDraft
from storage.audit_kinds import AuditKind
from storage.commands import ConfirmRevocation, RevokeGrant
from storage.database import Database
from storage.ledger import Ledger
from storage.records import Cause, Priority, Receipt, ReceiptOutcome, RequestKind, State, TaskKind
from storage.revisions import alembic_config
from storage.writes import server_of
from tests.unit.ledgers import LEASE, RECEIPT, TurnableClock, approve, draft, execute

DUMPS = Path(__file__).parent / "ledgers_of_versions"
MADE_AT = datetime(2026, 11, 23, 9, 5, tzinfo=UTC)
LIVE, EXTENSION, WAITING = 5, 6, 7
"""Ids of requests in the dump. 1 to 3 are revoked: verified, declared gone, never started. 4 is denied."""


def restore(ledger_url: str, change: str = "") -> None:
    """The ledger of version 0.1.0, before the migration. ``change`` is one statement that is run on it."""
    if ledger_url.startswith("sqlite"):
        connection = sqlite3.connect(ledger_url.removeprefix("sqlite+aiosqlite:///"))
        connection.executescript((DUMPS / "0.1.0.sqlite.sql").read_text() + change)
        connection.close()
        return
    with psycopg.connect(ledger_url.replace("+psycopg", ""), autocommit=True) as server:
        server.execute((DUMPS / "0.1.0.postgresql.sql").read_bytes())
        if change:
            server.execute(change.encode())


@asynccontextmanager
async def migrated(ledger_url: str) -> AsyncIterator[Ledger]:
    ledger = Ledger(ledger_url, clock=TurnableClock(MADE_AT + timedelta(hours=1)))
    try:
        await ledger.open(create=True)
        yield ledger
    finally:
        await ledger.close()


@pytest.fixture
async def old(ledger_url: str) -> AsyncIterator[Ledger]:
    """The ledger of version 0.1.0, migrated."""
    restore(ledger_url)
    async with migrated(ledger_url) as ledger:
        yield ledger


async def test_pending_break_glass_request_gets_the_task_that_grants_it(ledger_url: str) -> None:
    """In version 0.1.0, posting its card granted it."""
    restore(ledger_url, f"UPDATE requests SET kind = 'break-glass' WHERE id = {WAITING}")
    async with migrated(ledger_url) as ledger:
        found = [task for task in await ledger.tasks.all() if task.kind is TaskKind.GRANT_BREAK_GLASS]
        assert [(task.request_id, task.lock_key, dict(task.payload)) for task in found] == [
            (WAITING, f"message:{WAITING}", {})
        ]
        assert found[0].due_at <= await ledger.now()


async def test_no_other_request_gets_such_a_task(old: Ledger) -> None:
    kinds = {task.kind for task in await old.tasks.all()}
    assert not kinds & {TaskKind.AUTO_APPROVE, TaskKind.GRANT_BREAK_GLASS}


async def test_requests_have_the_same_states_and_receipts(old: Ledger) -> None:
    found = {request.id: request for request in await old.requests.find()}
    states = [found[number].state for number in sorted(found)]
    assert states == [*[State.REVOKED] * 3, State.DENIED, State.ACTIVE, State.PENDING, State.PENDING]
    assert found[1].receipt == Receipt(outcome=ReceiptOutcome.VERIFIED, read_back_at=MADE_AT)
    assert found[2].receipt == Receipt(outcome=ReceiptOutcome.DECLARED_GONE, reason="the server burnt down")
    assert found[3].receipt == Receipt(outcome=ReceiptOutcome.NOTHING_CREATED)
    assert {request.level_state for request in found.values()} == {None}
    assert (found[4].ended_note, found[EXTENSION].kind) == ("not today", RequestKind.EXTENSION)
    assert (await old.requests.usage("U0ADA", "shop", now=MADE_AT)).waiting_of_person == 2


async def test_a_live_grant_ends(old: Ledger) -> None:
    grant = await old.requests.get(LIVE)
    assert grant.expires_at == MADE_AT + timedelta(hours=1)
    while (claim := await old.tasks.claim("worker", LEASE)) is not None and claim.task.kind is not TaskKind.REVOKE:
        await old.tasks.finish(claim)
    assert claim is not None
    assert grant.target is not None
    slot = claim.slot
    assert (claim.task.request_id, slot.pool, slot.server) == (LIVE, "server-1", server_of(grant.target))
    ending = await old.requests.advance(LIVE, RevokeGrant(actor="clock", cause=Cause.EXPIRED), claim=claim)
    assert ending.state is State.REVOKING
    ended = await old.requests.advance(LIVE, ConfirmRevocation(actor="bot", receipt=RECEIPT), claim=claim)
    assert (ended.state, ended.receipt) == (State.REVOKED, RECEIPT)


async def test_a_pending_request_is_found_as_a_duplicate(old: Ledger) -> None:
    waiting = await old.requests.get(WAITING)
    same = draft(
        person=waiting.requester_id, database=waiting.database, level=waiting.level, terms=waiting.terms, reason="again"
    )
    assert await old.requests.submit(same) == (waiting, False)
    assert (await approve(old, waiting, "U0LEAD")).state is State.APPROVED


async def test_an_unreadable_row_does_not_stop_the_migration(ledger_url: str) -> None:
    if not ledger_url.startswith("sqlite"):
        pytest.skip("PostgreSQL stores no invalid JSON")
    connection = sqlite3.connect(ledger_url.removeprefix("sqlite+aiosqlite:///"))
    connection.executescript((DUMPS / "0.1.0.sqlite.sql").read_text())
    connection.execute("UPDATE requests SET target = '{\"engine\": ', receipt = '{', terms = '[' WHERE id = 1")
    connection.commit()
    connection.close()
    ledger = Ledger(ledger_url)
    await ledger.open(create=True)
    assert (await ledger.requests.get(LIVE)).state is State.ACTIVE
    await ledger.close()


# From version 3 of the tables: pools, alerts, and the values of ``meta``.

TASKS = (  # kind, lock key, request, priority afterwards, lock key afterwards
    ("revoke", "db:5", LIVE, Priority.SAFETY, "user:5"),
    ("mend", "db:5", LIVE, Priority.SAFETY, "user:5"),
    ("provision", "db:5", LIVE, Priority.GRANT, "message:5:credentials"),
    ("password", "db:5", LIVE, Priority.GRANT, "message:5:credentials"),
    ("move_end", "db:5", LIVE, Priority.GRANT, "user:5"),
    ("close_credentials", "slack:5:credentials", LIVE, Priority.DECISION, "message:5:credentials"),
    ("update_card", "slack:5", LIVE, Priority.DECISION, "message:5"),
    ("auto_approve", "slack:7", WAITING, Priority.GRANT, "message:7"),
    ("grant_break_glass", "slack:7", WAITING, Priority.GRANT, "message:7"),
    ("remind", "slack:7", WAITING, Priority.BACKGROUND, "message:7"),
    ("tell", "slack:4", 4, Priority.DECISION, "message:4"),
    ("feed", "slack:feed", None, Priority.BACKGROUND, "message:feed"),
)
ON_SERVER = ("revoke", "mend", "provision", "password", "move_end")
SHOP = "postgresql env:SHOP_ADMIN_URL"
ALERT_TEXT = json.dumps(
    {"what": "Cannot end #5.", "tries": 3, "steps": ["By hand."], "since": "2026-11-23T10:00:00+01:00"}
)


async def at_version_3(ledger_url: str, *statements: str) -> None:
    """The ledger of version 0.1.0, migrated to version 3 of its tables; then these statements are run on it."""
    restore(ledger_url)
    database = Database(ledger_url)

    def upgrade(tx: Connection) -> None:
        config = alembic_config()
        config.attributes["connection"] = tx
        command.upgrade(config, "0003")
        tx.exec_driver_sql("DELETE FROM tasks")
        for statement in statements:
            tx.exec_driver_sql(statement)

    await database.write(upgrade)
    await database.close()


def old_task(kind: str, lock_key: str, request: int | None, payload: str = "{}", claim: str = "NULL") -> str:
    columns = "kind, lock_key, request_id, payload, due_at, created_at, attempts, claim, worker, lease_until"
    at = "'2026-11-22 09:05:00'"
    lease = "'2026-12-24 09:05:00'" if claim != "NULL" else "NULL"
    values = f"'{kind}', '{lock_key}', {request or 'NULL'}, '{payload}', {at}, {at}, 1, {claim}, NULL, {lease}"
    return f"INSERT INTO tasks ({columns}) VALUES ({values})"


async def test_tasks_of_every_kind_get_their_pool_their_priority_and_their_lock_key(ledger_url: str) -> None:
    await at_version_3(ledger_url, *(old_task(*columns) for *columns, _, _ in TASKS))
    async with migrated(ledger_url) as ledger:
        found = {task.kind.value: task for task in await ledger.tasks.all()}
        assert {kind: (found[kind].priority, found[kind].lock_key) for kind, *_ in TASKS} == {
            kind: (priority, lock_key) for kind, _, _, priority, lock_key in TASKS
        }
        places = {kind: (found[kind].pool, found[kind].server) for kind, *_ in TASKS}
        assert places == {kind: ("server-1", SHOP) if kind in ON_SERVER else ("slack", None) for kind, *_ in TASKS}
        assert {found[kind].request_id for kind in ON_SERVER} == {LIVE}


async def test_tasks_that_were_claimed_can_be_claimed_again(ledger_url: str) -> None:
    """Two running tasks may have one lock key now. Their workers are gone, or notice that they lost their claim."""
    running = [
        old_task("provision", "db:5", LIVE, claim="17"),
        old_task("close_credentials", "slack:5:credentials", LIVE, claim="18"),
    ]
    await at_version_3(ledger_url, *running)
    async with migrated(ledger_url) as ledger:
        claim = await ledger.tasks.claim("worker", LEASE)
        assert claim is not None
        assert claim.task.lock_key == "message:5:credentials"
        assert await ledger.tasks.claim("another", LEASE) is None


async def test_alerts_that_were_not_sent_yet_are_sent(ledger_url: str) -> None:
    waiting = [old_task("alert", "slack:alerts", LIVE, ALERT_TEXT), old_task("alert", "slack:alerts", None, ALERT_TEXT)]
    unreadable = old_task("alert", "slack:alerts", None, '{"since": "yesterday"}')
    await at_version_3(ledger_url, *waiting, unreadable)
    async with migrated(ledger_url) as ledger:
        due = await ledger.tasks.claim_due("worker", LEASE, room=lambda _slot: 9)
        shown = [await ledger.alerts.get(claim.task.payload["alert"]) for claim in due.claims[:2]]
        assert [(one.what, one.steps, one.tries, one.since) for one in shown if one] == [
            ("Cannot end #5.", ("By hand.",), 3, MADE_AT - timedelta(minutes=5))
        ] * 2
        assert [one.request_id for one in shown if one] == [LIVE, None]
        assert [(claim.task.pool, claim.slot.priority) for claim in due.claims[:2]] == [("alerts", Priority.SAFETY)] * 2
        assert await ledger.alerts.open() == (), "nobody would resolve them"
        await ledger.alerts.raise_alert(AlertDraft(cause="end:5", what="new"))
        assert [one.what for one in await ledger.alerts.open()] == ["new"]


async def test_an_alert_that_is_no_json_does_not_stop_the_migration(ledger_url: str) -> None:
    if not ledger_url.startswith("sqlite"):
        pytest.skip("PostgreSQL stores no invalid JSON")
    await at_version_3(ledger_url, old_task("alert", "slack:alerts", None, '{"what": '))
    async with migrated(ledger_url) as ledger:
        assert len((await ledger.tasks.claim_due("worker", LEASE)).set_aside) == 1


async def test_values_of_meta_move_to_tables_of_their_own(ledger_url: str) -> None:
    values = {
        "seen:group:S01": '["U02", "U01"]',
        "seen:group:S02": "[]",
        "seen:group:S03": "no JSON",
        "seen:pin:@leads": "S01",
        "cursor:seal": "4711",
        "cursor:alerted:end:5": "3",
        "cursor:bad": "no number",
        "anything": "else",
    }
    await at_version_3(ledger_url, *(f"INSERT INTO meta VALUES ('{n}', '{v}')" for n, v in values.items()))
    async with migrated(ledger_url) as ledger:
        assert await ledger.observations.groups() == {"S01": frozenset({"U01", "U02"}), "S02": frozenset()}
        assert await ledger.observations.pins() == {"@leads": "S01"}
        names = ("feed", "feed_at", "seal", "alerted:end:5", "bad")
        assert [await ledger.observations.cursor(name) for name in names] == [5, 1795424700000, 4711, 0, 0]
        left = await ledger.database.read(lambda tx: tx.exec_driver_sql("SELECT name FROM meta").scalars().all())
        assert left == ["ledger", "readable_from"]
        assert len(ledger.id) == 12


async def test_ids_of_tasks_are_not_used_again_after_the_migration(ledger_url: str) -> None:
    """A copy of the table would begin to count at its highest row."""
    await at_version_3(ledger_url, *(old_task("tell", "slack:4", 4) for _ in range(3)))
    async with migrated(ledger_url) as ledger:
        last = (await ledger.tasks.all())[-1].id
        await execute(ledger, "DELETE FROM tasks")
        await ledger.audit.record(AuditKind.ALERT, actor="bot")
        (feed,) = await ledger.tasks.all()
        assert feed.id > last
