"""From approval to credentials, and what happens when something on the way does not answer."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta

import pytest

from adapters.base import Blocked, Rejected
from bot.access import password, revoke
from bot.access.errors import TooLate, Unknown
from bot.access.ports import (
    AlertNotice,
    ClosedNotice,
    CredentialsNotice,
    Delayed,
    DeliveryError,
    Notice,
    PreparingNotice,
    TurnNotice,
    Undeliverable,
)
from bot.access.registry import JOBS
from bot.access.runner import LEASE, Runner
from storage.records import Cause, State
from tests.access.fake_engine import User
from tests.access.house import ADA, ALERTS, HOUR, LEAD, SECOND, House


async def test_an_unreachable_server_gets_the_full_time_on_return(house: House) -> None:
    request = await house.approve(await house.ask())
    house.server.is_up = False
    await house.turn(minutes=20)
    told = house.message()
    assert isinstance(told, PreparingNotice)
    assert told.trouble is not None
    assert "your time starts when it does" in told.trouble
    house.server.is_up = True
    await house.turn(minutes=2)
    live = await house.now(request)
    assert live.state is State.ACTIVE
    assert live.expires_at is not None
    assert live.started_at is not None
    assert live.expires_at - live.started_at == HOUR
    assert house.server.users[str(live.username)].expires_at == live.expires_at


async def test_it_fails_after_provision_within_and_nothing_was_made(house: House) -> None:
    request = await house.approve(await house.ask())
    house.server.is_up = False
    await house.turn(hours=1)
    failed = await house.now(request)
    assert (failed.state, failed.ended_because) == (State.REVOKED, Cause.FAILED)
    assert failed.receipt == {"nothing_made": True}
    assert isinstance(house.message(), ClosedNotice)
    assert house.wall.on(ADA, TurnNotice)[-1].request.ended_because is Cause.FAILED


async def test_who_left_before_the_start_gets_nothing(house: House) -> None:
    request = await house.approve(await house.ask())
    house.people.leaves(ADA)
    await house.drain()
    assert house.server.users == {}
    assert (await house.now(request)).ended_because is Cause.LEFT


async def test_a_silent_directory_grants_nothing_until_it_speaks(house: House) -> None:
    request = await house.approve(await house.ask())
    house.people.is_silent = True
    await house.turn(minutes=5)
    assert house.server.users == {}
    house.people.is_silent = False
    await house.turn(minutes=2)
    assert (await house.now(request)).state is State.ACTIVE


async def test_without_a_way_to_deliver_no_user_is_made(house: House) -> None:
    request = await house.approve(await house.ask())
    house.wall.refuse = lambda _place, notice: (
        Undeliverable("messages_tab_disabled") if isinstance(notice, PreparingNotice) else None
    )
    made: list[str] = []
    house.server.step = made.append
    await house.drain()
    assert (await house.now(request)).ended_because is Cause.FAILED
    assert "before create" not in made


async def test_credentials_that_cannot_be_shown_are_taken_back_after_five_minutes(house: House) -> None:
    request = await house.approve(await house.ask())
    house.wall.refuse = lambda _place, notice: (
        Delayed("Slack does not answer") if isinstance(notice, CredentialsNotice) else None
    )
    await house.turn(minutes=1)
    assert house.server.users
    await house.turn(minutes=6)
    assert house.server.users == {}
    assert (await house.now(request)).ended_because is Cause.FAILED


async def test_what_the_server_refuses_fails_with_its_words(house: House) -> None:
    request = await house.approve(await house.ask())
    house.server.rejects = Rejected("the role reader does not exist", mend="CREATE ROLE reader")
    await house.turn(minutes=1)
    failed = await house.now(request)
    assert failed.ended_because is Cause.FAILED
    assert "the role reader does not exist" in str(failed.ended_words)


async def test_a_deleted_message_is_posted_anew(house: House) -> None:
    request = await house.approve(await house.ask())
    real_post, lost = house.wall.post, []

    async def post_and_lose(channel: str, notice: Notice) -> object:
        posted = await real_post(channel, notice)
        if isinstance(notice, PreparingNotice) and len(house.wall.on(ADA, PreparingNotice)) == 1 and not lost:
            lost.append(posted)
            del house.wall.shown[posted.channel, posted.ts]
        return posted

    house.wall.post = post_and_lose  # type: ignore[method-assign,assignment]
    await house.drain()
    assert house.login(await house.now(request)) is not None


# A new password.


async def test_a_new_password_ends_the_old_one_and_sessions_live_on(house: House) -> None:
    request = await house.granted()
    old, session = house.credentials().password, house.login(request)
    await password.renew(house.context, await house.person(ADA), request)
    await house.drain()
    assert house.credentials().password != old
    assert house.login(request) is not None
    assert house.server.login(str(request.username), old) is None
    assert session in house.server.sessions


async def test_a_new_password_is_for_the_requester_of_a_live_grant(house: House) -> None:
    request = await house.granted()
    with pytest.raises(Unknown):
        await password.renew(house.context, await house.person(LEAD), request)
    await revoke.done(house.context, await house.person(ADA), request.id)
    with pytest.raises(TooLate):
        await password.renew(house.context, await house.person(ADA), request)


async def test_a_password_asked_for_before_the_end_revives_nothing(house: House) -> None:
    request = await house.granted()
    await password.renew(house.context, await house.person(ADA), request)
    await revoke.revoke(house.context, await house.person(LEAD), request.id)
    await house.drain()
    assert house.server.users == {}
    assert isinstance(house.message(), ClosedNotice)


# Statements that land late, claims that were lost.


async def test_a_create_that_lands_after_the_end_is_found(house: House) -> None:
    request = await house.approve(await house.ask())
    house.server.loses_answers = True
    await house.drain()
    await revoke.done(house.context, await house.person(ADA), request.id)
    await house.drain()
    assert (await house.now(request)).state is State.REVOKING, "not confirmed while the create may still land"
    house.server.land()
    assert house.server.users
    await house.turn(seconds=30)
    assert house.server.users == {}
    assert (await house.now(request)).state is State.REVOKED


async def test_a_lost_claim_over_a_live_grant_leaves_a_password_that_works(house: House) -> None:
    request = await house.approve(await house.ask())
    gate = house.server.gate = threading.Event()
    hung = asyncio.create_task(house.runner.drain())
    while house.server.gate is not None:
        await asyncio.sleep(0.01)
    house.clock.at += LEASE + timedelta(seconds=1)
    await Runner(house.context, JOBS).drain()
    live = await house.now(request)
    assert live.state is State.ACTIVE
    session = house.login(live)
    gate.set()
    await hung
    assert session in house.server.sessions, "the late worker did not wipe the live grant"
    await house.drain()
    assert house.login(live) is not None, "the message has a password that works"


async def test_a_lost_claim_over_an_ended_grant_leaves_no_user(house: House) -> None:
    request = await house.approve(await house.ask())
    gate = house.server.gate = threading.Event()
    hung = asyncio.create_task(house.runner.drain())
    while house.server.gate is not None:
        await asyncio.sleep(0.01)
    house.clock.at += LEASE + timedelta(seconds=1)
    other = Runner(house.context, JOBS)
    await revoke.done(house.context, await house.person(ADA), request.id)
    await other.drain()
    house.clock.at += timedelta(seconds=60)
    await other.drain()
    gate.set()
    await hung
    await house.turn(minutes=1)
    assert house.server.users == {}
    assert (await house.now(request)).state is State.REVOKED


async def test_an_end_that_comes_while_the_user_is_made_wins(house: House) -> None:
    request = await house.approve(await house.ask())
    gate = house.server.gate = threading.Event()
    making = asyncio.create_task(house.runner.drain())
    while house.server.gate is not None:
        await asyncio.sleep(0.01)
    await revoke.revoke(house.context, await house.person(SECOND), request.id)
    gate.set()
    await making
    await house.turn(minutes=1)
    assert house.server.users == {}
    assert isinstance(house.message(), ClosedNotice)


# Ending.


async def test_an_end_never_gives_up_and_says_what_to_do(house: House) -> None:
    request = await house.granted()
    house.server.is_up = False
    await revoke.done(house.context, await house.person(ADA), request.id)
    await house.turn(minutes=10)
    alerts = house.wall.on(ALERTS, AlertNotice)
    assert "Cannot end #1: shop does not answer" in alerts[0].what
    assert any(f"block the login of {request.username}" in step for step in alerts[0].steps)
    assert isinstance(house.message(), ClosedNotice), "the password goes also while the server is away"
    await house.turn(hours=30)
    assert (await house.now(request)).state is State.REVOKING
    house.server.is_up = True
    await house.turn(minutes=2)
    assert house.server.users == {}
    assert (await house.now(request)).state is State.REVOKED


async def test_another_server_at_the_address_is_an_alert_and_no_success(house: House) -> None:
    request = await house.granted()
    house.server.identity = "server-2"
    await revoke.done(house.context, await house.person(ADA), request.id)
    await house.turn(minutes=1)
    assert (await house.now(request)).state is State.REVOKING
    assert "this is server server-2" in house.wall.on(ALERTS, AlertNotice)[0].what
    house.server.identity = "server-1"
    await house.turn(minutes=2)
    assert (await house.now(request)).state is State.REVOKED


async def test_an_end_that_is_held_up_names_the_holder_and_does_not_blame_the_server(house: House) -> None:
    request = await house.granted()
    house.server.holds_up = Blocked("held up by session 7 of dba", remedy="SELECT pg_terminate_backend(7);")
    await revoke.done(house.context, await house.person(ADA), request.id)
    await house.turn(minutes=1)
    alert = house.wall.on(ALERTS, AlertNotice)[0]
    assert alert.what == f"Cannot end #{request.id} on shop: held up by session 7 of dba."
    assert alert.steps[0] == "SELECT pg_terminate_backend(7);"
    house.server.holds_up = None
    await house.turn(minutes=2)
    assert (await house.now(request)).state is State.REVOKED


async def test_a_user_that_lost_its_mark_is_ended(house: House) -> None:
    """The ledger froze its name and recorded its start: a mark that cannot be read keeps no user alive."""
    request = await house.granted()
    house.server.users[str(request.username)].ledger = None
    await revoke.done(house.context, await house.person(ADA), request.id)
    await house.drain()
    assert house.server.users == {}
    assert (await house.now(request)).state is State.REVOKED


async def test_a_user_of_another_ledger_is_never_touched(house: House) -> None:
    request = await house.approve(await house.ask())
    foreign = house.server.users[str(request.username)] = User("theirs", "another", 0, (), house.clock.at + HOUR)
    await house.turn(minutes=2)
    assert house.server.users == {str(request.username): foreign}
    assert (await house.now(request)).ended_because is Cause.FAILED
    assert "It was not touched" in house.wall.on(ALERTS, AlertNotice)[0].what


async def test_a_user_somebody_else_dropped_is_an_alert(house: House) -> None:
    request = await house.granted()
    house.server.users.clear()
    await revoke.done(house.context, await house.person(ADA), request.id)
    await house.drain()
    assert (await house.now(request)).state is State.REVOKED
    assert "was already gone" in house.wall.on(ALERTS, AlertNotice)[0].what


async def test_a_database_gone_from_the_file_is_still_ended(house: House) -> None:
    request = await house.granted()
    house.databases["databases"]["other"] = house.databases["databases"].pop("shop")
    house.policy["rules"][0]["databases"] = ["other"]
    house.write()
    await house.turn(hours=1)
    assert house.server.users == {}
    assert (await house.now(request)).state is State.REVOKED


async def test_a_closed_channel_asks_the_approvers_and_tells_the_requester(house: House) -> None:
    def refuse(place: str, _notice: Notice) -> DeliveryError | None:
        return Undeliverable("not_in_channel") if place == "C0CARDS" else None

    house.wall.refuse = refuse
    request = await house.ask()
    assert house.wall.on(LEAD)
    assert house.wall.on(SECOND)
    assert "asked the approvers directly" in str(house.wall.on(ADA, TurnNotice)[0].trouble)
    assert "Invite the bot" in str(house.wall.on(ALERTS, AlertNotice)[0].steps)
    await house.approve(request, LEAD)
    await house.drain()
    assert (await house.now(request)).state is State.ACTIVE
