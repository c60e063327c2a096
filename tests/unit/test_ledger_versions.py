"""A ledger of an earlier version is migrated, and its live grant ends. Version 0.1.0 made the dumps."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from storage.commands import ConfirmRevocation, RevokeGrant
from storage.ledger import Ledger
from storage.records import Cause, Receipt, ReceiptOutcome, RequestKind, State, TaskKind
from storage.writes import server_of
from tests.unit.ledgers import LEASE, RECEIPT, TurnableClock, approve, draft

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
    await ledger.open(create=True)
    yield ledger
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
