"""Transitions whose guards do not hold: swapped stages, a late end, former members, a grant that never started."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from bot.access import extend, password, review
from bot.access.errors import Refused, TooLate
from bot.access.use_case_types import RequestInput
from storage.audit_kinds import AuditKind
from storage.records import Request, State
from tests.access.environment import ADA, HOUR, LEAD, SECOND, STRANGER, AccessEnvironment
from tests.access.steps import BREAK_GLASS_RULE, put_in_force, recorded, refusal_of, use_break_glass
from tests.open_faults import open_fault, require

LEADS, DBAS = "S0LEADS", "S0DBAS"


async def more_time(environment: AccessEnvironment, grant: Request, duration: timedelta = HOUR) -> Request:
    """A pending request for the database."""
    wanted = RequestInput(duration=duration, reason="longer please")
    return (await extend.extend(environment.context, await environment.person(ADA), grant.id, wanted)).request


# Stages of today (R11).


@pytest.fixture
async def staged(environment: AccessEnvironment) -> AccessEnvironment:
    """A rule with two stages: first a lead, then a DBA."""
    environment.people.groups = {LEADS: {LEAD, STRANGER}, DBAS: {SECOND}}
    put_in_force(environment, approvals=[{"from": [LEADS]}, {"from": [DBAS]}])
    return environment


@open_fault("R11", "with swapped stages, two leads have approved and no DBA")
async def test_approval_does_not_count_for_another_stage(staged: AccessEnvironment) -> None:
    request = await staged.approve(await staged.ask(), LEAD)
    put_in_force(staged, approvals=[{"from": [DBAS]}, {"from": [LEADS]}])
    await refusal_of(staged.approve(request, STRANGER))
    assert (await staged.now(request)).state in (State.PENDING, State.OUTDATED)


@open_fault("R11", "the approval still counts after its stage names other people")
async def test_approval_is_dropped_when_its_approver_leaves_the_stage(staged: AccessEnvironment) -> None:
    request = await staged.approve(await staged.ask(), LEAD)
    put_in_force(staged, approvals=[{"from": [STRANGER, "U0FURTHER"]}, {"from": [DBAS]}])
    await refusal_of(staged.approve(request, SECOND))
    assert (await staged.now(request)).state in (State.PENDING, State.OUTDATED)


async def test_approval_stays_while_its_stage_names_the_group(staged: AccessEnvironment) -> None:
    request = await staged.approve(await staged.ask(), LEAD)
    put_in_force(staged, approvals=[{"from": [LEADS, "U0FURTHER"]}, {"from": [DBAS]}])
    assert (await staged.approve(request, SECOND)).state is State.APPROVED


# The subject of a request means the same at the click (R18).


@pytest.mark.parametrize(
    "moved",
    [{"admin_url": "env:OTHER_ADMIN_URL"}, {"admin_role": "superowner"}, {"replicas": ["env:OTHER_REPLICA_URL"]}],
    ids=lambda moved: next(iter(moved)),
)
@open_fault("R18", "it is granted on the server that the name means now")
async def test_request_is_outdated_when_its_database_gets_another_server(
    environment: AccessEnvironment, moved: dict[str, Any]
) -> None:
    request = await environment.ask()
    environment.databases["databases"]["shop"].update(moved)
    put_in_force(environment)
    assert isinstance(await refusal_of(environment.approve(request)), TooLate)
    assert (await environment.now(request)).state is State.OUTDATED


@open_fault("R18", "the click of a person without a right to decide closes the request")
async def test_click_of_a_stranger_does_not_close_the_request(environment: AccessEnvironment) -> None:
    request = await environment.ask()
    put_in_force(environment, approvals=[{"from": [LEAD, SECOND], "count": 2}])
    refused = await refusal_of(environment.approve(request, STRANGER))
    assert isinstance(refused, Refused)
    assert (await environment.now(request)).state is State.PENDING
    assert len(await recorded(environment, AuditKind.CLICK_REFUSED)) == 1


@open_fault("R18", "pending requests do not count: four pending requests become four live grants")
async def test_pending_requests_count_in_the_limit_of_a_person(environment: AccessEnvironment) -> None:
    environment.policy["limits"] = {"live_per_person": 1}
    put_in_force(environment)
    for more in range(4):
        await refusal_of(environment.ask(duration=HOUR + more * HOUR / 60))
    for request in await environment.ledger.requests.pending():
        await environment.approve(request)
    await environment.drain()
    assert len(await environment.ledger.requests.live_grants(person_id=ADA)) == 1


@open_fault("R18", "the limit of a database is not checked when its requests are approved")
async def test_approval_beyond_the_limit_of_a_database_is_refused_for_now(environment: AccessEnvironment) -> None:
    environment.policy["limits"] = {"live_per_database": 1}
    put_in_force(environment)
    first, second = await environment.ask(ADA), await environment.ask(LEAD)
    await environment.approve(first, SECOND)
    assert isinstance(await refusal_of(environment.approve(second, SECOND)), Refused)
    assert (await environment.now(second)).state is State.PENDING


# Each move has all its conditions (R14).


async def test_no_password_is_shown_after_the_end(environment: AccessEnvironment) -> None:
    put_in_force(environment, delivery="reveal", claim_within="50m")
    request = await environment.granted()
    await password.reveal(environment.context, await environment.person(ADA), request)
    environment.clock.at += 2 * HOUR  # its end has not been carried out yet
    refusal = await refusal_of(password.reveal(environment.context, await environment.person(ADA), request))
    assert isinstance(refusal, TooLate)
    assert str(refusal) == f"#{request.id} has reached its end."
    assert len(await recorded(environment, AuditKind.PASSWORD_SHOWN)) == 1


async def test_no_password_is_renewed_after_the_end(environment: AccessEnvironment) -> None:
    request = await environment.granted()
    environment.clock.at += 2 * HOUR
    refusal = await refusal_of(password.renew(environment.context, await environment.person(ADA), request))
    assert isinstance(refusal, TooLate)
    assert str(refusal) == f"#{request.id} has reached its end."


@open_fault("R14", "the membership of the requester is checked before a grant and not before an extension")
async def test_former_member_gets_no_extension(environment: AccessEnvironment) -> None:
    grant = await environment.granted()
    asked = await more_time(environment, grant)
    environment.people.leaves(ADA)
    await refusal_of(environment.approve(asked, LEAD))
    assert (await environment.now(asked)).state is not State.APPLIED
    assert (await environment.now(grant)).expires_at == grant.expires_at


@open_fault("R14", "a sign-off before the start replaces the review of what is done afterwards")
async def test_sign_off_before_the_start_does_not_replace_the_review(environment: AccessEnvironment) -> None:
    environment.policy["rules"].append(dict(BREAK_GLASS_RULE))
    put_in_force(environment)
    environment.server.is_up = False
    request = await use_break_glass(environment)
    require(request.state is State.APPROVED, "it waits for the server")
    await refusal_of(review.sign_off(environment.context, await environment.person(SECOND), request))
    environment.server.is_up = True
    await environment.turn(minutes=5)
    begun = await environment.now(request)
    require(begun.state is State.ACTIVE, "it has begun")
    assert begun.needs_review


async def test_concurrent_extensions_stay_within_max_total(environment: AccessEnvironment) -> None:
    put_in_force(environment, max_total="2h")
    grant = await environment.granted()
    asked = [await more_time(environment, grant), await more_time(environment, grant, timedelta(minutes=59))]
    await asyncio.gather(
        *(environment.approve(one, who) for one, who in zip(asked, (LEAD, SECOND), strict=True)), return_exceptions=True
    )
    await environment.drain()
    after = await environment.now(grant)
    assert after.expires_at is not None
    assert after.started_at is not None
    assert timedelta(minutes=119) <= after.expires_at - after.started_at <= 2 * HOUR
