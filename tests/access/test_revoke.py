"""Revoking a grant: the people who may do it or see it, and that it ends once."""

from __future__ import annotations

import asyncio

import pytest

from bot.access import queries, revoke
from bot.access.errors import OutOfDate, Refused, TooLate, UnknownRequest
from bot.access.ports import Person
from storage.records import Cause, State
from tests.access.environment import ADA, ADMIN, LEAD, SECOND, STRANGER, AccessEnvironment


@pytest.mark.parametrize("who", [LEAD, SECOND, ADMIN])
async def test_approvers_and_admins_revoke_a_grant(environment: AccessEnvironment, who: str) -> None:
    request = await environment.granted()
    session = environment.login(request)
    await revoke.revoke(environment.context, await environment.person(who), request.id)
    await environment.drain()
    assert session not in environment.server.sessions
    assert environment.server.users == {}
    ended = await environment.now(request)
    assert (ended.state, ended.ended_because, ended.ended_by) == (State.REVOKED, Cause.REVOKED, who)


async def test_stranger_neither_sees_nor_revokes_a_grant(environment: AccessEnvironment) -> None:
    request = await environment.granted()
    stranger = await environment.person(STRANGER)
    for verb in (revoke.revoke, revoke.done, queries.status):
        with pytest.raises(UnknownRequest):
            await verb(environment.context, stranger, request.id)
    assert await queries.listing(environment.context, stranger, database="shop") == ()
    assert environment.login(request) is not None, "nothing was ended"


async def test_requester_ends_own_grant_with_done_only(environment: AccessEnvironment) -> None:
    request = await environment.granted()
    with pytest.raises(Refused):
        await revoke.revoke(environment.context, await environment.person(ADA), request.id)
    with pytest.raises(UnknownRequest):
        await revoke.done(environment.context, await environment.person(LEAD), request.id)
    await revoke.done(environment.context, await environment.person(ADA), request.id)
    await environment.drain()
    assert environment.server.users == {}


async def test_concurrent_revocations_are_one(environment: AccessEnvironment) -> None:
    request = await environment.granted()
    people = [await environment.person(who) for who in (LEAD, SECOND, ADMIN)]
    answers = await asyncio.gather(
        *(revoke.revoke(environment.context, person, request.id) for person in people), return_exceptions=True
    )
    assert sum(isinstance(a, TooLate) for a in answers) == 2
    await environment.drain()
    events = [event.kind for event in await environment.ledger.audit.history(request.id)]
    assert len(events) == len(set(events)), "each transition is recorded once"
    with pytest.raises(TooLate, match="has ended"):
        await revoke.revoke(environment.context, people[0], request.id)


async def test_operator_revokes_without_slack(environment: AccessEnvironment, monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator may end every grant, even while Slack hangs or the policy is invalid."""
    request = await environment.granted()

    async def never(*_: object) -> None:
        raise AssertionError("Slack was asked")

    monkeypatch.setattr(environment.people, "members", never)
    monkeypatch.setattr(environment.people, "person", never)
    (environment.folder / "policy.yml").write_text("rules: [")
    await revoke.revoke(environment.context, Person(id="cli:root", name="root", is_member=True), request.id)
    await environment.drain()
    assert environment.server.users == {}


async def test_pending_request_cannot_be_revoked(environment: AccessEnvironment) -> None:
    request = await environment.ask()
    with pytest.raises(TooLate, match="still waiting"):
        await revoke.done(environment.context, await environment.person(ADA), request.id)


async def test_status_shows_sessions_and_works_without_the_server(environment: AccessEnvironment) -> None:
    request = await environment.granted()
    environment.login(request)
    environment.login(request)
    ada = await environment.person(ADA)
    assert (await queries.status(environment.context, ada, request.id)).sessions == 2
    environment.server.is_up = False
    assert (await queries.status(environment.context, ada, request.id)).sessions is None
    assert [r.id for r in await queries.listing(environment.context, ada)] == [request.id]


@pytest.mark.parametrize("token", ["", ".", "1", "1.", "1.wrong", "-1.x", "9" * 30 + ".x", "²." + "x" * 16, "999.x"])
async def test_button_of_another_app_does_nothing(environment: AccessEnvironment, token: str) -> None:
    await environment.ask()
    with pytest.raises(OutOfDate):
        await queries.by_token(environment.context, token)
