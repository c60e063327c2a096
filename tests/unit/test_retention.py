"""Retention: what ended long ago is removed with everything that belongs to it, and its number is never given again."""

from __future__ import annotations

from datetime import timedelta

import pytest
from pydantic import ValidationError
from sqlalchemy import Connection, func, insert, select

from bot.policy.model import PolicyFile
from storage import retention
from storage.alerts import AlertDraft
from storage.audit_kinds import AuditKind
from storage.errors import NoSuchRequest
from storage.ledger import Ledger
from storage.numbers import last_number
from storage.records import RequestKind, State
from storage.schema import metadata, tasks
from storage.transitions import Transition
from tests.unit.ledgers import LEASE, TurnableClock, bring, command_for, draft, execute

DAY = timedelta(days=1)
OF_REQUESTS = ("requests", "decisions", "messages", "audit_texts", "alerts")


async def finish_tasks(ledger: Ledger) -> None:
    """Everything that follows a transition was done."""
    while (claim := await ledger.tasks.claim("worker", LEASE)) is not None:
        await ledger.tasks.finish(claim)
    await execute(ledger, tasks.delete())


async def remove(ledger: Ledger, clock: TurnableClock, older_than: timedelta, **limits: int) -> tuple[int, int]:
    """Remove everything that is older. Returns the numbers of requests and of events."""
    requests, events, after = 0, 0, 0
    while True:
        found = await ledger.retention.remove(clock.time - older_than, after=after, **limits)
        requests, events, after = requests + found.requests, events + found.events, found.last or after
        if found.is_all:
            return requests, events


async def is_there(ledger: Ledger, request_id: int) -> bool:
    try:
        await ledger.requests.get(request_id)
    except NoSuchRequest:
        return False
    return True


async def rows(ledger: Ledger) -> dict[str, int]:
    def count(tx: Connection) -> dict[str, int]:
        found = {name: select(func.count()).select_from(metadata.tables[name]) for name in OF_REQUESTS}
        return {name: int(tx.execute(query).scalar_one()) for name, query in found.items()}

    return await ledger.database.read(count)


async def test_the_highest_number_is_the_one_ever_given(ledger: Ledger, clock: TurnableClock) -> None:
    assert await ledger.database.read(last_number) == 0
    await bring(ledger, clock, State.CANCELLED)
    newest, _ = await ledger.requests.submit(draft())
    for table in ("audit_texts", "audit_events", "messages", "tasks", "requests"):
        await execute(ledger, f"DELETE FROM {table}")
    assert await ledger.database.read(last_number) == newest.id
    again, _ = await ledger.requests.submit(draft())
    assert again.id > newest.id


@pytest.mark.parametrize("state", [state for state in State if state.is_over])
async def test_an_old_request_goes_with_everything_that_belongs_to_it(
    ledger: Ledger, clock: TurnableClock, state: State
) -> None:
    request = await bring(ledger, clock, state)
    if request.parent_id is not None:
        await ledger.requests.advance(request.parent_id, command_for(Transition.REVOKE, request))
        await ledger.requests.advance(request.parent_id, command_for(Transition.CONFIRM, request))
    await ledger.alerts.raise_alert(AlertDraft(cause="end:1", what="late", request_id=request.id))
    await ledger.alerts.resolve("end:1", "ended")
    await finish_tasks(ledger)
    clock.turn(9 * DAY)
    assert await remove(ledger, clock, 10 * DAY) == (0, 0)
    clock.turn(2 * DAY)
    number = 1 if request.parent_id is None else 2
    assert (await remove(ledger, clock, 10 * DAY))[0] == number
    assert not await is_there(ledger, request.id)
    assert await rows(ledger) == dict.fromkeys(OF_REQUESTS, 0)
    (event,) = await ledger.audit.events_after(0, limit=10)
    assert event.kind == AuditKind.ENTRIES_REMOVED
    assert event.facts["requests"] == number
    assert await ledger.database.read(last_number) == request.id
    assert (await ledger.requests.submit(draft()))[0].id > request.id


@pytest.mark.parametrize("state", [state for state in State if not state.is_over])
async def test_a_request_that_is_not_over_stays(ledger: Ledger, clock: TurnableClock, state: State) -> None:
    request = await bring(ledger, clock, state)
    await execute(ledger, tasks.delete())
    clock.turn(1000 * DAY)
    assert (await remove(ledger, clock, 10 * DAY))[0] == 0
    assert await is_there(ledger, request.id)


