"""Cards, copies, feed and alerts: who is told, in what order, and what happens to a channel that is closed."""

from __future__ import annotations

from bot.access.ports import AlertNotice, CardNotice, FeedNotice, Notice, Undeliverable
from storage.audit_log import AuditKind
from storage.records import Purpose, State
from tests.access.house import ADMIN, ALERTS, AUDIT, CARDS, LEAD, SECOND, House


async def test_approvers_outside_the_channel_get_the_card_themselves(house: House) -> None:
    house.people.not_in_the_channel = {SECOND}
    request = await house.ask()
    assert house.wall.on(SECOND, CardNotice)
    assert not house.wall.on(LEAD)
    await house.approve(request, LEAD)
    await house.drain()
    assert [n.request.state for n in (*house.wall.on(SECOND, CardNotice), *house.wall.on(CARDS, CardNotice))] == [
        State.ACTIVE
    ] * 2


async def test_a_deleted_card_is_posted_anew_while_the_request_lives(house: House) -> None:
    request = await house.ask()
    house.wall.shown.clear()
    await house.approve(request, LEAD)
    await house.drain()
    assert [n.request.state for n in house.wall.on(CARDS, CardNotice)] == [State.ACTIVE]


async def test_the_feed_has_every_turn_once_and_in_order(house: House) -> None:
    await house.granted()
    await house.turn(hours=2)
    told = [e.kind for n in house.wall.on(AUDIT, FeedNotice) for e in n.events]
    assert told == [
        AuditKind.ASKED,
        AuditKind.APPROVED,
        AuditKind.STARTED,
        AuditKind.ACTIVATED,
        AuditKind.REVOKING,
        AuditKind.REVOKED,
    ]


async def test_at_most_one_feed_message_a_second(house: House) -> None:
    await house.granted()
    assert len(house.wall.on(AUDIT, FeedNotice)) == 1
    await house.turn(seconds=1)
    assert len(house.wall.on(AUDIT, FeedNotice)) == 2


async def test_a_closed_audit_channel_loses_no_line_and_is_an_alert(house: House) -> None:
    def refuse(place: str, _notice: Notice) -> Undeliverable | None:
        return Undeliverable("is_archived") if place == AUDIT else None

    house.wall.refuse = refuse
    await house.granted()
    await house.turn(minutes=10)
    assert [n.what for n in house.wall.on(ALERTS, AlertNotice)] == [
        f"The audit channel {AUDIT} cannot be written: is_archived."
    ]
    house.wall.refuse = lambda _place, _notice: None
    await house.turn(minutes=5)
    told = [e.kind for n in house.wall.on(AUDIT, FeedNotice) for e in n.events]
    assert [kind for kind in told if kind != AuditKind.ALERT][:2] == [AuditKind.ASKED, AuditKind.APPROVED]


async def test_an_alert_without_a_channel_goes_to_the_admins(house: House) -> None:
    house.wall.refuse = lambda place, _notice: Undeliverable("channel_not_found") if place in (CARDS, ALERTS) else None
    await house.ask()
    assert house.wall.on(ADMIN, AlertNotice)


async def test_a_broken_change_of_the_files_is_an_alert_and_not_in_force(house: House) -> None:
    from bot.access.alerts import announce_files

    await house.ask()
    await announce_files(house.context)
    house.policy["rules"][0]["surprise"] = True
    house.write()
    await announce_files(house.context)
    await house.drain()
    (alert,) = house.wall.on(ALERTS, AlertNotice)
    assert "is not in force" in alert.what
    assert any("surprise" in step for step in alert.steps)
    request = await house.ask()
    assert (await house.approve(request, LEAD)).state is State.APPROVED


async def test_messages_are_on_record_with_the_version_they_show(house: House) -> None:
    request = await house.granted()
    await house.drain()
    (card,) = await house.ledger.messages(request.id, Purpose.CARD)
    assert card.ts is not None
    assert card.version == (await house.now(request)).version
