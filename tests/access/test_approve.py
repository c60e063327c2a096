"""Requests and decisions: who may make them, who may not, and what the slower of two callers gets."""

from __future__ import annotations

import asyncio

import pytest

from bot.access import decide, queries, request_access
from bot.access.errors import OutOfDate, Refused, TooLate
from bot.notifications.notices import CardNotice, CredentialsNotice, StateChangeNotice
from storage.audit_kinds import AuditKind
from storage.records import Cause, State
from tests.access.environment import ADA, ADMIN, CARDS, GUEST, HOUR, LEAD, SECOND, STRANGER, AccessEnvironment


async def test_grant_runs_from_request_to_revoked(environment: AccessEnvironment) -> None:
    request = await environment.granted()
    assert environment.messenger.on(CARDS, CardNotice)[0].request.state is State.ACTIVE
    session = environment.login(request)
    assert session is not None
    await environment.turn(minutes=59, seconds=59)
    assert environment.server.sessions == {session: request.username}
    await environment.turn(seconds=1)
    assert environment.server.users == {}
    assert environment.server.sessions == {}
    ended = await environment.now(request)
    assert (ended.state, ended.ended_because) == (State.REVOKED, Cause.EXPIRED)
    assert ended.receipt is not None
    assert ended.receipt.sessions_ended == 1
    assert environment.messenger.on(CARDS, CardNotice)[0].request.state is State.REVOKED
    assert not environment.messenger.on(ADA, CredentialsNotice)
    assert environment.messenger.on(ADA, StateChangeNotice)[-1].request.state is State.REVOKED
    assert await environment.ledger.tasks.all() == ()


async def test_person_outside_the_rule_cannot_request(environment: AccessEnvironment) -> None:
    with pytest.raises(Refused, match="There is nothing you may ask for"):
        await environment.ask(STRANGER)
    assert await environment.ledger.requests.find() == ()
    assert await environment.ledger.tasks.all() == ()


async def test_guest_is_refused(environment: AccessEnvironment) -> None:
    with pytest.raises(Refused, match="Only members of this workspace"):
        await environment.person(GUEST)


async def test_failed_directory_lookup_refuses(environment: AccessEnvironment) -> None:
    environment.people.is_silent = True
    with pytest.raises(Refused, match="Slack did not answer"):
        await environment.person(ADA)


async def test_requester_cannot_approve_own_request(environment: AccessEnvironment) -> None:
    request = await environment.ask(LEAD)
    with pytest.raises(Refused, match="your own request"):
        await environment.approve(request, LEAD)
    assert (await environment.now(request)).state is State.PENDING


@pytest.mark.parametrize("who", [STRANGER, ADMIN])
async def test_only_approvers_of_the_rule_decide(environment: AccessEnvironment, who: str) -> None:
    request = await environment.ask()
    with pytest.raises(Refused, match="Only the approvers named"):
        await environment.approve(request, who)
    with pytest.raises(Refused, match="Only the approvers named"):
        await decide.deny(environment.context, await environment.person(who), request, "no")
    assert environment.server.users == {}


async def test_ten_concurrent_approvals_are_one_decision(environment: AccessEnvironment) -> None:
    request = await environment.ask()
    clicks = [environment.approve(request, who) for who in (LEAD, SECOND) * 5]
    done = await asyncio.gather(*clicks, return_exceptions=True)
    assert sum(not isinstance(d, BaseException) for d in done) == 1
    assert all(isinstance(d, TooLate) for d in done if isinstance(d, BaseException))
    await environment.drain()
    assert len(environment.server.users) == 1
    assert len(await environment.ledger.requests.decisions(request.id)) == 1


async def test_two_approvals_need_two_people(environment: AccessEnvironment) -> None:
    environment.policy["rules"][0]["approvals"] = [{"from": [LEAD, SECOND], "count": 2}]
    environment.write()
    request = await environment.ask()
    assert (await environment.approve(request, LEAD)).state is State.PENDING
    with pytest.raises(Refused, match="A person decides once"):
        await environment.approve(request, LEAD)
    assert environment.server.users == {}
    assert (await environment.approve(request, SECOND)).state is State.APPROVED