@pytest.mark.parametrize("kept_by", ["task", "alert", "young alert", "event", "review", "extension", "feed"])
async def test_an_old_request_stays_while_something_needs_it(
    ledger: Ledger, clock: TurnableClock, kept_by: str
) -> None:
    kind = RequestKind.BREAK_GLASS if kept_by == "review" else RequestKind.ACCESS
    request = await bring(ledger, clock, State.ACTIVE, kind=kind)
    if kept_by == "extension":
        extension, _ = await ledger.requests.submit(
            draft(person=request.requester_id, kind=RequestKind.EXTENSION, parent_id=request.id)
        )
    for transition in (Transition.REVOKE, Transition.CONFIRM):
        await ledger.requests.advance(request.id, command_for(transition, request))
    await finish_tasks(ledger)
    limits = {"up_to_event": await ledger.audit.last_event() - 1} if kept_by == "feed" else {}
    if kept_by.endswith("alert"):
        await ledger.alerts.raise_alert(AlertDraft(cause="x", what="late", request_id=request.id))
        await finish_tasks(ledger)
    clock.turn(11 * DAY)
    if kept_by == "task":
        row = {"kind": "update_card", "lock_key": "message:1", "request_id": request.id, "payload": {}, "attempts": 0}
        await execute(ledger, insert(tasks).values(due_at=clock.time, created_at=clock.time, **row))
    if kept_by == "young alert":
        await ledger.alerts.resolve("x", "over")
        await finish_tasks(ledger)
    if kept_by == "event":
        await ledger.audit.record(AuditKind.CLICK_REFUSED, actor="U1", request_id=request.id)
        await finish_tasks(ledger)
    if kept_by == "extension":
        await ledger.requests.advance(extension.id, command_for(Transition.TIME_OUT, extension))
        await finish_tasks(ledger)
    assert (await remove(ledger, clock, 10 * DAY, **limits))[0] == 0
    assert await is_there(ledger, request.id)
    if kept_by == "review":
        await ledger.requests.advance(request.id, command_for(Transition.SIGN_OFF, request))
    await ledger.alerts.resolve("x", "over")
    await finish_tasks(ledger)
    clock.turn(11 * DAY)
    assert (await remove(ledger, clock, 10 * DAY))[0] > 0
    assert not await is_there(ledger, request.id)


async def test_large_removals_are_many_small_transactions(
    ledger: Ledger, clock: TurnableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "AT_ONCE", 3)
    monkeypatch.setattr(retention, "EVENTS_AT_ONCE", 4)
    for number in range(10):
        clock.turn(timedelta(seconds=1))
        await bring(ledger, clock, State.CANCELLED)
        await ledger.audit.record(AuditKind.SWEPT, actor="bot", facts={"number": number})
    live = await bring(ledger, clock, State.ACTIVE)
    await finish_tasks(ledger)
    clock.turn(11 * DAY)
    young = await bring(ledger, clock, State.CANCELLED)
    await ledger.audit.record(AuditKind.SWEPT, actor="bot")
    first = await ledger.retention.remove(clock.time - 10 * DAY)
    assert (first.requests, first.events) == (3, 4)
    assert await remove(ledger, clock, 10 * DAY) == (7, 6)
    assert await is_there(ledger, live.id)
    assert await is_there(ledger, young.id)
    kinds = [event.kind for event in await ledger.audit.events_after(0, limit=100)]
    assert kinds.count(AuditKind.SWEPT) == 1
    removed = [
        one.facts for one in await ledger.audit.events_after(0, limit=100) if one.kind == AuditKind.ENTRIES_REMOVED
    ]
    assert sum(facts["requests"] for facts in removed) == 10
    await finish_tasks(ledger)
    clock.turn(100 * DAY)
    assert await remove(ledger, clock, 10 * DAY) == (1, 1), "the records of removals stay"


async def test_a_request_that_changes_meanwhile_stays(
    ledger: Ledger, clock: TurnableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the removal somebody clicks: the removal looks again."""
    request = await bring(ledger, clock, State.CANCELLED)
    await finish_tasks(ledger)
    clock.turn(11 * DAY)
    write = ledger.database.write

    async def click_first(*args: object, **options: object) -> object:
        monkeypatch.undo()
        await ledger.audit.record(AuditKind.CLICK_REFUSED, actor="U1", request_id=request.id)
        return await write(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(ledger.database, "write", click_first)
    assert await remove(ledger, clock, 10 * DAY) == (0, 0)
    assert await is_there(ledger, request.id)


@pytest.mark.parametrize(
    ("text", "days"), [("400d", 400), ("7d", 7), ("3660d", 3660), ("6d", None), ("3661d", None), ("1h", None)]
)
def test_the_policy_keeps_entries_for_a_week_to_ten_years(text: str, days: int | None) -> None:
    raw = {"rules": [], "retention": text}
    if days is None:
        with pytest.raises(ValidationError, match="from 7d to 3660d"):
            PolicyFile.model_validate(raw)
    else:
        assert PolicyFile.model_validate(raw).retention == timedelta(days=days)
