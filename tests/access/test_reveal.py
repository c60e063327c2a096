"""Delivery ``reveal``: the password exists only when its requester has it shown. A grant whose password is never shown ends."""

from __future__ import annotations

import pytest

from bot.access import password
from bot.access.errors import Refused, TooLate, UnknownRequest
from bot.notifications.notices import CredentialsNotice
from storage.audit_kinds import AuditKind
from storage.records import Cause, State
from tests.access.environment import ADA, HOUR, LEAD, AccessEnvironment


@pytest.fixture
async def environment(environment: AccessEnvironment) -> AccessEnvironment:
    environment.policy["rules"][0] |= {"delivery": "reveal", "claim_within": "20m"}
    environment.write()
    return environment


async def test_password_is_shown_to_its_requester_only_and_recorded(environment: AccessEnvironment) -> None:
    request = await environment.granted()
    (message,) = environment.messenger.on(ADA, CredentialsNotice)
    assert message.password is None
    with pytest.raises(UnknownRequest):
        await password.reveal(environment.context, await environment.person(LEAD), request)
    first = await password.reveal(environment.context, await environment.person(ADA), request)
    session = environment.server.login(str(request.username), first.password)
    assert session
    again = await password.reveal(environment.context, await environment.person(ADA), request)
    assert (first.times, again.times) == (1, 2)
    assert first.password not in repr(first)
    assert environment.server.login(str(request.username), first.password) is None
    assert environment.server.login(str(request.username), again.password)
    assert session in environment.server.sessions
    kinds = [e.kind for e in await environment.ledger.audit.history(request.id)]
    assert kinds.count(AuditKind.PASSWORD_SHOWN) == 2
    await environment.drain()
    assert all(n.password is None for n in environment.messenger.on(ADA, CredentialsNotice))


async def test_grant_with_unclaimed_password_ends(environment: AccessEnvironment) -> None:
    request = await environment.granted()
    await environment.turn(minutes=19)
    assert (await environment.now(request)).state is State.ACTIVE
    await environment.turn(minutes=1)
    ended = await environment.now(request)
    assert (ended.state, ended.ended_because) == (State.REVOKED, Cause.UNCLAIMED)
    with pytest.raises(TooLate):
        await password.reveal(environment.context, await environment.person(ADA), request)


async def test_grant_with_shown_password_lasts_its_time(environment: AccessEnvironment) -> None:
    request = await environment.granted()
    await password.reveal(environment.context, await environment.person(ADA), request)
    await environment.turn(minutes=59)
    assert (await environment.now(request)).state is State.ACTIVE
    await environment.turn(minutes=1)
    assert (await environment.now(request)).ended_because is Cause.EXPIRED


async def test_server_that_is_down_shows_no_password(environment: AccessEnvironment) -> None:
    request = await environment.granted()
    environment.server.is_up = False
    with pytest.raises(Refused, match="try again"):
        await password.reveal(environment.context, await environment.person(ADA), request)
    assert (await environment.now(request)).claimed_at is None


async def test_password_delivered_by_dm_cannot_be_shown(environment: AccessEnvironment) -> None:
    environment.policy["rules"][0]["delivery"] = "dm"
    environment.write()
    request = await environment.granted()
    with pytest.raises(Refused, match="in its credential message"):
        await password.reveal(environment.context, await environment.person(ADA), request)
    assert request.duration == HOUR