async def test_second_click_gets_the_current_state(environment: AccessEnvironment) -> None:
    request = await environment.ask()
    await environment.approve(request, LEAD)
    with pytest.raises(TooLate, match="#1 was approved by @lead a moment ago"):
        await environment.approve(request, SECOND)


async def test_approver_removed_after_the_card_is_refused(environment: AccessEnvironment) -> None:
    request = await environment.ask()
    environment.policy["rules"][0]["approvals"] = [{"from": [SECOND], "count": 1}]
    environment.write()
    with pytest.raises(Refused, match="Only the approvers named"):
        await environment.approve(request, LEAD)
    assert (await environment.approve(request, SECOND)).state is State.APPROVED


@pytest.mark.parametrize("change", ["roles", "rule", "count", "gone", "shorter"])
async def test_changed_policy_outdates_the_request_and_notifies_both(
    environment: AccessEnvironment, change: str
) -> None:
    request = await environment.ask()
    rule, shop = environment.policy["rules"][0], environment.databases["databases"]["shop"]
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
    environment.write()
    with pytest.raises(TooLate, match="out of date"):
        await environment.approve(request, LEAD)
    await environment.drain()
    assert (await environment.now(request)).state is State.OUTDATED
    assert environment.messenger.on(ADA, StateChangeNotice)[-1].request.state is State.OUTDATED
    assert environment.server.users == {}


async def test_denial_shows_its_reason(environment: AccessEnvironment) -> None:
    request = await environment.ask()
    await decide.deny(environment.context, await environment.person(LEAD), request, "not before the freeze ends")
    await environment.drain()
    told = environment.messenger.on(ADA, StateChangeNotice)[-1]
    assert told.decision is not None
    assert told.decision.reason == "not before the freeze ends"
    with pytest.raises(TooLate, match="was denied by @lead"):
        await environment.approve(request, SECOND)


async def test_pending_request_is_cancelled_or_lapses(environment: AccessEnvironment) -> None:
    request = await environment.ask()
    await request_access.cancel(environment.context, await environment.person(ADA), request.id)
    with pytest.raises(TooLate, match="was withdrawn by @ada"):
        await environment.approve(request, LEAD)
    second = await environment.ask()
    environment.clock.at += 24 * HOUR
    with pytest.raises(TooLate, match="lapsed"):
        await environment.approve(second, LEAD)
    await environment.drain()
    assert (await environment.now(second)).state is State.LAPSED


async def test_repeated_request_gets_the_same_id(environment: AccessEnvironment) -> None:
    first, second = await asyncio.gather(environment.ask(), environment.ask())
    assert first.id == second.id
    assert (await environment.ask(duration=2 * HOUR)).id != first.id


async def test_button_of_another_ledger_is_out_of_date(environment: AccessEnvironment) -> None:
    request = await environment.ask()
    assert (await queries.by_token(environment.context, request.token)).id == request.id
    for token in (f"{request.id}.0000000000000000", "77.abc", "x", "", f"{request.id}", "9" * 40 + ".a"):
        with pytest.raises(OutOfDate):
            await queries.by_token(environment.context, token)


async def test_audit_log_names_policy_at_request_and_at_decision(environment: AccessEnvironment) -> None:
    request = await environment.ask()
    asked_by = request.terms.policy_digest
    environment.policy["alert_channel"] = "C0OTHER"
    environment.write()
    await environment.approve(request)
    event = next(e for e in await environment.ledger.audit.history(request.id) if e.kind == AuditKind.APPROVED)
    assert event.facts["policy"] == asked_by
    assert environment.context.files.config is not None
    assert event.facts["policy_in_force"] == environment.context.files.config.digest != asked_by
