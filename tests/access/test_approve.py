"""Asking and deciding: who may, who may not, and who was slower."""

from __future__ import annotations

import asyncio

import pytest

from bot.access import decide, queries, request_access
from bot.access.errors import OutOfDate, Refused, TooLate
from bot.access.ports import CardNotice, CredentialsNotice, TurnNotice
from storage.audit_log import AuditKind
from storage.records import Cause, State
from tests.access.house import ADA, ADMIN, CARDS, GUEST, HOUR, LEAD, SECOND, STRANGER, House


async def test_the_whole_life(house: House) -> None:
    request = await house.granted()
    assert house.wall.on(CARDS, CardNotice)[0].request.state is State.ACTIVE
    session = house.login(request)
    assert session is not None
    await house.turn(minutes=59, seconds=59)
    assert house.server.sessions == {session: request.username}
    await house.turn(seconds=1)
    assert house.server.users == {}
    assert house.server.sessions == {}
    ended = await house.now(request)
    assert (ended.state, ended.ended_because) == (State.REVOKED, Cause.EXPIRED)
    assert ended.receipt is not None
    assert ended.receipt["sessions_ended"] == 1
    assert house.wall.on(CARDS, CardNotice)[0].request.state is State.REVOKED
    assert not house.wall.on(ADA, CredentialsNotice)
    assert house.wall.on(ADA, TurnNotice)[-1].request.state is State.REVOKED
    assert await house.ledger.tasks() == ()


async def test_nobody_else_may_ask(house: House) -> None:
    with pytest.raises(Refused, match="There is nothing you may ask for"):
        await house.ask(STRANGER)
    assert await house.ledger.requests() == ()
    assert await house.ledger.tasks() == ()


async def test_a_guest_may_nothing(house: House) -> None:
    with pytest.raises(Refused, match="Only members of this workspace"):
        await house.person(GUEST)


async def test_no_answer_from_the_directory_means_no(house: House) -> None:
    house.people.is_silent = True
    with pytest.raises(Refused, match="Slack did not answer"):
        await house.person(ADA)


async def test_a_requester_never_approves_their_own(house: House) -> None:
    request = await house.ask(LEAD)
    with pytest.raises(Refused, match="your own request"):
        await house.approve(request, LEAD)
    assert (await house.now(request)).state is State.PENDING


@pytest.mark.parametrize("who", [STRANGER, ADMIN])
async def test_only_those_the_rule_names_decide(house: House, who: str) -> None:
    request = await house.ask()
    with pytest.raises(Refused, match="Only the approvers named"):
        await house.approve(request, who)
    with pytest.raises(Refused, match="Only the approvers named"):
        await decide.deny(house.context, await house.person(who), request, "no")
    assert house.server.users == {}


async def test_ten_at_once_are_one_decision(house: House) -> None:
    request = await house.ask()
    clicks = [house.approve(request, who) for who in (LEAD, SECOND) * 5]
    done = await asyncio.gather(*clicks, return_exceptions=True)
    assert sum(not isinstance(d, BaseException) for d in done) == 1
    assert all(isinstance(d, TooLate) for d in done if isinstance(d, BaseException))
    await house.drain()
    assert len(house.server.users) == 1
    assert len(await house.ledger.decisions(request.id)) == 1


async def test_two_must_be_two_people(house: House) -> None:
    house.policy["rules"][0]["approvals"] = [{"from": [LEAD, SECOND], "count": 2}]
    house.write()
    request = await house.ask()
    assert (await house.approve(request, LEAD)).state is State.PENDING
    with pytest.raises(Refused, match="A person decides once"):
        await house.approve(request, LEAD)
    assert house.server.users == {}
    assert (await house.approve(request, SECOND)).state is State.APPROVED


async def test_the_second_click_learns_what_happened(house: House) -> None:
    request = await house.ask()
    await house.approve(request, LEAD)
    with pytest.raises(TooLate, match="#1 was approved by @lead a moment ago"):
        await house.approve(request, SECOND)


async def test_an_approver_removed_since_the_card_is_refused(house: House) -> None:
    request = await house.ask()
    house.policy["rules"][0]["approvals"] = [{"from": [SECOND], "count": 1}]
    house.write()
    with pytest.raises(Refused, match="Only the approvers named"):
        await house.approve(request, LEAD)
    assert (await house.approve(request, SECOND)).state is State.APPROVED


@pytest.mark.parametrize("change", ["roles", "rule", "count", "gone", "shorter"])
async def test_what_changed_since_the_card_is_outdated_and_both_are_told(house: House, change: str) -> None:
    request = await house.ask()
    rule, shop = house.policy["rules"][0], house.databases["databases"]["shop"]
    if change == "roles":
        shop["levels"]["readonly"]["roles"] = ["owner"]
    elif change == "rule":
        rule["name"] = "another"
    elif change == "count":
        rule["approvals"][0]["count"] = 2
    elif change == "gone":
        rule["requesters"] = [SECOND]
        rule["approvals"][0]["from"] = [LEAD, ADMIN]
    else:
        rule["max_duration"] = "30m"
    house.write()
    with pytest.raises(TooLate, match="out of date"):
        await house.approve(request, LEAD)
    await house.drain()
    assert (await house.now(request)).state is State.OUTDATED
    assert house.wall.on(ADA, TurnNotice)[-1].request.state is State.OUTDATED
    assert house.server.users == {}


async def test_deny_says_why(house: House) -> None:
    request = await house.ask()
    await decide.deny(house.context, await house.person(LEAD), request, "not before the freeze ends")
    await house.drain()
    told = house.wall.on(ADA, TurnNotice)[-1]
    assert told.decision is not None
    assert told.decision.reason == "not before the freeze ends"
    with pytest.raises(TooLate, match="was denied by @lead"):
        await house.approve(request, SECOND)


async def test_cancel_and_lapse(house: House) -> None:
    request = await house.ask()
    await request_access.cancel(house.context, await house.person(ADA), request.id)
    with pytest.raises(TooLate, match="was withdrawn by @ada"):
        await house.approve(request, LEAD)
    second = await house.ask()
    house.clock.at += 24 * HOUR
    with pytest.raises(TooLate, match="lapsed"):
        await house.approve(second, LEAD)
    await house.drain()
    assert (await house.now(second)).state is State.LAPSED


async def test_the_same_ask_gets_the_same_number_also_at_once(house: House) -> None:
    first, second = await asyncio.gather(house.ask(), house.ask())
    assert first.id == second.id
    assert (await house.ask(duration=2 * HOUR)).id != first.id


async def test_a_button_of_another_ledger_is_out_of_date(house: House) -> None:
    request = await house.ask()
    assert (await queries.by_token(house.context, request.token)).id == request.id
    for token in (f"{request.id}.0000000000000000", "77.abc", "x", "", f"{request.id}", "9" * 40 + ".a"):
        with pytest.raises(OutOfDate):
            await queries.by_token(house.context, token)


async def test_the_record_names_the_policy_of_the_ask_and_of_the_click(house: House) -> None:
    request = await house.ask()
    asked_by = request.terms.policy_digest
    house.policy["alert_channel"] = "C0OTHER"
    house.write()
    await house.approve(request)
    event = next(e for e in await house.ledger.history(request.id) if e.kind == AuditKind.APPROVED)
    assert event.facts["policy"] == asked_by
    assert house.context.files.config is not None
    assert event.facts["policy_in_force"] == house.context.files.config.digest != asked_by
