"""Access first, review after: loud, one at a time, never extended, and signed off by someone else."""

from __future__ import annotations

import asyncio

import pytest

from bot.access import extend, request_access, review, revoke
from bot.access.errors import Refused, TooLate
from bot.access.ports import AlertNotice, CardNotice, Delayed, GrantedNotice, Notice, ReviewNotice, Undeliverable
from storage.audit_log import AuditKind
from storage.records import Kind, Request, State
from tests.access.house import ADA, ADMIN, ALERTS, CARDS, HOUR, LEAD, SECOND, STRANGER, House

GLASS = {
    "name": "break glass", "break_glass": True, "requesters": [ADA, LEAD], "databases": ["*"], "levels": ["*"],
    "max_duration": "1h", "review": {"from": [SECOND, ADA], "within": "24h"},
}  # fmt: skip


@pytest.fixture
async def house(house: House) -> House:
    house.policy["rules"].append(GLASS)
    house.write()
    return house


async def broken(house: House, who: str = ADA) -> Request:
    typed = request_access.Typed(
        database="shop", level="readonly", duration=HOUR / 2, reason="everything is down", kind=Kind.BREAK_GLASS
    )
    asked = await request_access.request_access(house.context, await house.person(who), typed)
    await house.drain()
    return await house.now(asked.request)


async def sign_off(house: House, request: Request, who: str = SECOND) -> Request:
    return await review.sign_off(house.context, await house.person(who), request)


def alerts(house: House) -> list[str]:
    return [notice.what for notice in house.wall.on(ALERTS, AlertNotice)]


async def test_access_first_and_everybody_is_told(house: House) -> None:
    request = await broken(house)
    assert request.state is State.ACTIVE
    assert [n.request.kind for n in house.wall.on(CARDS, CardNotice)] == [Kind.BREAK_GLASS]
    assert house.wall.on(SECOND, CardNotice), "the reviewer has a card of their own"
    assert not house.wall.on(ADA, CardNotice), "the requester is no reviewer of their own"
    assert house.wall.on(LEAD, GrantedNotice), "who would have been asked is told"
    assert any("@ada broke the glass: #1" in told for told in alerts(house))
    assert {e.facts.get("kind") for e in await house.ledger.history(request.id) if e.facts.get("state")} == {
        "break-glass"
    }


async def test_it_is_signed_off_by_someone_else_and_once(house: House) -> None:
    request = await broken(house)
    for who, words in ((ADA, "your own"), (LEAD, "Only"), (STRANGER, "Only"), (ADMIN, "Only")):
        with pytest.raises(Refused, match=words):
            await sign_off(house, request, who)
    signed = await sign_off(house, request)
    assert signed.reviewed_at is not None
    with pytest.raises(TooLate):
        await sign_off(house, request)
    assert AuditKind.SIGNED_OFF in [e.kind for e in await house.ledger.history(request.id)]
    await house.turn(hours=48)
    assert not any("not signed off" in told for told in alerts(house))


async def test_until_it_is_signed_off_there_is_no_other(house: House) -> None:
    request = await broken(house)
    await revoke.done(house.context, await house.person(ADA), request.id)
    await house.drain()
    with pytest.raises(Refused, match="#1 has not been signed off"):
        await broken(house)
    assert (await broken(house, LEAD)).state is State.ACTIVE, "others are not held up"
    await sign_off(house, request)
    assert (await broken(house)).state is State.ACTIVE


async def test_a_review_that_is_overdue_is_an_alert_every_day(house: House) -> None:
    request = await broken(house)
    await house.turn(hours=23, minutes=59)
    assert not any("not signed off" in told for told in alerts(house))
    await house.turn(hours=49)
    assert sum("not signed off" in told for told in alerts(house)) == 3
    assert len(house.wall.on(SECOND, ReviewNotice)) == 3
    assert (await house.now(request)).state is State.REVOKED
    await sign_off(house, request)
    await house.turn(hours=72)
    assert sum("not signed off" in told for told in alerts(house)) == 3


async def test_it_is_never_extended(house: House) -> None:
    request = await broken(house)
    with pytest.raises(Refused, match="never extended"):
        await extend.extend(
            house.context,
            await house.person(ADA),
            request.id,
            request_access.Typed(duration=HOUR, reason="not yet done"),
        )


async def test_ordinary_rules_and_break_glass_do_not_answer_for_each_other(house: House) -> None:
    with pytest.raises(Refused, match="You may not break the glass for shop"):
        await broken(house, SECOND)
    house.policy["rules"] = [GLASS]
    house.write()
    with pytest.raises(Refused, match="You may not ask for shop"):
        await house.ask()


