"""From the approval to the credentials, and what happens where the server or Slack does not answer."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta

import pytest
from sqlalchemy import select

from adapters.base import Blocked, Rejected
from bot.access import password, revoke
from bot.access.errors import TooLate, UnknownRequest
from bot.access.ports import Delayed, DeliveryError, Notice, Posted, Undeliverable
from bot.jobs.registry import JOBS
from bot.jobs.runner import LEASE, Runner
from bot.notifications.notices import AlertNotice, ClosedNotice, CredentialsNotice, PreparingNotice, StateChangeNotice
from storage.records import Cause, Receipt, ReceiptOutcome, State, TaskKind
from storage.schema import tasks
from storage.task_plans import user_lock_key
from tests.access.environment import ADA, ALERTS, HOUR, LEAD, SECOND, AccessEnvironment
from tests.access.fake_engine import User


async def test_grant_gets_its_full_time_after_the_server_returns(environment: AccessEnvironment) -> None:
    request = await environment.approve(await environment.ask())
    environment.server.is_up = False
    await environment.turn(minutes=20)
    told = environment.message()
    assert isinstance(told, PreparingNotice)
    assert told.trouble is not None
    assert "your time starts when it does" in told.trouble
    environment.server.is_up = True
    await environment.turn(minutes=2)
    live = await environment.now(request)
    assert live.state is State.ACTIVE
    assert live.expires_at is not None
    assert live.started_at is not None
    assert live.expires_at - live.started_at == HOUR
    assert environment.server.users[str(live.username)].expires_at == live.expires_at


async def test_grant_fails_after_provision_within_and_no_user_exists(environment: AccessEnvironment) -> None:
    request = await environment.approve(await environment.ask())
    environment.server.is_up = False
    await environment.turn(hours=1)
    failed = await environment.now(request)
    assert (failed.state, failed.ended_because) == (State.REVOKED, Cause.FAILED)
    assert failed.receipt == Receipt(outcome=ReceiptOutcome.NOTHING_CREATED)
    assert isinstance(environment.message(), ClosedNotice)
    assert environment.messenger.on(ADA, StateChangeNotice)[-1].request.ended_because is Cause.FAILED


async def test_member_who_left_before_the_start_gets_no_user(environment: AccessEnvironment) -> None:
    request = await environment.approve(await environment.ask())
    environment.people.leaves(ADA)
    await environment.drain()
    assert environment.server.users == {}
    assert (await environment.now(request)).ended_because is Cause.LEFT


async def test_grant_waits_for_the_directory(environment: AccessEnvironment) -> None:
    request = await environment.approve(await environment.ask())
    environment.people.is_silent = True
    await environment.turn(minutes=5)
    assert environment.server.users == {}
    environment.people.is_silent = False
    await environment.turn(minutes=2)
    assert (await environment.now(request)).state is State.ACTIVE


async def test_undeliverable_credentials_create_no_user(environment: AccessEnvironment) -> None:
    request = await environment.approve(await environment.ask())
    environment.messenger.refuse = lambda _place, notice: (
        Undeliverable("messages_tab_disabled") if isinstance(notice, PreparingNotice) else None
    )
    made: list[str] = []
    environment.server.step = made.append
    await environment.drain()
    assert (await environment.now(request)).ended_because is Cause.FAILED
    assert "before create" not in made


async def test_grant_with_undelivered_credentials_ends_after_five_minutes(
    environment: AccessEnvironment,
) -> None:
    request = await environment.approve(await environment.ask())
    environment.messenger.refuse = lambda _place, notice: (
        Delayed("Slack does not answer") if isinstance(notice, CredentialsNotice) else None
    )
    await environment.turn(minutes=1)
    assert environment.server.users
    await environment.turn(minutes=6)
    assert environment.server.users == {}
    assert (await environment.now(request)).ended_because is Cause.FAILED


async def test_rejected_create_fails_the_grant_with_the_server_text(environment: AccessEnvironment) -> None:
    request = await environment.approve(await environment.ask())
    environment.server.rejects = Rejected("the role reader does not exist", remedy="CREATE ROLE reader")
    await environment.turn(minutes=1)
    failed = await environment.now(request)
    assert failed.ended_because is Cause.FAILED
    assert "the role reader does not exist" in str(failed.ended_note)


async def test_deleted_credential_message_is_posted_again(environment: AccessEnvironment) -> None:
    request = await environment.approve(await environment.ask())
    real_post, lost = environment.messenger.post, []

    async def post_and_lose(channel: str, notice: Notice) -> object:
        posted = await real_post(channel, notice)
        if (
            isinstance(notice, PreparingNotice)
            and len(environment.messenger.on(ADA, PreparingNotice)) == 1
            and not lost
        ):
            lost.append(posted)
            del environment.messenger.shown[posted.channel, posted.ts]
        return posted

    environment.messenger.post = post_and_lose  # type: ignore[method-assign,assignment]
    await environment.drain()
    assert environment.login(await environment.now(request)) is not None


# A new password.


async def test_new_password_replaces_the_old_one_and_keeps_sessions(environment: AccessEnvironment) -> None:
    request = await environment.granted()
    old, session = environment.credentials().password, environment.login(request)
    await password.renew(environment.context, await environment.person(ADA), request)
    await environment.drain()
    assert environment.credentials().password != old
    assert environment.login(request) is not None
    assert environment.server.login(str(request.username), old) is None
    assert session in environment.server.sessions


async def test_only_the_requester_of_a_live_grant_gets_a_new_password(environment: AccessEnvironment) -> None:
    request = await environment.granted()
    with pytest.raises(UnknownRequest):
        await password.renew(environment.context, await environment.person(LEAD), request)
    await revoke.done(environment.context, await environment.person(ADA), request.id)
    with pytest.raises(TooLate):
        await password.renew(environment.context, await environment.person(ADA), request)


async def test_new_password_requested_before_the_end_revives_no_user(environment: AccessEnvironment) -> None:
    request = await environment.granted()
    await password.renew(environment.context, await environment.person(ADA), request)
    await revoke.revoke(environment.context, await environment.person(LEAD), request.id)
    await environment.drain()
    assert environment.server.users == {}
    assert isinstance(environment.message(), ClosedNotice)


# Statements that land late, claims that were lost.


async def test_create_that_lands_after_the_end_is_dropped(environment: AccessEnvironment) -> None:
    request = await environment.approve(await environment.ask())
    environment.server.loses_answers = True
    await environment.drain()
    await revoke.done(environment.context, await environment.person(ADA), request.id)
    await environment.drain()
    assert (await environment.now(request)).state is State.REVOKING, "not confirmed while the create may still land"
    environment.server.land()
    assert environment.server.users
    await environment.turn(seconds=30)
    assert environment.server.users == {}
    assert (await environment.now(request)).state is State.REVOKED


async def test_first_create_that_lands_after_the_end_of_a_retried_grant_is_dropped(
    environment: AccessEnvironment,
) -> None:
    """The answer of the first create is lost, the second one succeeds, and the grant ends soon after."""
    environment.server.loses_answers = True
    request = await environment.approve(await environment.ask())
    await environment.turn(seconds=3)
    assert (await environment.now(request)).state is State.ACTIVE
    await revoke.done(environment.context, await environment.person(ADA), request.id)
    await environment.drain()
    assert environment.server.users == {}
    environment.server.land()
    assert environment.server.users != {}
    await environment.turn(minutes=1)
    assert (await environment.now(request)).state is State.REVOKED
    assert environment.server.users == {}


async def test_lost_claim_on_a_live_grant_leaves_a_working_password(environment: AccessEnvironment) -> None:
    request = await environment.approve(await environment.ask())
    gate = environment.server.gate = threading.Event()
    hung = asyncio.create_task(environment.runner.drain())
    while environment.server.gate is not None:
        await asyncio.sleep(0.01)
    environment.clock.at += LEASE + timedelta(seconds=1)
    await Runner(environment.context, JOBS).drain()
    live = await environment.now(request)
    assert live.state is State.ACTIVE
    session = environment.login(live)
    gate.set()
    await hung
    assert session in environment.server.sessions, "the late worker did not wipe the live grant"
    await environment.drain()
    assert environment.login(live) is not None, "the message has a password that works"


async def test_lost_claim_on_an_ended_grant_leaves_no_user(environment: AccessEnvironment) -> None:
    request = await environment.approve(await environment.ask())
    gate = environment.server.gate = threading.Event()
    hung = asyncio.create_task(environment.runner.drain())
    while environment.server.gate is not None:
        await asyncio.sleep(0.01)
    environment.clock.at += LEASE + timedelta(seconds=1)
    other = Runner(environment.context, JOBS)
    await revoke.done(environment.context, await environment.person(ADA), request.id)
    await other.drain()
    environment.clock.at += timedelta(seconds=60)
    await other.drain()
    gate.set()
    await hung
    await environment.turn(minutes=1)
    assert environment.server.users == {}
    assert (await environment.now(request)).state is State.REVOKED


async def test_late_worker_does_not_hide_the_credential_message(environment: AccessEnvironment) -> None:
    """A bot hangs while it posts the message. Another one posts its own and fills it; that one is closed at the end."""
    request = await environment.approve(await environment.ask())
    post, left = environment.messenger.post, [True]

    async def hanging(channel: str, notice: Notice, *, thread: str | None = None) -> Posted:
        posted = await post(channel, notice, thread=thread)
        if isinstance(notice, PreparingNotice) and left:
            left.clear()
            environment.clock.at += LEASE * 2
            await Runner(environment.context, JOBS).drain()
        return posted

    environment.messenger.post = hanging  # type: ignore[method-assign]
    await environment.drain()
    assert environment.credentials().request.id == request.id
    assert (await environment.now(request)).state is State.ACTIVE
    await environment.turn(hours=2)
    assert (await environment.now(request)).state is State.REVOKED
    assert environment.messenger.on(ADA, CredentialsNotice) == []


async def test_end_during_create_wins(environment: AccessEnvironment) -> None:
    request = await environment.approve(await environment.ask())
    gate = environment.server.gate = threading.Event()
    making = asyncio.create_task(environment.runner.drain())
    while environment.server.gate is not None:
        await asyncio.sleep(0.01)
    await revoke.revoke(environment.context, await environment.person(SECOND), request.id)
    gate.set()
    await making
    await environment.turn(minutes=1)
    assert environment.server.users == {}
    assert isinstance(environment.message(), ClosedNotice)


# Ending.


async def test_no_credentials_are_shown_of_a_grant_that_was_ended_during_its_create(
    environment: AccessEnvironment,
) -> None:
    """The user is in nobody else's hands meanwhile: its end waits for the create, and for nothing after it."""
    request = await environment.approve(await environment.ask())
    environment.server.gate = gate = threading.Event()
    shown = list[Notice]()
    update = environment.messenger.update

    async def seen(posted: Posted, notice: Notice) -> None:
        shown.append(notice)
        await update(posted, notice)

    environment.messenger.update = seen  # type: ignore[method-assign]
    granting = asyncio.create_task(environment.drain())
    while environment.server.gate is not None:
        await asyncio.sleep(0.01)
    held = select(tasks.c.held_key).where(tasks.c.kind == TaskKind.PROVISION)
    assert await environment.ledger.database.read(lambda tx: tx.execute(held).scalar()) == user_lock_key(request)
    await revoke.revoke(environment.context, await environment.person(LEAD), request.id)
    gate.set()
    await granting
    await environment.turn(minutes=2)
    assert (await environment.now(request)).state is State.REVOKED
    assert not any(isinstance(notice, CredentialsNotice) for notice in shown)
    assert environment.server.users == {}


