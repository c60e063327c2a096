"""Nothing starves the end of a grant: neither a hanging server, nor a hanging Slack, nor many other tasks.

The tests hold the calls that hang, and release them at the end. So the order is certain and nothing waits for
a time: the end that is looked at comes while everything else still hangs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest

from adapters.base import ServerDown
from bot.access import password, revoke
from bot.access.alerts import raise_alert
from bot.access.ports import Notice, Person
from bot.access.targets import target_of
from bot.engines import WORKERS, Share
from bot.jobs.pools import ADDRESSES_AT_ONCE, BLOCKED_PLACES, SERVER_PLACES, SLACK_PLACES
from bot.notifications.notices import AlertNotice, ClosedNotice, CredentialsNotice, PreparingNotice, ReminderNotice
from storage.pools import ON_SERVER, priority_of
from storage.records import Priority, Request, State, TaskKind
from tests.access.environment import ADA, ALERTS, CARDS, HOUR, LEAD, SECOND
from tests.access.hanging import FOR_EVER, Hang, HangingServers, at_once, expect, waiting_requests
from tests.open_faults import require


async def expect_an_end_while_it_hangs(fleet: HangingServers, good: Request, hang: Hang, *, held: int) -> None:
    """Expect the end of the good grant and an alert, while at least ``held`` calls hang all the time."""
    environment = fleet.environment
    async with fleet.running():
        await expect("it hangs", lambda: at_once(lambda: hang.inside >= held))
        await raise_alert(environment.context, None, "the disk is full", cause="disk")
        environment.clock.at += HOUR
        environment.runner.wake()
        await expect("the end of the good grant", lambda: fleet.is_over(good))
        assert hang.inside >= held, "nothing was released meanwhile"
        assert str(good.username) not in environment.server.users
        if hang is fleet.server or not hang.holds(AlertNotice.__name__):
            await expect("the alert", lambda: at_once(lambda: bool(environment.messenger.on(ALERTS, AlertNotice))))
            assert hang.inside >= held, "nothing was released before the alert"


# Servers that hang.


@pytest.mark.parametrize(("servers", "each"), [(1, 24), (8, 5)], ids=["one server", "eight servers"])
async def test_end_is_in_time_while_ends_hang_on_dead_servers(fleet: HangingServers, servers: int, each: int) -> None:
    """Many more expired grants than the runner has slots. All of them come before the good one, by id and by time.

    The eight addresses are of one server, so they have the places of two.
    """
    fleet.build(servers)
    dead = [one for n in range(servers) for one in await fleet.granted(f"far{n}", each)]
    (good,) = await fleet.granted("shop", minutes=60)
    fleet.server.holds = lambda what: what.startswith("env:FAR")
    fleet.environment.clock.at += timedelta(minutes=45)
    firsts = SERVER_PLACES[Priority.SAFETY][0]
    await expect_an_end_while_it_hangs(
        fleet, good, fleet.server, held=min(servers, ADDRESSES_AT_ONCE) * min(firsts, each)
    )
    assert {(await fleet.environment.now(one)).state for one in dead} <= {State.ACTIVE, State.REVOKING}


async def test_new_end_is_in_time_while_retries_hang_on_the_same_server(fleet: HangingServers) -> None:
    """The users of one server block their own ends. Those ends are retries, which do not use the slots of first tries."""
    fleet.build()
    hostile = await fleet.granted("shop", 12)
    (good,) = await fleet.granted("shop", minutes=60)
    names = {str(one.username) for one in hostile}
    fleet.server.holds, fleet.server.seconds = names.__contains__, 0.0
    fleet.environment.clock.at += timedelta(minutes=45)
    await fleet.environment.drain()
    tried = [t for t in await fleet.environment.ledger.tasks.all() if t.kind is TaskKind.REVOKE and t.attempts]
    require(len(tried) == len(hostile), "each was tried once and blocked")
    fleet.server.seconds = FOR_EVER
    fleet.environment.clock.at += timedelta(minutes=5)
    retries = SERVER_PLACES[Priority.SAFETY][1]
    await expect_an_end_while_it_hangs(fleet, good, fleet.server, held=retries)


async def test_end_that_ran_too_early_does_not_wait_behind_retries(fleet: HangingServers) -> None:
    """The revoke task runs when the time to show the password is over, finds it shown, and is due again at the expiry."""
    fleet.build()
    environment = fleet.environment
    environment.policy["rules"][0] |= {"delivery": "reveal", "claim_within": "20m"}
    environment.write()
    (good,) = await fleet.granted("shop", minutes=60)
    await password.reveal(environment.context, await environment.person(ADA), good)
    environment.clock.at += timedelta(minutes=21)
    await environment.drain()
    hostile = await fleet.granted("shop", 12)
    for one in hostile:
        await password.reveal(environment.context, await environment.person(ADA), one)
    fleet.server.holds, fleet.server.seconds = {str(one.username) for one in hostile}.__contains__, 0.0
    environment.clock.at += timedelta(minutes=31)
    await environment.drain()
    require(
        all([(await environment.now(one)).state is State.REVOKING for one in hostile]), "all were tried and held up"
    )
    fleet.server.seconds = FOR_EVER
    environment.clock.at += timedelta(minutes=5)
    retries = SERVER_PLACES[Priority.SAFETY][1]
    await expect_an_end_while_it_hangs(fleet, good, fleet.server, held=retries)


async def test_end_is_in_time_while_first_tries_hang_on_the_same_server(fleet: HangingServers) -> None:
    """Twelve users block their own ends, which are all due just before the end of another user."""
    fleet.build()
    hostile = await fleet.granted("shop", 12)
    (good,) = await fleet.granted("shop", minutes=31)
    fleet.server.holds = {str(one.username) for one in hostile}.__contains__
    fleet.environment.clock.at += HOUR
    async with fleet.running():
        await expect("the end of the good grant", lambda: fleet.is_over(good), within=10)


async def test_end_is_in_time_while_grants_and_queries_hang_on_its_server(fleet: HangingServers) -> None:
    """Queries and grants have threads of their own for each server."""
    fleet.build()
    environment = fleet.environment
    (good,) = await fleet.granted("shop", minutes=60)
    target = target_of(good)
    asked = [
        asyncio.create_task(environment.engines.call(target, lambda _adapter: fleet.server.reach("asked"), share=share))
        for share in (Share.GRANTS, Share.QUERIES)
        for _ in range(WORKERS[share] + 1)
    ]
    fleet.server.holds = lambda what: what == "asked"
    await expect_an_end_while_it_hangs(fleet, good, fleet.server, held=WORKERS[Share.GRANTS] + WORKERS[Share.QUERIES])
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(answer, ServerDown) for answer in answers)


def test_no_claimed_task_waits_for_a_thread() -> None:
    """The slots of each share of a server are no more than its threads, and every kind of task has slots."""
    assert sum(SERVER_PLACES[Priority.SAFETY]) + BLOCKED_PLACES <= WORKERS[Share.ENDS]
    assert sum(SERVER_PLACES[Priority.GRANT]) <= WORKERS[Share.GRANTS]
    for kind in TaskKind:
        places = SERVER_PLACES if kind in ON_SERVER else SLACK_PLACES
        assert min(places[priority_of(kind)]) > 0


# Slack that hangs.


async def test_end_is_in_time_while_slack_hangs(fleet: HangingServers) -> None:
    fleet.build()
    fleet.slack_may_hang()
    (good,) = await fleet.granted("shop", minutes=60)
    await waiting_requests(fleet.environment, 30)
    fleet.slack.holds = lambda _notice: True
    fleet.environment.clock.at += timedelta(minutes=20)
    firsts = SLACK_PLACES[Priority.BACKGROUND][0]
    await expect_an_end_while_it_hangs(fleet, good, fleet.slack, held=firsts)


async def test_end_and_alert_are_in_time_during_many_reminders(fleet: HangingServers) -> None:
    """Many reminders are due at once, and Slack takes them slowly. Neither end nor alert waits for them."""
    fleet.build()
    fleet.slack_may_hang()
    (good,) = await fleet.granted("shop", minutes=60)
    await waiting_requests(fleet.environment, 30)
    fleet.slack.holds = lambda notice: notice == ReminderNotice.__name__
    fleet.environment.clock.at += timedelta(minutes=20)
    firsts = SLACK_PLACES[Priority.BACKGROUND][0]
    await expect_an_end_while_it_hangs(fleet, good, fleet.slack, held=firsts)
    assert not fleet.environment.messenger.on(CARDS, ReminderNotice)


# Slack that hangs in the lock key of the very grant that is ended.


async def approved(fleet: HangingServers) -> Request:
    request = await fleet.environment.approve(await fleet.environment.ask(LEAD), SECOND)
    assert request.state is State.APPROVED
    return request


async def expect_an_end_by_hand(fleet: HangingServers, request: Request, seen: Callable[[], bool]) -> None:
    """A job hangs in Slack, then a person ends the grant. The user is dropped while every message still hangs."""
    environment = fleet.environment
    async with fleet.running():
        await expect("it hangs", lambda: at_once(lambda: fleet.slack.inside > 0 and seen()))
        await revoke.revoke(environment.context, Person(id="cli:root", name="root", is_member=True), request.id)
        await expect("the user is gone", lambda: at_once(lambda: str(request.username) not in environment.server.users))
        environment.clock.at += timedelta(minutes=1)  # a create whose answer was lost would have landed by now
        environment.runner.wake()
        await expect("it is confirmed", lambda: fleet.is_over(request))


@pytest.mark.parametrize("notice", [PreparingNotice, CredentialsNotice], ids=["before the user", "with the password"])
async def test_grant_is_ended_while_its_credential_message_hangs(fleet: HangingServers, notice: type[Notice]) -> None:
    """The message is posted empty, then filled. The end of this grant waits for neither of them."""
    fleet.build()
    fleet.slack_may_hang()
    request = await approved(fleet)
    fleet.slack.holds = lambda name: name == notice.__name__
    is_made = notice is CredentialsNotice
    fleet.environment.clock.run()
    await expect_an_end_by_hand(
        fleet, request, lambda: is_made == (str(request.username) in fleet.environment.server.users)
    )
    assert not fleet.environment.messenger.on(LEAD, CredentialsNotice)


async def test_grant_is_ended_while_a_new_password_hangs(fleet: HangingServers) -> None:
    fleet.build()
    fleet.slack_may_hang()
    (good,) = await fleet.granted("shop", minutes=60)
    fleet.slack.holds = lambda name: name == CredentialsNotice.__name__
    await password.renew(fleet.environment.context, await fleet.environment.person(ADA), good)
    await expect_an_end_by_hand(fleet, good, lambda: True)


async def test_grant_is_ended_while_the_directory_hangs(fleet: HangingServers, monkeypatch: pytest.MonkeyPatch) -> None:
    """The membership of the requester is looked up before START."""
    fleet.build()
    request = await approved(fleet)
    fleet.slack.holds = lambda _what: True

    async def hangs(*_: object, **__: object) -> None:
        await fleet.slack.call("person")

    monkeypatch.setattr(fleet.environment.people, "person", hangs)
    fleet.environment.clock.run()
    await expect_an_end_by_hand(fleet, request, lambda: True)


async def test_end_is_retried_while_closing_its_message_hangs(fleet: HangingServers) -> None:
    """The first try fails. Then updating the message hangs under the same lock key. The second try does not wait for it."""
    fleet.build()
    fleet.slack_may_hang()
    (good,) = await fleet.granted("shop", minutes=60)
    fleet.environment.server.is_up = False
    fleet.slack.holds = lambda name: name == ClosedNotice.__name__
    fleet.environment.clock.at += HOUR
    fleet.environment.clock.run()
    async with fleet.running():
        await expect("it hangs", lambda: at_once(lambda: fleet.slack.inside > 0))
        fleet.environment.server.is_up = True
        await expect("the end of the good grant", lambda: fleet.is_over(good))
    assert fleet.environment.server.users == {}
