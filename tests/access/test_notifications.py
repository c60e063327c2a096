"""Cards, copies, audit feed and alerts: who is notified, in which order, and what happens where a channel is closed."""

from __future__ import annotations

from datetime import timedelta

import pytest

from bot.access.ports import Delayed, Notice, Undeliverable
from bot.notifications.notices import AlertNotice, CardNotice, FeedNotice, ReminderNotice
from storage.audit_kinds import AuditKind
from storage.records import Purpose, State, TaskKind
from tests.access.environment import ADMIN, ALERTS, AUDIT, CARDS, LEAD, SECOND, AccessEnvironment


async def test_approvers_outside_the_channel_get_the_card_by_dm(environment: AccessEnvironment) -> None:
    environment.people.not_in_the_channel = {SECOND}
    request = await environment.ask()
    assert environment.messenger.on(SECOND, CardNotice)
    assert not environment.messenger.on(LEAD)
    await environment.approve(request, LEAD)
    await environment.drain()
    assert [
        n.request.state
        for n in (*environment.messenger.on(SECOND, CardNotice), *environment.messenger.on(CARDS, CardNotice))
    ] == [State.ACTIVE] * 2


async def test_deleted_card_of_a_live_request_is_posted_again(environment: AccessEnvironment) -> None:
    request = await environment.ask()
    environment.messenger.shown.clear()
    await environment.approve(request, LEAD)
    await environment.drain()
    assert [n.request.state for n in environment.messenger.on(CARDS, CardNotice)] == [State.ACTIVE]


async def test_feed_shows_every_event_once_and_in_order(environment: AccessEnvironment) -> None:
    await environment.granted()
    await environment.turn(hours=2)
    told = [e.kind for n in environment.messenger.on(AUDIT, FeedNotice) for e in n.events]
    assert told == [
        AuditKind.REQUESTED,
        AuditKind.APPROVED,
        AuditKind.STARTED,
        AuditKind.ACTIVATED,
        AuditKind.REVOKING,
        AuditKind.REVOKED,
    ]


async def test_feed_posts_at_most_one_message_a_second(environment: AccessEnvironment) -> None:
    await environment.granted()
    assert len(environment.messenger.on(AUDIT, FeedNotice)) == 1
    await environment.turn(seconds=1)
    assert len(environment.messenger.on(AUDIT, FeedNotice)) == 2


async def test_closed_audit_channel_raises_an_alert_and_loses_no_line(environment: AccessEnvironment) -> None:
    def refuse(place: str, _notice: Notice) -> Undeliverable | None:
        return Undeliverable("is_archived") if place == AUDIT else None

    environment.messenger.refuse = refuse
    await environment.granted()
    await environment.turn(minutes=10)
    assert [n.what for n in environment.messenger.on(ALERTS, AlertNotice)] == [
        f"The audit channel {AUDIT} cannot be written: is_archived."
    ]
    environment.messenger.refuse = lambda _place, _notice: None
    await environment.turn(minutes=5)
    told = [e.kind for n in environment.messenger.on(AUDIT, FeedNotice) for e in n.events]
    assert [kind for kind in told if kind != AuditKind.ALERT][:2] == [AuditKind.REQUESTED, AuditKind.APPROVED]


async def test_alert_without_a_channel_goes_to_the_admins(environment: AccessEnvironment) -> None:
    environment.messenger.refuse = lambda place, _notice: (
        Undeliverable("channel_not_found") if place in (CARDS, ALERTS) else None
    )
    await environment.ask()
    assert environment.messenger.on(ADMIN, AlertNotice)


async def test_invalid_configuration_raises_an_alert_and_is_not_in_force(environment: AccessEnvironment) -> None:
    from bot.monitors.configuration import announce_files

    await environment.ask()
    await announce_files(environment.context)
    environment.policy["rules"][0]["surprise"] = True
    environment.write()
    await announce_files(environment.context)
    await environment.drain()
    (alert,) = environment.messenger.on(ALERTS, AlertNotice)
    assert "is not in force" in alert.what
    assert any("surprise" in step for step in alert.steps)
    request = await environment.ask()
    assert (await environment.approve(request, LEAD)).state is State.APPROVED


async def test_ledger_records_the_version_each_message_shows(environment: AccessEnvironment) -> None:
    request = await environment.granted()
    await environment.drain()
    (card,) = await environment.ledger.messages.of(request.id, Purpose.CARD)
    assert card.ts is not None
    assert card.version == (await environment.now(request)).version


# Messages to several places, of which one has to wait for its turn.


def wait_once(environment: AccessEnvironment, place: str, kind: type[Notice]) -> None:
    """The next message of this kind to this place has to wait for its turn."""
    waits = [Delayed("it is not the turn of this message yet", retry_after=3, is_paced=True)]
    environment.messenger.refuse = lambda where, notice: (
        waits.pop() if where == place and isinstance(notice, kind) and waits else None
    )


@pytest.mark.parametrize("busy", [CARDS, SECOND])
async def test_reminder_that_waits_in_one_place_is_posted_once_in_each(
    environment: AccessEnvironment, busy: str
) -> None:
    environment.policy["defaults"]["remind_after"] = "10m"
    environment.write()
    environment.people.not_in_the_channel = {SECOND}
    await environment.ask()
    wait_once(environment, busy, ReminderNotice)
    await environment.turn(minutes=11)
    assert [len(environment.messenger.on(place, ReminderNotice)) for place in (CARDS, SECOND)] == [1, 1]
    wait_once(environment, busy, ReminderNotice)
    await environment.turn(minutes=20)
    assert [len(environment.messenger.on(place, ReminderNotice)) for place in (CARDS, SECOND)] == [2, 2]
    (task,) = [task for task in await environment.ledger.tasks.all() if task.kind is TaskKind.REMIND]
    assert (task.attempts, "posted" in task.payload) == (2, False), "the wait was no try, and the pauses still grow"


async def test_escalation_that_waits_in_one_place_is_recorded_once(environment: AccessEnvironment) -> None:
    environment.policy["rules"][0]["escalate"] = {"after": "20m", "to": [ADMIN]}
    environment.write()
    environment.people.not_in_the_channel = {SECOND}
    request = await environment.ask()
    wait_once(environment, SECOND, ReminderNotice)
    await environment.turn(minutes=25)
    assert [len(environment.messenger.on(place, ReminderNotice)) for place in (CARDS, SECOND)] == [1, 1]
    events = [event.kind for event in await environment.ledger.audit.history(request.id)]
    assert events.count(AuditKind.ESCALATED) == 1
    assert environment.messenger.on(ADMIN, CardNotice)


async def test_message_that_waits_for_its_turn_was_not_tried(environment: AccessEnvironment) -> None:
    wait_once(environment, CARDS, CardNotice)
    await environment.ask()
    (task,) = [task for task in await environment.ledger.tasks.all() if task.kind is TaskKind.POST_CARD]
    assert (task.attempts, task.due_at) == (0, environment.clock() + timedelta(seconds=3))
    await environment.turn(seconds=3)
    assert len(environment.messenger.on(CARDS, CardNotice)) == 1