async def test_end_is_retried_and_its_alert_says_what_to_do(environment: AccessEnvironment) -> None:
    request = await environment.granted()
    environment.server.is_up = False
    await revoke.done(environment.context, await environment.person(ADA), request.id)
    await environment.turn(minutes=10)
    alerts = environment.messenger.on(ALERTS, AlertNotice)
    assert "#1 is not ended: shop does not answer" in alerts[0].what
    assert any(f"block the login of {request.username}" in step for step in alerts[0].steps)
    assert isinstance(environment.message(), ClosedNotice), "the password is removed while the server is down"
    await environment.turn(hours=30)
    assert (await environment.now(request)).state is State.REVOKING
    environment.server.is_up = True
    await environment.turn(minutes=2)
    assert environment.server.users == {}
    assert (await environment.now(request)).state is State.REVOKED


async def test_wrong_server_at_the_address_raises_an_alert(environment: AccessEnvironment) -> None:
    request = await environment.granted()
    environment.server.identity = "server-2"
    await revoke.done(environment.context, await environment.person(ADA), request.id)
    await environment.turn(minutes=1)
    assert (await environment.now(request)).state is State.REVOKING
    assert "this is server server-2" in environment.messenger.on(ALERTS, AlertNotice)[0].what
    environment.server.identity = "server-1"
    await environment.turn(minutes=2)
    assert (await environment.now(request)).state is State.REVOKED


