"""Nothing starves the end of a grant: no server that hangs, no Slack that hangs, no flood of other work.

What hangs here is held by the test, and is let go when the test is over. So the order is certain and nothing waits for
a time: the end that is looked at comes while everything else still hangs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest

from adapters.base import Unreachable
from bot.access import password, revoke
from bot.access.alerts import raise_alert
from bot.access.ports import (
    AlertNotice,
    ClosedNotice,
    CredentialsNotice,
    Notice,
    Person,
    PreparingNotice,
    ReminderNotice,
)
from bot.access.runner import SLOTS
from bot.engines import WORKERS, Share
from storage.records import Priority, Request, State, TaskKind
from storage.slots import ON_SERVER, PRIORITIES
from tests.access.hanging import FOR_EVER, Hang, Quarter, at_once, expect, waiting_requests
from tests.access.house import ADA, ALERTS, CARDS, HOUR, LEAD, SECOND
from tests.open_faults import open_fault, require


async def expect_an_end_while_it_hangs(quarter: Quarter, good: Request, hang: Hang, *, held: int) -> None:
    """The good grant is over, and an alert is shown, while at least ``held`` calls hang, and went on hanging all the time."""
    house = quarter.house
    async with quarter.running():
        await expect("it hangs", lambda: at_once(lambda: hang.inside >= held))
        await raise_alert(house.context, None, "the disk is full")
        house.clock.at += HOUR
        house.runner.nudge()
        await expect("the end of the good grant", lambda: quarter.is_over(good))
        assert hang.inside >= held, "nothing was let go meanwhile"
        assert str(good.username) not in house.server.users
        if hang is quarter.server or not hang.holds(AlertNotice.__name__):
            await expect("the alert", lambda: at_once(lambda: bool(house.wall.on(ALERTS, AlertNotice))))
            assert hang.inside >= held, "nor while the alert was on its way"


# Servers that hang.


@pytest.mark.parametrize(("servers", "each"), [(1, 24), (8, 5)], ids=["one server", "eight servers"])
async def test_an_end_comes_while_ends_hang_on_dead_servers(quarter: Quarter, servers: int, each: int) -> None:
    """Many more expired grants than any runner has slots; all of them come before the good one, by number and by time."""
    quarter.build(servers)
    dead = [one for n in range(servers) for one in await quarter.granted(f"far{n}", each)]
    (good,) = await quarter.granted("shop", minutes=60)
    quarter.server.holds = lambda what: what.startswith("env:FAR")
    quarter.house.clock.at += timedelta(minutes=45)
    firsts, _ = SLOTS[False, Priority.SAFETY]
    await expect_an_end_while_it_hangs(quarter, good, quarter.server, held=servers * min(firsts, each))
    assert {(await quarter.house.now(one)).state for one in dead} <= {State.ACTIVE, State.REVOKING}


async def test_a_fresh_end_comes_while_others_of_the_same_server_hang_again_and_again(quarter: Quarter) -> None:
    """One server, whose users hold up their own ends: those were tried before, and leave the slots of the first tries alone."""
    quarter.build()
    hostile = await quarter.granted("shop", 12)
    (good,) = await quarter.granted("shop", minutes=60)
    names = {str(one.username) for one in hostile}
    quarter.server.holds, quarter.server.seconds = names.__contains__, 0.0
    quarter.house.clock.at += timedelta(minutes=45)
    await quarter.house.drain()
    tried = [t for t in await quarter.house.ledger.tasks() if t.kind is TaskKind.REVOKE and t.attempts]
    require(len(tried) == len(hostile), "each was tried once and held up")
    quarter.server.seconds = FOR_EVER
    quarter.house.clock.at += timedelta(minutes=5)
    _, retries = SLOTS[False, Priority.SAFETY]
    await expect_an_end_while_it_hangs(quarter, good, quarter.server, held=retries)


async def test_an_end_that_came_too_early_once_waits_behind_nobodys_retries(quarter: Quarter) -> None:
    """A password that must be shown within its time: the end is looked at then, finds it shown, and comes again at its own time."""
    quarter.build()
    house = quarter.house
    house.policy["rules"][0] |= {"delivery": "reveal", "claim_within": "20m"}
    house.write()
    (good,) = await quarter.granted("shop", minutes=60)
    await password.reveal(house.context, await house.person(ADA), good)
    house.clock.at += timedelta(minutes=21)
    await house.drain()
    hostile = await quarter.granted("shop", 12)
    for one in hostile:
        await password.reveal(house.context, await house.person(ADA), one)
    quarter.server.holds, quarter.server.seconds = {str(one.username) for one in hostile}.__contains__, 0.0
    house.clock.at += timedelta(minutes=31)
    await house.drain()
    require(all([(await house.now(one)).state is State.REVOKING for one in hostile]), "all were tried and held up")
    quarter.server.seconds = FOR_EVER
    house.clock.at += timedelta(minutes=5)
    _, retries = SLOTS[False, Priority.SAFETY]
    await expect_an_end_while_it_hangs(quarter, good, quarter.server, held=retries)


@open_fault("R1", "all of them are first tries, four at a time, and the one behind them waits until those gave up")
async def test_an_end_comes_while_others_of_the_same_server_hang_at_their_first_try(quarter: Quarter) -> None:
    """Twelve users hold up their own ends, which all fall due just before that of somebody who does not."""
    quarter.build()
    hostile = await quarter.granted("shop", 12)
    (good,) = await quarter.granted("shop", minutes=31)
    quarter.server.holds = {str(one.username) for one in hostile}.__contains__
    quarter.house.clock.at += HOUR
    async with quarter.running():
        await expect("the end of the good grant", lambda: quarter.is_over(good), within=10)


async def test_an_end_comes_while_grants_and_questions_hang_on_its_own_server(quarter: Quarter) -> None:
    """What people ask of a server, and what is being made on it, has threads of its own there."""
    quarter.build()
    house = quarter.house
    (good,) = await quarter.granted("shop", minutes=60)
    target = revoke.target_of(good)
    asked = [
        asyncio.create_task(house.engines.call(target, lambda _adapter: quarter.server.reach("asked"), share=share))
        for share in (Share.GRANTS, Share.QUESTIONS)
        for _ in range(WORKERS[share] + 1)
    ]
    quarter.server.holds = lambda what: what == "asked"
    await expect_an_end_while_it_hangs(
        quarter, good, quarter.server, held=WORKERS[Share.GRANTS] + WORKERS[Share.QUESTIONS]
    )
    answers = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(answer, Unreachable) for answer in answers)


def test_no_claimed_task_waits_for_a_thread() -> None:
    """The slots of each share of a server are no more than its threads, and every kind of task has slots."""
    assert sum(SLOTS[False, Priority.SAFETY]) <= WORKERS[Share.ENDS]
    assert sum(SLOTS[False, Priority.GRANT]) <= WORKERS[Share.GRANTS]
    for kind in TaskKind:
        assert min(SLOTS[kind not in ON_SERVER, PRIORITIES.get(kind, Priority.DECISION)]) > 0


# Slack that hangs.


async def test_an_end_comes_while_slack_hangs(quarter: Quarter) -> None:
    quarter.build()
    quarter.slack_may_hang()
    (good,) = await quarter.granted("shop", minutes=60)
    await waiting_requests(quarter.house, 30)
    quarter.slack.holds = lambda _notice: True
    quarter.house.clock.at += timedelta(minutes=20)
    firsts, _ = SLOTS[True, Priority.BACKGROUND]
    await expect_an_end_while_it_hangs(quarter, good, quarter.slack, held=firsts)


async def test_an_end_and_an_alert_come_in_the_midst_of_a_flood_of_reminders(quarter: Quarter) -> None:
    """One person's many requests are reminded of at once; Slack takes these slowly. Neither end nor alert waits for them."""
    quarter.build()
    quarter.slack_may_hang()
    (good,) = await quarter.granted("shop", minutes=60)
    await waiting_requests(quarter.house, 30)
    quarter.slack.holds = lambda notice: notice == ReminderNotice.__name__
    quarter.house.clock.at += timedelta(minutes=20)
    firsts, _ = SLOTS[True, Priority.BACKGROUND]
    await expect_an_end_while_it_hangs(quarter, good, quarter.slack, held=firsts)
    assert not quarter.house.wall.on(CARDS, ReminderNotice)


