"""Who may end a grant, who may see it, and that it is over once and for all."""

from __future__ import annotations

import asyncio

import pytest

from bot.access import queries, revoke
from bot.access.errors import OutOfDate, Refused, TooLate, Unknown
from bot.access.ports import Person
from storage.records import Cause, State
from tests.access.house import ADA, ADMIN, LEAD, SECOND, STRANGER, House


@pytest.mark.parametrize("who", [LEAD, SECOND, ADMIN])
async def test_approvers_and_admins_end_a_grant(house: House, who: str) -> None:
    request = await house.granted()
    session = house.login(request)
    await revoke.revoke(house.context, await house.person(who), request.id)
    await house.drain()
    assert session not in house.server.sessions
    assert house.server.users == {}
    ended = await house.now(request)
    assert (ended.state, ended.ended_because, ended.ended_by) == (State.REVOKED, Cause.REVOKED, who)


async def test_a_stranger_neither_sees_nor_ends_it(house: House) -> None:
    request = await house.granted()
    stranger = await house.person(STRANGER)
    for verb in (revoke.revoke, revoke.done, queries.status):
        with pytest.raises(Unknown):
            await verb(house.context, stranger, request.id)
    assert await queries.listing(house.context, stranger, database="shop") == ()
    assert house.login(request) is not None, "nothing was ended"


async def test_the_requester_ends_their_own_with_done_alone(house: House) -> None:
    request = await house.granted()
    with pytest.raises(Refused):
        await revoke.revoke(house.context, await house.person(ADA), request.id)
    with pytest.raises(Unknown):
        await revoke.done(house.context, await house.person(LEAD), request.id)
    await revoke.done(house.context, await house.person(ADA), request.id)
    await house.drain()
    assert house.server.users == {}


async def test_ended_by_many_at_once_it_ends_once(house: House) -> None:
    request = await house.granted()
    people = [await house.person(who) for who in (LEAD, SECOND, ADMIN)]
    answers = await asyncio.gather(
        *(revoke.revoke(house.context, person, request.id) for person in people), return_exceptions=True
    )
    assert sum(isinstance(a, TooLate) for a in answers) == 2
    await house.drain()
    events = [event.kind for event in await house.ledger.history(request.id)]
    assert len(events) == len(set(events)), "each turn is on the record once"
    with pytest.raises(TooLate, match="has ended"):
        await revoke.revoke(house.context, people[0], request.id)


async def test_the_command_line_asks_slack_for_nothing(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has it may end everything; a Slack that hangs, or a policy that is broken, has no say."""
    request = await house.granted()

    async def never(*_: object) -> None:
        raise AssertionError("Slack was asked")

    monkeypatch.setattr(house.people, "members", never)
    monkeypatch.setattr(house.people, "person", never)
    (house.folder / "policy.yml").write_text("rules: [")
    await revoke.revoke(house.context, Person(id="cli:root", name="root", is_ours=True), request.id)
    await house.drain()
    assert house.server.users == {}


async def test_what_waits_cannot_be_ended(house: House) -> None:
    request = await house.ask()
    with pytest.raises(TooLate, match="still waiting"):
        await revoke.done(house.context, await house.person(ADA), request.id)


async def test_status_shows_the_sessions_and_survives_a_silent_server(house: House) -> None:
    request = await house.granted()
    house.login(request)
    house.login(request)
    ada = await house.person(ADA)
    assert (await queries.status(house.context, ada, request.id)).sessions == 2
    house.server.is_up = False
    assert (await queries.status(house.context, ada, request.id)).sessions is None
    assert [r.id for r in await queries.listing(house.context, ada)] == [request.id]


@pytest.mark.parametrize("token", ["", ".", "1", "1.", "1.wrong", "-1.x", "9" * 30 + ".x", "²." + "x" * 16, "999.x"])
async def test_a_button_that_is_not_ours_does_nothing(house: House, token: str) -> None:
    await house.ask()
    with pytest.raises(OutOfDate):
        await queries.by_token(house.context, token)