async def test_blocked_end_names_the_holder_of_the_lock(
    environment: AccessEnvironment,
) -> None:
    request = await environment.granted()
    environment.server.holds_up = Blocked("held up by session 7 of dba", remedy="SELECT pg_terminate_backend(7);")
    await revoke.done(environment.context, await environment.person(ADA), request.id)
    await environment.turn(minutes=1)
    alert = environment.messenger.on(ALERTS, AlertNotice)[0]
    assert alert.what == (
        f"#{request.id} is not ended: shop answers, but this step is held up: held up by session 7 of dba."
        f" Only {request.username} waits for it."
    )
    assert alert.steps[0] == "SELECT pg_terminate_backend(7);"
    environment.server.holds_up = None
    await environment.turn(minutes=2)
    assert (await environment.now(request)).state is State.REVOKED


async def test_user_without_its_mark_is_ended(environment: AccessEnvironment) -> None:
    """The ledger has its frozen name and its start. A mark that cannot be read does not keep a user alive."""
    request = await environment.granted()
    environment.server.users[str(request.username)].ledger = None
    await revoke.done(environment.context, await environment.person(ADA), request.id)
    await environment.drain()
    assert environment.server.users == {}
    assert (await environment.now(request)).state is State.REVOKED


async def test_user_of_another_ledger_is_never_touched(environment: AccessEnvironment) -> None:
    request = await environment.approve(await environment.ask())
    foreign = environment.server.users[str(request.username)] = User(
        "theirs", "another", 0, (), environment.clock.at + HOUR
    )
    await environment.turn(minutes=2)
    assert environment.server.users == {str(request.username): foreign}
    assert (await environment.now(request)).ended_because is Cause.FAILED
    assert "It was not touched" in environment.messenger.on(ALERTS, AlertNotice)[0].what


