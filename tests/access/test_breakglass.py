"""Break-glass access: granted first, reviewed afterwards, announced to everybody, one at a time, never extended, signed off by another person."""

from __future__ import annotations

import asyncio

import pytest

from bot.access import extend, request_access, review, revoke, use_case_types
from bot.access.errors import Refused, TooLate
from bot.access.ports import Delayed, DeliveryError, Notice, Undeliverable
from bot.notifications.notices import AlertNotice, CardNotice, GrantedNotice, ReviewNotice
from storage.audit_kinds import AuditKind
from storage.records import Request, RequestKind, State
from tests.access.environment import ADA, ADMIN, ALERTS, CARDS, HOUR, LEAD, SECOND, STRANGER, AccessEnvironment

BREAK_GLASS_RULE = {
    "name": "break glass", "break_glass": True, "requesters": [ADA, LEAD], "databases": ["*"], "levels": ["*"],
    "max_duration": "1h", "review": {"from": [SECOND, ADA], "within": "24h"},
}  # fmt: skip


@pytest.fixture
async def environment(environment: AccessEnvironment) -> AccessEnvironment:
    environment.policy["rules"].append(BREAK_GLASS_RULE)
    environment.write()
    return environment


async def used_break_glass(environment: AccessEnvironment, who: str = ADA) -> Request:
    wanted = use_case_types.RequestInput(
        database="shop", level="readonly", duration=HOUR / 2, reason="everything is down", kind=RequestKind.BREAK_GLASS
    )
    asked = await request_access.request_access(environment.context, await environment.person(who), wanted)
    await environment.drain()
    return await environment.now(asked.request)


async def sign_off(environment: AccessEnvironment, request: Request, who: str = SECOND) -> Request:
    return await review.sign_off(environment.context, await environment.person(who), request)


def alerts(environment: AccessEnvironment) -> list[str]:
    return [notice.what for notice in environment.messenger.on(ALERTS, AlertNotice)]


async def test_break_glass_is_granted_at_once_and_everybody_is_notified(environment: AccessEnvironment) -> None:
    request = await used_break_glass(environment)
    assert request.state is State.ACTIVE
    assert [n.request.kind for n in environment.messenger.on(CARDS, CardNotice)] == [RequestKind.BREAK_GLASS]
    assert environment.messenger.on(SECOND, CardNotice), "the reviewer has a copy of the card"
    assert not environment.messenger.on(ADA, CardNotice), "the requester is no reviewer of the own access"
    assert environment.messenger.on(LEAD, GrantedNotice), "people who would have been asked are notified"
    assert any("@ada used break-glass access: #1" in told for told in alerts(environment))
    assert {
        e.facts.get("kind") for e in await environment.ledger.audit.history(request.id) if e.facts.get("state")
    } == {"break-glass"}


async def test_sign_off_needs_another_person_and_happens_once(environment: AccessEnvironment) -> None:
    request = await used_break_glass(environment)
    for who, words in ((ADA, "your own"), (LEAD, "Only"), (STRANGER, "Only"), (ADMIN, "Only")):
        with pytest.raises(Refused, match=words):
            await sign_off(environment, request, who)
    signed = await sign_off(environment, request)
    assert signed.reviewed_at is not None
    with pytest.raises(TooLate):
        await sign_off(environment, request)
    assert AuditKind.SIGNED_OFF in [e.kind for e in await environment.ledger.audit.history(request.id)]
    await environment.turn(hours=48)
    assert not any("not signed off" in told for told in alerts(environment))


async def test_unsigned_break_glass_blocks_another(environment: AccessEnvironment) -> None:
    request = await used_break_glass(environment)
    await revoke.done(environment.context, await environment.person(ADA), request.id)
    await environment.drain()
    with pytest.raises(Refused, match="#1 has not been signed off"):
        await used_break_glass(environment)
    assert (await used_break_glass(environment, LEAD)).state is State.ACTIVE, "other requesters are not blocked"
    await sign_off(environment, request)
    assert (await used_break_glass(environment)).state is State.ACTIVE


async def test_overdue_review_has_one_alert_until_it_is_signed_off(environment: AccessEnvironment) -> None:
    request = await used_break_glass(environment)
    await environment.turn(hours=23, minutes=59)
    assert not any("not signed off" in told for told in alerts(environment))
    await environment.turn(hours=49)
    assert sum("not signed off" in told for told in alerts(environment)) == 1
    assert len(environment.messenger.on(SECOND, ReviewNotice)) == 3, "the reviewers are reminded every day"
    assert (await environment.now(request)).state is State.REVOKED
    await sign_off(environment, request)
    await environment.turn(hours=72)
    (alert,) = [one for one in environment.messenger.on(ALERTS, AlertNotice) if "not signed off" in one.what]
    assert alert.resolution == "#1 was signed off by @second."


async def test_break_glass_cannot_be_extended(environment: AccessEnvironment) -> None:
    request = await used_break_glass(environment)
    with pytest.raises(Refused, match="never extended"):
        await extend.extend(
            environment.context,
            await environment.person(ADA),
            request.id,
            use_case_types.RequestInput(duration=HOUR, reason="not yet done"),
        )


async def test_ordinary_rules_do_not_apply_to_break_glass(environment: AccessEnvironment) -> None:
    with pytest.raises(Refused, match="You may not use break-glass access for shop"):
        await used_break_glass(environment, SECOND)
    environment.policy["rules"] = [BREAK_GLASS_RULE]
    environment.write()
    with pytest.raises(Refused, match="You may not ask for shop"):
        await environment.ask()