# Slack that hangs in the lane of the very grant that is ended.


async def approved(quarter: Quarter) -> Request:
    request = await quarter.house.approve(await quarter.house.ask(LEAD), SECOND)
    assert request.state is State.APPROVED
    return request


async def expect_an_end_by_hand(quarter: Quarter, request: Request, seen: Callable[[], bool]) -> None:
    """It hangs in Slack; then somebody ends the grant; then the user is gone, while all that is said of it hangs."""
    house = quarter.house
    async with quarter.running():
        await expect("it hangs", lambda: at_once(lambda: quarter.slack.inside > 0 and seen()))
        await revoke.revoke(house.context, Person(id="cli:root", name="root", is_ours=True), request.id)
        await expect("the user is gone", lambda: at_once(lambda: str(request.username) not in house.server.users))
        house.clock.at += timedelta(minutes=1)  # a create whose answer was lost would have landed by now
        house.runner.nudge()
        await expect("it is confirmed", lambda: quarter.is_over(request))


@pytest.mark.parametrize("notice", [PreparingNotice, CredentialsNotice], ids=["before the user", "with the password"])
async def test_a_grant_is_ended_while_its_credential_message_hangs(quarter: Quarter, notice: type[Notice]) -> None:
    """The message is announced empty, then filled. Where it hangs, no end of this grant waits for it."""
    quarter.build()
    quarter.slack_may_hang()
    request = await approved(quarter)
    quarter.slack.holds = lambda name: name == notice.__name__
    is_made = notice is CredentialsNotice
    quarter.house.clock.run()
    await expect_an_end_by_hand(
        quarter, request, lambda: is_made == (str(request.username) in quarter.house.server.users)
    )
    assert not quarter.house.wall.on(LEAD, CredentialsNotice)


