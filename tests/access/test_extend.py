"""Extensions of a live grant: requested, approved, applied in the ledger and on the server; and extensions close to the end."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from bot.access import decide, extend, revoke
from bot.access.errors import Refused, TooLate, UnknownRequest
from bot.access.use_case_types import FormNeeded, RequestInput
from bot.notifications.notices import AlertNotice, CardNotice, StateChangeNotice
from storage.audit_kinds import AuditKind
from storage.records import Request, RequestKind, State
from tests.access.environment import ADA, ALERTS, CARDS, HOUR, LEAD, STRANGER, AccessEnvironment

WHY = "the refund takes longer"


async def more(
    environment: AccessEnvironment, grant: Request, who: str = ADA, duration: timedelta | None = HOUR
) -> Request:
    wanted = RequestInput(duration=duration, reason=WHY)
    asked = await extend.extend(environment.context, await environment.person(who), grant.id, wanted)
    await environment.drain()
    return await environment.now(asked.request)


def server_end(environment: AccessEnvironment, request: Request) -> Any:
    return environment.server.users[str(request.username)].expires_at


async def test_extension_moves_the_end_and_keeps_the_session(
    environment: AccessEnvironment,
) -> None:
    grant = await environment.granted()
    session = environment.server.login(str(grant.username), environment.server.users[str(grant.username)].password)
    asked = await more(environment, grant)
    assert (asked.kind, asked.state, asked.parent_id) == (RequestKind.EXTENSION, State.PENDING, grant.id)
    assert (await environment.approve(asked)).state is State.APPLIED
    await environment.drain()
    after = await environment.now(grant)
    assert grant.expires_at is not None
    assert after.expires_at == grant.expires_at + HOUR == server_end(environment, grant)
    assert session in environment.server.sessions
    told = [n for n in environment.messenger.on(ADA, StateChangeNotice) if n.request.id == asked.id]
    assert [n.grant.expires_at for n in told if n.grant] == [after.expires_at]
    await environment.turn(minutes=90)
    assert (await environment.now(grant)).state is State.ACTIVE
    await environment.turn(minutes=31)
    assert (await environment.now(grant)).state is State.REVOKED
    assert environment.server.users == {}


async def test_only_the_requester_extends_a_live_grant(environment: AccessEnvironment) -> None:
    grant = await environment.granted()
    with pytest.raises(UnknownRequest):
        await more(environment, grant, STRANGER)
    asked = await more(environment, grant)
    with pytest.raises(UnknownRequest):
        await more(environment, asked)
    await revoke.done(environment.context, await environment.person(ADA), grant.id)
    await environment.drain()
    with pytest.raises(TooLate):
        await more(environment, grant)
    assert (await environment.now(asked)).state is State.LAPSED
    assert "has ended" in str((await environment.now(asked)).ended_note)


async def test_requester_cannot_approve_own_extension(environment: AccessEnvironment) -> None:
    grant = await environment.granted()
    asked = await more(environment, grant)
    with pytest.raises(Refused, match="your own"):
        await environment.approve(asked, ADA)
    denied = await decide.deny(environment.context, await environment.person(LEAD), asked, "no more today")
    assert denied.state is State.DENIED
    assert (await environment.now(grant)).expires_at == grant.expires_at


async def test_extension_stays_within_max_total(environment: AccessEnvironment) -> None:
    environment.policy["rules"][0]["max_total"] = "2h30m"
    environment.write()
    grant = await environment.granted()
    await environment.approve(await more(environment, grant))
    await environment.drain()
    with pytest.raises(Refused, match="at most 30 min"):
        await more(environment, grant)
    assert (await more(environment, grant, duration=None)).terms.duration == HOUR / 2
    assert (await environment.now(grant)).state is State.ACTIVE


async def test_extension_needs_a_reason(environment: AccessEnvironment) -> None:
    grant = await environment.granted()
    with pytest.raises(FormNeeded) as needed:
        await extend.extend(environment.context, await environment.person(ADA), grant.id, RequestInput(duration=HOUR))
    assert needed.value.grant == grant


async def test_extension_approved_after_the_end_is_refused(environment: AccessEnvironment) -> None:
    grant = await environment.granted()
    asked = await more(environment, grant)
    environment.clock.at += HOUR  # the end has come, and nobody has noticed
    with pytest.raises(TooLate):
        await environment.approve(asked)
    await environment.drain()
    assert (await environment.now(grant)).state is State.REVOKED
    assert (await environment.now(asked)).state is State.LAPSED


async def test_extension_approved_just_before_the_end_applies(environment: AccessEnvironment) -> None:
    grant = await environment.granted()
    asked = await more(environment, grant)
    environment.clock.at += HOUR - timedelta(seconds=1)
    await environment.approve(asked)
    environment.clock.at += timedelta(seconds=2)
    await environment.drain()
    assert (await environment.now(grant)).state is State.ACTIVE
    assert environment.server.users


async def test_changed_level_is_not_extended(environment: AccessEnvironment) -> None:
    grant = await environment.granted()
    environment.databases["databases"]["shop"]["levels"]["readonly"] = {"roles": ["writer"]}
    environment.write()
    with pytest.raises(Refused, match="was changed since"):
        await more(environment, grant)


async def test_extension_without_approvers_is_approved_by_the_policy(environment: AccessEnvironment) -> None:
    grant = await environment.granted()
    environment.policy["rules"][0]["approvals"] = []
    environment.write()
    assert (await more(environment, grant)).state is State.APPLIED
    assert (await environment.now(grant)).expires_at == (grant.expires_at or environment.clock.at) + HOUR


async def test_server_that_is_down_gets_the_new_end_later(environment: AccessEnvironment) -> None:
    grant = await environment.granted()
    asked = await more(environment, grant)
    environment.server.is_up = False
    await environment.approve(asked)
    await environment.turn(seconds=30)
    assert any("not on the server" in n.what for n in environment.messenger.on(ALERTS, AlertNotice))
    environment.server.is_up = True
    await environment.turn(minutes=2)
    assert server_end(environment, grant) == (await environment.now(grant)).expires_at


async def test_extension_is_in_the_audit_log_and_on_the_cards(environment: AccessEnvironment) -> None:
    grant = await environment.granted()
    asked = await more(environment, grant)
    card = next(n for n in environment.messenger.on(CARDS, CardNotice) if n.request.id == asked.id)
    assert card.grant is not None
    assert card.grant.id == grant.id
    await environment.approve(asked)
    await environment.drain()
    kinds = [e.kind for e in await environment.ledger.audit.history(grant.id)]
    assert AuditKind.EXTENDED in kinds
    assert (
        next(n for n in environment.messenger.on(CARDS, CardNotice) if n.request.id == grant.id).request.expires_at
        == (await environment.now(grant)).expires_at
    )