async def test_user_dropped_by_somebody_else_raises_an_alert(environment: AccessEnvironment) -> None:
    request = await environment.granted()
    environment.server.users.clear()
    await revoke.done(environment.context, await environment.person(ADA), request.id)
    await environment.drain()
    assert (await environment.now(request)).state is State.REVOKED
    assert "was already gone" in environment.messenger.on(ALERTS, AlertNotice)[0].what


async def test_user_that_an_earlier_run_renamed_was_not_dropped_by_somebody_else(
    environment: AccessEnvironment,
) -> None:
    """That run ended the user and died before the ledger had its receipt. Its left role shows who did it."""
    request = await environment.granted()
    environment.server.users.clear()
    environment.server.left_with = f"dbaccess_left_{request.id}"
    await revoke.done(environment.context, await environment.person(ADA), request.id)
    await environment.drain()
    ended = await environment.now(request)
    assert (ended.state, ended.receipt and ended.receipt.left_with) == (State.REVOKED, environment.server.left_with)
    assert environment.messenger.on(ALERTS, AlertNotice) == []


async def test_grant_of_a_deconfigured_database_is_ended(environment: AccessEnvironment) -> None:
    request = await environment.granted()
    environment.databases["databases"]["other"] = environment.databases["databases"].pop("shop")
    environment.policy["rules"][0]["databases"] = ["other"]
    environment.write()
    await environment.turn(hours=1)
    assert environment.server.users == {}
    assert (await environment.now(request)).state is State.REVOKED


async def test_closed_channel_sends_cards_to_approvers_and_notifies_requester(environment: AccessEnvironment) -> None:
    def refuse(place: str, _notice: Notice) -> DeliveryError | None:
        return Undeliverable("not_in_channel") if place == "C0CARDS" else None

    environment.messenger.refuse = refuse
    request = await environment.ask()
    assert environment.messenger.on(LEAD)
    assert environment.messenger.on(SECOND)
    assert "asked the approvers directly" in str(environment.messenger.on(ADA, StateChangeNotice)[0].trouble)
    assert "Invite the bot" in str(environment.messenger.on(ALERTS, AlertNotice)[0].steps)
    await environment.approve(request, LEAD)
    await environment.drain()
    assert (await environment.now(request)).state is State.ACTIVE
