"""Delivery ``reveal``: the password is nowhere until its requester has it shown; a grant at which nobody looks ends."""

from __future__ import annotations

import pytest

from bot.access import password
from bot.access.errors import Refused, TooLate, Unknown
from bot.access.ports import CredentialsNotice
from storage.audit_log import AuditKind
from storage.records import Cause, State
from tests.access.house import ADA, HOUR, LEAD, House


@pytest.fixture
async def house(house: House) -> House:
    house.policy["rules"][0] |= {"delivery": "reveal", "claim_within": "20m"}
    house.write()
    return house


async def test_shown_to_its_requester_alone_counted_and_on_the_record(house: House) -> None:
    request = await house.granted()
    (message,) = house.wall.on(ADA, CredentialsNotice)
    assert message.password is None
    with pytest.raises(Unknown):
        await password.reveal(house.context, await house.person(LEAD), request)
    first = await password.reveal(house.context, await house.person(ADA), request)
    session = house.server.login(str(request.username), first.password)
    assert session
    again = await password.reveal(house.context, await house.person(ADA), request)
    assert (first.times, again.times) == (1, 2)
    assert first.password not in repr(first)
    assert house.server.login(str(request.username), first.password) is None
    assert house.server.login(str(request.username), again.password)
    assert session in house.server.sessions
    kinds = [e.kind for e in await house.ledger.history(request.id)]
    assert kinds.count(AuditKind.PASSWORD_SHOWN) == 2
    await house.drain()
    assert all(n.password is None for n in house.wall.on(ADA, CredentialsNotice))


async def test_a_grant_at_which_nobody_looked_ends(house: House) -> None:
    request = await house.granted()
    await house.turn(minutes=19)
    assert (await house.now(request)).state is State.ACTIVE
    await house.turn(minutes=1)
    ended = await house.now(request)
    assert (ended.state, ended.ended_because) == (State.REVOKED, Cause.UNCLAIMED)
    with pytest.raises(TooLate):
        await password.reveal(house.context, await house.person(ADA), request)


async def test_one_that_was_looked_at_lasts_its_time(house: House) -> None:
    request = await house.granted()
    await password.reveal(house.context, await house.person(ADA), request)
    await house.turn(minutes=59)
    assert (await house.now(request)).state is State.ACTIVE
    await house.turn(minutes=1)
    assert (await house.now(request)).ended_because is Cause.EXPIRED


async def test_a_server_that_is_away_shows_nothing(house: House) -> None:
    request = await house.granted()
    house.server.is_up = False
    with pytest.raises(Refused, match="try again"):
        await password.reveal(house.context, await house.person(ADA), request)
    assert (await house.now(request)).claimed_at is None


async def test_by_dm_there_is_nothing_to_show(house: House) -> None:
    house.policy["rules"][0]["delivery"] = "dm"
    house.write()
    request = await house.granted()
    with pytest.raises(Refused, match="in its credential message"):
        await password.reveal(house.context, await house.person(ADA), request)
    assert request.duration == HOUR