async def test_admin_is_notified_where_no_reviewer_is_reached(environment: AccessEnvironment) -> None:
    environment.messenger.refuse = lambda place, _: Undeliverable("closed") if place == SECOND else None
    assert (await used_break_glass(environment)).state is State.ACTIVE
    assert environment.messenger.on(ADMIN, CardNotice)


async def test_break_glass_is_denied_where_nobody_can_be_notified(environment: AccessEnvironment) -> None:
    environment.messenger.refuse = lambda place, _: Undeliverable("closed") if place in (SECOND, ADMIN, CARDS) else None
    request = await used_break_glass(environment)
    assert request.state is State.DENIED
    assert "Nobody who could review it" in str(request.ended_note)
    assert environment.server.users == {}
    assert any("neither a reviewer nor an admin" in told for told in alerts(environment))


async def test_break_glass_waits_for_a_slow_slack(environment: AccessEnvironment) -> None:
    environment.messenger.refuse = lambda place, _: Delayed("slow") if place == SECOND else None
    request = await used_break_glass(environment)
    assert request.state is State.PENDING
    assert environment.server.users == {}
    environment.messenger.refuse = lambda _place, _notice: None
    await environment.turn(minutes=2)
    assert (await environment.now(request)).state is State.ACTIVE


async def test_nobody_is_said_to_be_asked_about_break_glass(environment: AccessEnvironment) -> None:
    """While a reviewer's message is delayed, a closed channel is an alert, and no message to the requester about approvers."""

    def refuse(place: str, _notice: Notice) -> DeliveryError | None:
        return Delayed("slow") if place == SECOND else Undeliverable("closed") if place == CARDS else None

    environment.messenger.refuse = refuse
    request = await used_break_glass(environment)
    assert request.state is State.PENDING
    assert environment.messenger.on(ALERTS)
    assert environment.messenger.on(ADA) == []


async def test_break_glass_is_not_counted_in_the_limits(environment: AccessEnvironment) -> None:
    environment.policy["limits"] = {"live_per_person": 1}
    environment.write()
    await used_break_glass(environment)
    assert (await environment.granted()).state is State.ACTIVE


async def test_break_glass_never_granted_needs_no_review(environment: AccessEnvironment) -> None:
    environment.server.is_up = False
    request = await used_break_glass(environment)
    await environment.turn(hours=2)
    request = await environment.now(request)
    assert request.state is State.REVOKED
    assert not request.needs_review
    with pytest.raises(TooLate, match="never given"):
        await sign_off(environment, request)
    environment.server.is_up = True
    assert (await used_break_glass(environment)).state is State.ACTIVE


async def test_one_notified_reviewer_is_enough_while_slack_delays_others(environment: AccessEnvironment) -> None:
    environment.policy["rules"][1] = {**BREAK_GLASS_RULE, "review": {"from": [SECOND, LEAD, ADMIN], "within": "24h"}}
    environment.write()
    environment.messenger.refuse = lambda place, _: Delayed("slow") if place in (SECOND, ADMIN) else None
    assert (await used_break_glass(environment)).state is State.ACTIVE
    assert environment.messenger.on(LEAD, CardNotice)


async def test_concurrent_break_glass_requests_are_one(environment: AccessEnvironment) -> None:
    ada = await environment.person(ADA)
    wanted = [
        use_case_types.RequestInput(
            database="shop",
            level="readonly",
            duration=n * HOUR / 4,
            reason="everything is down",
            kind=RequestKind.BREAK_GLASS,
        )
        for n in (1, 2, 3)
    ]
    asked = await asyncio.gather(
        *(request_access.request_access(environment.context, ada, one) for one in wanted), return_exceptions=True
    )
    assert sum(isinstance(one, Refused) for one in asked) == 2
    await environment.drain()
    assert len(await environment.ledger.requests.live_grants()) == 1


async def test_closed_channel_raises_an_alert_and_reviewer_gets_the_card(environment: AccessEnvironment) -> None:
    environment.messenger.refuse = lambda place, _: Undeliverable("not_in_channel") if place == CARDS else None
    assert (await used_break_glass(environment)).state is State.ACTIVE
    assert environment.messenger.on(SECOND, CardNotice)
    assert any("cannot be posted in C0CARDS" in told for told in alerts(environment))


async def test_break_glass_waits_for_one_reviewer_only(environment: AccessEnvironment) -> None:
    """One notified reviewer is enough for the grant. The others get their cards right after it."""
    reviewers = (SECOND, LEAD, ADMIN, STRANGER)
    environment.policy["rules"][1] = {**BREAK_GLASS_RULE, "review": {"from": list(reviewers), "within": "24h"}}
    environment.write()
    told: dict[str, State] = {}

    def posted(place: str, notice: Notice) -> None:
        if isinstance(notice, CardNotice):
            told.setdefault(place, notice.request.state)

    environment.messenger.refuse = posted
    assert (await used_break_glass(environment)).state is State.ACTIVE
    assert sorted(who for who in told if who in reviewers) == sorted(reviewers)
    assert [state for who, state in told.items() if who in reviewers].count(State.PENDING) == 1


async def test_personal_text_is_stored_apart_from_audit_facts(environment: AccessEnvironment) -> None:
    """The text can be erased later; the facts stay for ever."""
    await used_break_glass(environment)
    await environment.drain()
    assert "everything is down" not in str(
        [e.facts for e in await environment.ledger.audit.events_after(0, limit=1000)]
    )
