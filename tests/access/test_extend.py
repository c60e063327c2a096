"""More time for a live grant: asked, approved, moved in the ledger and on the server; and what meets its end."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from bot.access import decide, extend, revoke
from bot.access.errors import Refused, TooLate, Unknown
from bot.access.ports import AlertNotice, CardNotice, TurnNotice
from bot.access.request_access import FormNeeded, Typed
from storage.audit_log import AuditKind
from storage.records import Kind, Request, State
from tests.access.house import ADA, ALERTS, CARDS, HOUR, LEAD, STRANGER, House

WHY = "the refund takes longer"


async def more(house: House, grant: Request, who: str = ADA, duration: timedelta | None = HOUR) -> Request:
    typed = Typed(duration=duration, reason=WHY)
    asked = await extend.extend(house.context, await house.person(who), grant.id, typed)
    await house.drain()
    return await house.now(asked.request)


def server_end(house: House, request: Request) -> Any:
    return house.server.users[str(request.username)].expires_at


async def test_the_end_moves_in_the_ledger_and_on_the_server_and_the_session_lives(house: House) -> None:
    grant = await house.granted()
    session = house.server.login(str(grant.username), house.server.users[str(grant.username)].password)
    asked = await more(house, grant)
    assert (asked.kind, asked.state, asked.parent_id) == (Kind.EXTENSION, State.PENDING, grant.id)
    assert (await house.approve(asked)).state is State.APPLIED
    await house.drain()
    after = await house.now(grant)
    assert grant.expires_at is not None
    assert after.expires_at == grant.expires_at + HOUR == server_end(house, grant)
    assert session in house.server.sessions
    told = [n for n in house.wall.on(ADA, TurnNotice) if n.request.id == asked.id]
    assert [n.grant.expires_at for n in told if n.grant] == [after.expires_at]
    await house.turn(minutes=90)
    assert (await house.now(grant)).state is State.ACTIVE
    await house.turn(minutes=31)
    assert (await house.now(grant)).state is State.REVOKED
    assert house.server.users == {}


async def test_only_its_requester_and_only_while_it_lives(house: House) -> None:
    grant = await house.granted()
    with pytest.raises(Unknown):
        await more(house, grant, STRANGER)
    asked = await more(house, grant)
    with pytest.raises(Unknown):
        await more(house, asked)
    await revoke.done(house.context, await house.person(ADA), grant.id)
    await house.drain()
    with pytest.raises(TooLate):
        await more(house, grant)
    assert (await house.now(asked)).state is State.LAPSED
    assert "has ended" in str((await house.now(asked)).ended_words)


async def test_nobody_extends_for_themselves(house: House) -> None:
    grant = await house.granted()
    asked = await more(house, grant)
    with pytest.raises(Refused, match="your own"):
        await house.approve(asked, ADA)
    denied = await decide.deny(house.context, await house.person(LEAD), asked, "no more today")
    assert denied.state is State.DENIED
    assert (await house.now(grant)).expires_at == grant.expires_at


async def test_the_whole_life_of_a_grant_is_bounded(house: House) -> None:
    house.policy["rules"][0]["max_total"] = "2h30m"
    house.write()
    grant = await house.granted()
    await house.approve(await more(house, grant))
    await house.drain()
    with pytest.raises(Refused, match="at most 30 min"):
        await more(house, grant)
    assert (await more(house, grant, duration=None)).terms.duration == HOUR / 2
    assert (await house.now(grant)).state is State.ACTIVE


async def test_a_reason_is_needed(house: House) -> None:
    grant = await house.granted()
    with pytest.raises(FormNeeded) as needed:
        await extend.extend(house.context, await house.person(ADA), grant.id, Typed(duration=HOUR))
    assert needed.value.grant == grant


async def test_one_that_meets_the_end_loses_cleanly(house: House) -> None:
    grant = await house.granted()
    asked = await more(house, grant)
    house.clock.at += HOUR  # the end has come, and nobody has noticed
    with pytest.raises(TooLate):
        await house.approve(asked)
    await house.drain()
    assert (await house.now(grant)).state is State.REVOKED
    assert (await house.now(asked)).state is State.LAPSED


async def test_one_that_comes_a_moment_before_the_end_wins(house: House) -> None:
    grant = await house.granted()
    asked = await more(house, grant)
    house.clock.at += HOUR - timedelta(seconds=1)
    await house.approve(asked)
    house.clock.at += timedelta(seconds=2)
    await house.drain()
    assert (await house.now(grant)).state is State.ACTIVE
    assert house.server.users


async def test_a_level_that_changed_is_not_extended(house: House) -> None:
    grant = await house.granted()
    house.databases["databases"]["shop"]["levels"]["readonly"] = {"roles": ["writer"]}
    house.write()
    with pytest.raises(Refused, match="was changed since"):
        await more(house, grant)


async def test_approved_by_the_policy_where_nobody_is_asked(house: House) -> None:
    grant = await house.granted()
    house.policy["rules"][0]["approvals"] = []
    house.write()
    assert (await more(house, grant)).state is State.APPLIED
    assert (await house.now(grant)).expires_at == (grant.expires_at or house.clock.at) + HOUR


async def test_a_server_that_is_away_gets_its_end_later(house: House) -> None:
    grant = await house.granted()
    asked = await more(house, grant)
    house.server.is_up = False
    await house.approve(asked)
    await house.turn(seconds=30)
    assert any("not on the server" in n.what for n in house.wall.on(ALERTS, AlertNotice))
    house.server.is_up = True
    await house.turn(minutes=2)
    assert server_end(house, grant) == (await house.now(grant)).expires_at


async def test_the_record_and_the_cards_show_it(house: House) -> None:
    grant = await house.granted()
    asked = await more(house, grant)
    card = next(n for n in house.wall.on(CARDS, CardNotice) if n.request.id == asked.id)
    assert card.grant is not None
    assert card.grant.id == grant.id
    await house.approve(asked)
    await house.drain()
    kinds = [e.kind for e in await house.ledger.history(grant.id)]
    assert AuditKind.EXTENDED in kinds
    assert (
        next(n for n in house.wall.on(CARDS, CardNotice) if n.request.id == grant.id).request.expires_at
        == (await house.now(grant)).expires_at
    )
