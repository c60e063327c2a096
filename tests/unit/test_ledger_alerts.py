"""Alerts of the ledger: one open alert for each cause, which is changed and at last resolved."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import cycle

import pytest

from bot.access.alerts import STEP_MAX, STEPS_MAX, WHAT_MAX, draft_alert
from storage.alerts import Alert, AlertDraft, AlertMessage
from storage.audit_kinds import AuditKind
from storage.ledger import Ledger
from storage.records import Priority, State, Task, TaskKind
from tests.unit.ledgers import HOUR, LEASE, START, TurnableClock, bring
from tests.unit.test_ledger_tasks import SECOND

DOWN = AlertDraft(
    cause="server:a", what="It does not answer.", enforced="Nothing.", steps=("Look at it.",), tries=3, since=START
)


async def shown_by(ledger: Ledger) -> list[Task]:
    return [task for task in await ledger.tasks.all() if task.kind is TaskKind.ALERT]


async def only(ledger: Ledger) -> Alert:
    (found,) = await ledger.alerts.open()
    return found


async def test_a_new_alert_is_stored_with_its_event_and_its_task(ledger: Ledger, clock: TurnableClock) -> None:
    request = await bring(ledger, clock, State.ACTIVE)
    clock.turn(SECOND)
    await ledger.alerts.raise_alert(replace(DOWN, request_id=request.id, next_try_at=START + HOUR))
    alert = await only(ledger)
    assert alert == Alert(
        id=alert.id,
        cause="server:a",
        request_id=request.id,
        what="It does not answer.",
        enforced="Nothing.",
        steps=("Look at it.",),
        statements=(),
        tries=3,
        since=START,
        next_try_at=START + HOUR,
        updated_at=clock(),
        resolved_at=None,
        resolution=None,
        version=1,
        shown_at=alert.shown_at,
    )
    assert await ledger.alerts.get(alert.id) == alert
    event = (await ledger.audit.history(request.id))[-1]
    facts = {"what": alert.what, "tries": 3, "cause": "server:a"}
    assert (event.kind, event.actor, event.facts) == (AuditKind.ALERT, "bot", facts)
    (task,) = await shown_by(ledger)
    assert (task.lock_key, task.payload, task.due_at) == (f"message:alert:{alert.id}", {"alert": alert.id}, clock())
    assert (task.pool, task.priority, task.request_id) == ("alerts", Priority.SAFETY, request.id)


async def test_the_same_cause_changes_the_open_alert(ledger: Ledger, clock: TurnableClock) -> None:
    await ledger.alerts.raise_alert(DOWN)
    first = await only(ledger)
    clock.turn(SECOND)
    await ledger.alerts.raise_alert(DOWN)
    assert await only(ledger) == first, "nothing new: no new version, so no message is edited"
    await ledger.alerts.raise_alert(replace(DOWN, what="Still not.", tries=23, steps=("Look.", "Call.")))
    changed = await only(ledger)
    assert changed == replace(
        first, what="Still not.", tries=23, steps=("Look.", "Call."), version=2, updated_at=clock()
    )
    assert len(await ledger.audit.events_after(0, limit=9)) == 1, "an alert is one event"
    assert len(await shown_by(ledger)) == 1


async def test_an_alert_that_changes_while_its_task_runs_gets_another_task(ledger: Ledger) -> None:
    await ledger.alerts.raise_alert(DOWN)
    running = await ledger.tasks.claim("worker", LEASE)
    assert running is not None
    assert running.task.kind is TaskKind.ALERT
    await ledger.alerts.resolve("server:a", "It answers.")
    await ledger.tasks.finish(running)
    assert len(await shown_by(ledger)) == 1


async def test_a_resolved_alert_is_over_and_the_cause_may_come_again(ledger: Ledger, clock: TurnableClock) -> None:
    assert not await ledger.alerts.resolve("server:a", "nothing was wrong")
    await ledger.alerts.raise_alert(DOWN)
    first = await only(ledger)
    clock.turn(SECOND)
    assert await ledger.alerts.resolve("server:a", "It answers.")
    assert not await ledger.alerts.resolve("server:a", "It answers.")
    over = await ledger.alerts.get(first.id)
    assert over == replace(first, version=2, updated_at=clock(), resolved_at=clock(), resolution="It answers.")
    assert over is not None
    assert not over.is_open
    await ledger.alerts.raise_alert(DOWN)
    again = await only(ledger)
    assert (again.id != first.id, again.version) == (True, 1)


async def test_what_happened_once_is_over_from_the_beginning(ledger: Ledger) -> None:
    for _ in range(2):
        await ledger.alerts.raise_alert(replace(DOWN, is_event=True))
    assert await ledger.alerts.open() == ()
    numbers = [task.payload["alert"] for task in await shown_by(ledger)]
    assert len(set(numbers)) == 2
    assert not await ledger.alerts.resolve("server:a", "over")
    found = await ledger.alerts.get(numbers[0])
    assert found is not None
    assert (found.resolved_at, found.resolution) == (found.updated_at, None)


async def test_one_cause_has_one_open_alert_however_many_raise_it(ledger: Ledger, replica: Ledger) -> None:
    on = cycle((ledger, replica))
    await asyncio.gather(*(next(on).alerts.raise_alert(replace(DOWN, tries=n)) for n in range(12)))
    alert = await only(ledger)
    assert alert.version == 12
    assert len(await ledger.audit.events_after(0, limit=99)) == 1
    assert len(await shown_by(ledger)) == 1


async def test_every_change_has_a_version_of_its_own(ledger: Ledger, replica: Ledger) -> None:
    """A message that shows a version is not edited for it again. Two changes of one version would leave the second unseen."""
    for turn in range(10):
        draft = replace(DOWN, cause=f"server:{turn}")
        await ledger.alerts.raise_alert(draft)
        (before,) = await ledger.alerts.open(prefix=draft.cause)
        _, is_resolved = await asyncio.gather(
            ledger.alerts.raise_alert(replace(draft, what="It changed.")), replica.alerts.resolve(draft.cause, "over")
        )
        after = await ledger.alerts.get(before.id)
        assert after is not None
        assert is_resolved
        reopened = await ledger.alerts.open(prefix=draft.cause)
        assert after.version + sum(one.version for one in reopened) == 3
        for one in reopened:
            assert await ledger.alerts.resolve(one.cause, "over")


async def test_open_alerts_can_be_found_by_the_beginning_of_their_cause(ledger: Ledger) -> None:
    for cause in ("end:1", "end:2", "end_3", "server:a"):
        await ledger.alerts.raise_alert(replace(DOWN, cause=cause))
    assert [alert.cause for alert in await ledger.alerts.open(prefix="end:")] == ["end:1", "end:2"]
    assert [alert.cause for alert in await ledger.alerts.open(prefix="end_")] == ["end_3"]
    assert len(await ledger.alerts.open()) == 4


async def test_each_place_has_one_message_with_the_version_that_it_shows(ledger: Ledger) -> None:
    await ledger.alerts.raise_alert(DOWN)
    number = (await only(ledger)).id
    first = AlertMessage(alert_id=number, place="C01ALERTS", channel="C01ALERTS", ts="1.1", version=1)
    direct = AlertMessage(alert_id=number, place="U01ADMIN", channel="D01", ts="2.2", version=1)
    for message in (first, direct, replace(first, version=2)):
        await ledger.alerts.shown(message)
    found = {message.place: message for message in await ledger.alerts.messages(number)}
    assert found == {"C01ALERTS": replace(first, version=2), "U01ADMIN": direct}
    assert await ledger.alerts.messages(number + 1) == ()


@pytest.mark.parametrize("length", [10, 100_000])
async def test_texts_of_any_length_are_stored_within_their_bounds(ledger: Ledger, length: int) -> None:
    word = "ä" * length
    await ledger.alerts.raise_alert(draft_alert(word, cause="end:1", steps=(word,) * 50, enforced=word))
    alert = await only(ledger)
    assert max(len(alert.what), len(alert.enforced or "")) <= WHAT_MAX
    assert max(map(len, alert.steps)) <= STEP_MAX
    assert len(alert.steps) == STEPS_MAX
    assert alert.what.startswith("ä" * min(length, 100))