async def test_a_grant_is_ended_while_a_new_password_hangs(quarter: Quarter) -> None:
    quarter.build()
    quarter.slack_may_hang()
    (good,) = await quarter.granted("shop", minutes=60)
    quarter.slack.holds = lambda name: name == CredentialsNotice.__name__
    await password.renew(quarter.house.context, await quarter.house.person(ADA), good)
    await expect_an_end_by_hand(quarter, good, lambda: True)


async def test_a_grant_is_ended_while_the_directory_hangs(quarter: Quarter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the requester is still a member is asked before the start."""
    quarter.build()
    request = await approved(quarter)
    quarter.slack.holds = lambda _what: True

    async def hangs(*_: object, **__: object) -> None:
        await quarter.slack.call("person")

    monkeypatch.setattr(quarter.house.people, "person", hangs)
    quarter.house.clock.run()
    await expect_an_end_by_hand(quarter, request, lambda: True)


async def test_an_end_is_tried_again_while_the_closing_of_its_message_hangs(quarter: Quarter) -> None:
    """The first try fails. Then the message is overwritten, which hangs in the same lane; the second try waits for it no longer."""
    quarter.build()
    quarter.slack_may_hang()
    (good,) = await quarter.granted("shop", minutes=60)
    quarter.house.server.is_up = False
    quarter.slack.holds = lambda name: name == ClosedNotice.__name__
    quarter.house.clock.at += HOUR
    quarter.house.clock.run()
    async with quarter.running():
        await expect("it hangs", lambda: at_once(lambda: quarter.slack.inside > 0))
        quarter.house.server.is_up = True
        await expect("the end of the good grant", lambda: quarter.is_over(good))
    assert quarter.house.server.users == {}