async def test_an_admin_is_reached_where_no_reviewer_is(house: House) -> None:
    house.wall.refuse = lambda place, _: Undeliverable("closed") if place == SECOND else None
    assert (await broken(house)).state is State.ACTIVE
    assert house.wall.on(ADMIN, CardNotice)


async def test_where_nobody_can_be_told_nothing_is_given(house: House) -> None:
    house.wall.refuse = lambda place, _: Undeliverable("closed") if place in (SECOND, ADMIN, CARDS) else None
    request = await broken(house)
    assert request.state is State.DENIED
    assert "Nobody who could review it" in str(request.ended_words)
    assert house.server.users == {}
    assert any("neither a reviewer nor an admin" in told for told in alerts(house))


async def test_a_slow_slack_is_waited_for_and_gives_nothing_meanwhile(house: House) -> None:
    house.wall.refuse = lambda place, _: Delayed("slow") if place == SECOND else None
    request = await broken(house)
    assert request.state is State.PENDING
    assert house.server.users == {}
    house.wall.refuse = lambda _place, _notice: None
    await house.turn(minutes=2)
    assert (await house.now(request)).state is State.ACTIVE


async def test_it_is_not_counted_in_the_limits(house: House) -> None:
    house.policy["limits"] = {"live_per_person": 1}
    house.write()
    await broken(house)
    assert (await house.granted()).state is State.ACTIVE


async def test_one_that_was_never_given_needs_no_review(house: House) -> None:
    house.server.is_up = False
    request = await broken(house)
    await house.turn(hours=2)
    request = await house.now(request)
    assert request.state is State.REVOKED
    assert not request.needs_review
    with pytest.raises(TooLate, match="never given"):
        await sign_off(house, request)
    house.server.is_up = True
    assert (await broken(house)).state is State.ACTIVE


async def test_one_reviewer_is_enough_whoever_else_slack_keeps_waiting(house: House) -> None:
    house.policy["rules"][1] = {**GLASS, "review": {"from": [SECOND, LEAD, ADMIN], "within": "24h"}}
    house.write()
    house.wall.refuse = lambda place, _: Delayed("slow") if place in (SECOND, ADMIN) else None
    assert (await broken(house)).state is State.ACTIVE
    assert house.wall.on(LEAD, CardNotice)


async def test_two_at_once_are_one(house: House) -> None:
    ada = await house.person(ADA)
    typed = [
        request_access.Typed(
            database="shop", level="readonly", duration=n * HOUR / 4, reason="everything is down", kind=Kind.BREAK_GLASS
        )
        for n in (1, 2, 3)
    ]
    asked = await asyncio.gather(
        *(request_access.request_access(house.context, ada, one) for one in typed), return_exceptions=True
    )
    assert sum(isinstance(one, Refused) for one in asked) == 2
    await house.drain()
    assert len(await house.ledger.live_grants()) == 1


async def test_a_closed_channel_is_alerted_and_the_reviewer_has_the_card(house: House) -> None:
    house.wall.refuse = lambda place, _: Undeliverable("not_in_channel") if place == CARDS else None
    assert (await broken(house)).state is State.ACTIVE
    assert house.wall.on(SECOND, CardNotice)
    assert any("cannot be posted in C0CARDS" in told for told in alerts(house))


async def test_access_waits_for_one_reviewer_and_not_for_all(house: House) -> None:
    """In an emergency the first who was told is enough; the others have their card right after."""
    reviewers = (SECOND, LEAD, ADMIN, STRANGER)
    house.policy["rules"][1] = {**GLASS, "review": {"from": list(reviewers), "within": "24h"}}
    house.write()
    told: dict[str, State] = {}

    def posted(place: str, notice: Notice) -> None:
        if isinstance(notice, CardNotice):
            told.setdefault(place, notice.request.state)

    house.wall.refuse = posted
    assert (await broken(house)).state is State.ACTIVE
    assert sorted(who for who in told if who in reviewers) == sorted(reviewers)
    assert [state for who, state in told.items() if who in reviewers].count(State.PENDING) == 1


async def test_what_a_person_wrote_stands_apart_from_the_facts_of_the_record(house: House) -> None:
    """It can be erased one day; the facts are for ever."""
    await broken(house)
    await house.drain()
    assert "everything is down" not in str([e.facts for e in await house.ledger.events_after(0, limit=1000)])
