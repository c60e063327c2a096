"""Retention: what ended long ago is removed with everything that belongs to it, and its number is never given again."""

from __future__ import annotations

from storage.ledger import Ledger
from storage.records import State
from tests.unit.ledgers import TurnableClock, bring, draft, execute


async def test_the_highest_number_is_the_one_ever_given(ledger: Ledger, clock: TurnableClock) -> None:
    assert await ledger.figures.newest_request() == 0
    await bring(ledger, clock, State.CANCELLED)
    newest, _ = await ledger.requests.submit(draft())
    for table in ("audit_texts", "audit_events", "messages", "tasks", "requests"):
        await execute(ledger, f"DELETE FROM {table}")
    assert await ledger.figures.newest_request() == newest.id
    again, _ = await ledger.requests.submit(draft())
    assert again.id > newest.id
