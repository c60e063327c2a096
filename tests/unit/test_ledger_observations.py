"""The last observations of the monitors: only one of several observers stores a change, with its events and alerts."""

from __future__ import annotations

import asyncio
from itertools import cycle

import pytest

from storage.alerts import AlertDraft
from storage.audit_kinds import AuditKind
from storage.errors import LedgerUnavailable
from storage.ledger import Ledger
from storage.records import TaskKind
from tests.unit.ledgers import TurnableClock

LONG = "@" + "the-people-who-look-after-" * 8
"""A name of a group, longer than Slack's shortest limits and than the names of old ledgers (50 characters)."""


async def test_a_group_is_stored_if_it_is_still_as_it_was_seen(ledger: Ledger, replica: Ledger) -> None:
    one, two = frozenset({"U01", "U02"}), frozenset[str]()
    assert await ledger.observations.groups() == {}
    assert not await ledger.observations.set_group("S01", one, was=two), "there is no such group"
    assert await ledger.observations.set_group("S01", one, was=None)
    assert not await replica.observations.set_group("S01", two, was=None)
    assert await replica.observations.groups() == {"S01": one}
    assert await replica.observations.set_group("S01", two, was=one)
    assert await ledger.observations.groups() == {"S01": two}


async def test_only_one_of_several_observers_stores_a_change(ledger: Ledger, replica: Ledger) -> None:
    """Several replicas see the same change at once. One of them announces it."""
    on = cycle((ledger, replica))
    for was in (None, frozenset({"v0"})):
        outcomes = await asyncio.gather(
            *(next(on).observations.set_group("S01", frozenset({f"new {n}"}), was=was) for n in range(6))
        )
        assert sorted(outcomes) == [False] * 5 + [True]
        stored = (await ledger.observations.groups())["S01"]
        assert await ledger.observations.set_group("S01", frozenset({"v0"}), was=stored)


async def test_a_change_is_stored_with_its_events_and_its_alert(ledger: Ledger, clock: TurnableClock) -> None:
    """All in one transaction: after a crash in between, nobody would announce the change."""
    facts = {"group": "S01", "added": ["U01"], "removed": []}
    alert = AlertDraft(cause="group:S01", what="changed", is_event=True)
    changes = [
        ledger.observations.set_group(
            "S01",
            frozenset({f"U{n}"}),
            was=None,
            events=((AuditKind.GROUP_CHANGED, "slack", facts),),
            alerts=(alert,),
        )
        for n in range(5)
    ]
    assert sum(await asyncio.gather(*changes)) == 1
    found = [(e.kind, e.actor, e.at) for e in await ledger.audit.events_after(0, limit=100)]
    assert found == [(AuditKind.GROUP_CHANGED, "slack", clock()), (AuditKind.ALERT, "bot", clock())]
    (task,) = [task for task in await ledger.tasks.all() if task.kind is TaskKind.ALERT]
    shown = await ledger.alerts.get(task.payload["alert"])
    assert shown is not None
    assert shown.what == "changed"


async def test_a_change_whose_event_cannot_be_stored_is_not_stored(ledger: Ledger) -> None:
    events = ((AuditKind.GROUP_CHANGED, "slack", {"group": object()}),)
    with pytest.raises((LedgerUnavailable, TypeError)):
        await ledger.observations.set_group("S01", frozenset(), was=None, events=events)
    assert await ledger.observations.groups() == {}


async def test_names_of_any_length_that_slack_has_are_told_apart(ledger: Ledger) -> None:
    names = [f"{LONG}{n}" for n in range(2)]
    for n, name in enumerate(names):
        assert await ledger.observations.set_group(name, frozenset({f"U{n}"}), was=None)
        await ledger.observations.pin(name, f"S{n}")
        await ledger.observations.set_cursor(name, n + 1)
    assert await ledger.observations.groups() == {name: frozenset({f"U{n}"}) for n, name in enumerate(names)}
    assert await ledger.observations.pins() == {name: f"S{n}" for n, name in enumerate(names)}
    assert [await ledger.observations.cursor(name) for name in names] == [1, 2]
    await ledger.observations.forget_all_but(names[:1])
    assert set(await ledger.observations.groups()) == set(await ledger.observations.pins()) == {names[0]}


async def test_the_first_group_of_a_handle_stays(ledger: Ledger, replica: Ledger) -> None:
    on = cycle((ledger, replica))
    await asyncio.gather(*(next(on).observations.pin("@leads", f"S{n}") for n in range(6)))
    pinned = await ledger.observations.pins()
    await replica.observations.pin("@leads", "S99")
    assert await ledger.observations.pins() == pinned
    await ledger.observations.forget_all_but(())
    await ledger.observations.pin("@leads", "S99")
    assert await ledger.observations.pins() == {"@leads": "S99"}


async def test_a_cursor_can_be_set_by_several_readers_at_once(ledger: Ledger, replica: Ledger) -> None:
    on = cycle((ledger, replica))
    for turn in range(10):
        await asyncio.gather(*(next(on).observations.set_cursor(f"feed {turn}", 7) for _ in range(8)))
        assert await ledger.observations.cursor(f"feed {turn}") == 7
