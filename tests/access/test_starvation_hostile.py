"""Nobody who may request, approve or log in delays the end of somebody else's grant, and neither does a server that lies or falters."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from datetime import timedelta
from typing import Any

import pytest

from adapters.base import Rejected, ServerDown
from bot.access import extend, password, queries, revoke
from bot.access.alerts import raise_alert
from bot.access.ports import Person
from bot.access.use_case_types import RequestInput
from bot.notifications.notices import AlertNotice
from storage.records import Request, TaskKind
from storage.transitions import TaskPlan
from tests.access.environment import ADA, ALERTS, AccessEnvironment
from tests.access.hanging import HangingServers, at_once, expect

SOON = timedelta(seconds=2)
"""The time that the good grant has left when the clock starts to run."""

OPERATOR = Person(id="cli:root", name="root", is_member=True)


async def seconds_late(fleet: HangingServers, good: Request, *, within: float = 40.0, server: Any = None) -> float:
    """Seconds from the expiry until the login is blocked or the user gone."""
    server = server or fleet.environment.server
    name = str(good.username)
    await expect(
        "the end of the good grant",
        lambda: at_once(lambda: name not in server.users or name in server.blocked),
        within,
    )
    due = (await fleet.environment.now(good)).expires_at
    assert due is not None
    late = (fleet.environment.clock() - due).total_seconds()
    print(f"LATE {late:.2f}")
    return late


async def near_its_end(fleet: HangingServers, good: Request) -> None:
    """The clock runs from two seconds before the expiry."""
    due = (await fleet.environment.now(good)).expires_at
    assert due is not None
    fleet.environment.clock.at = due - SOON
    fleet.environment.clock.run()


def replace_block(
    fleet: HangingServers, block: Callable[[Sequence[str], Callable[..., frozenset[str]]], frozenset[str]]
) -> None:
    """Another answer of ``block_users`` at the server of the shop."""
    shop = fleet.environment.engines.adapter_class("postgresql")
    original = shop.block_users

    def block_users(self: Any, usernames: Sequence[str]) -> frozenset[str]:
        return block(usernames, lambda names: original(self, names))

    shop.block_users = block_users  # type: ignore[method-assign]


async def test_01_addresses_of_one_server_that_hang(fleet: HangingServers) -> None:
    """Two clones with the identity of a healthy server hang: they take the places of the pool."""
    fleet.build(3)
    for n in (0, 1):
        await fleet.granted(f"far{n}", 8)
    (good,) = await fleet.granted("far2", minutes=60)
    fleet.server.holds = lambda what: what in ("env:FAR0", "env:FAR1")
    fleet.server.seconds = 10.0
    due = (await fleet.environment.now(good)).expires_at
    fleet.environment.clock.at = due - timedelta(minutes=1)
    async with fleet.running():
        await expect("it hangs", lambda: at_once(lambda: fleet.server.inside >= 6))
        fleet.environment.clock.at = due
        fleet.environment.clock.run()
        fleet.environment.runner.wake()
        assert await seconds_late(fleet, good, server=fleet.far) < 2


async def poison(fleet: HangingServers, hang: float) -> float:
    """One user that breaks each connection that touches it. Its end was tried; then the end of the good grant comes."""
    fleet.build()
    (bad,) = await fleet.granted("shop", minutes=30)
    (good,) = await fleet.granted("shop", minutes=60)
    name = str(bad.username)

    def block(names: Sequence[str], original: Any) -> frozenset[str]:
        if name in names:
            time.sleep(hang)
            raise ServerDown("the connection broke")
        return original(names)

    replace_block(fleet, block)
    fleet.server.holds, fleet.server.seconds = (lambda what: what == name), hang
    await near_its_end(fleet, good)
    async with fleet.running():
        return await seconds_late(fleet, good)


async def test_02_user_that_breaks_each_connection(fleet: HangingServers) -> None:
    assert await poison(fleet, 0.0) < 2


async def test_02b_user_that_hangs_each_connection(fleet: HangingServers) -> None:
    assert await poison(fleet, 1.0) < 2


async def test_03_block_hangs_drop_works(fleet: HangingServers) -> None:
    fleet.build()
    grants = await fleet.granted("shop", 40, minutes=30)

    def block(names: Sequence[str], original: Any) -> frozenset[str]:
        time.sleep(10)
        raise ServerDown("timed out")

    replace_block(fleet, block)
    last = grants[-1]
    await near_its_end(fleet, last)
    fleet.environment.clock.at += SOON
    async with fleet.running():
        assert await seconds_late(fleet, last) < 2


async def test_04_block_rejected_and_hostile_drops(fleet: HangingServers) -> None:
    fleet.build()
    hostile = await fleet.granted("shop", 12, minutes=30)
    good = await fleet.granted("shop", 20, minutes=31)
    names = {str(one.username) for one in hostile}

    def block(asked: Sequence[str], original: Any) -> frozenset[str]:
        if names & set(asked):
            raise Rejected("no")
        return original(asked)

    replace_block(fleet, block)
    fleet.server.holds, fleet.server.seconds = names.__contains__, 8.0
    await near_its_end(fleet, good[-1])
    fleet.environment.clock.at += SOON
    async with fleet.running():
        assert await seconds_late(fleet, good[-1]) < 2


async def test_05_block_lies(fleet: HangingServers) -> None:
    """It says that all are blocked, and blocks none. Each is dropped all the same."""
    fleet.build()
    good = await fleet.granted("shop", 40)
    replace_block(fleet, lambda asked, _original: frozenset(asked))
    await near_its_end(fleet, good[-1])
    async with fleet.running():
        assert await seconds_late(fleet, good[-1]) < 2


async def test_05b_block_answers_with_other_names(fleet: HangingServers) -> None:
    fleet.build()
    good = await fleet.granted("shop", 40)
    replace_block(fleet, lambda asked, _original: frozenset({"root", "postgres"}))
    await near_its_end(fleet, good[-1])
    async with fleet.running():
        assert await seconds_late(fleet, good[-1]) < 2


async def test_06_server_flaps(fleet: HangingServers) -> None:
    """It is away for half of each second. Another server ends its grants in time, and it ends its own."""
    fleet.build()
    await fleet.granted("far0", 30)
    (good,) = await fleet.granted("shop", minutes=31)
    await near_its_end(fleet, good)
    stop = threading.Event()

    def flap() -> None:
        while not stop.wait(0.1):
            fleet.far.is_up = not fleet.far.is_up

    thread = threading.Thread(target=flap)
    thread.start()
    try:
        async with fleet.running():
            assert await seconds_late(fleet, good) < 2
            began = time.monotonic()
            await expect("far empty", lambda: at_once(lambda: not fleet.far.users), 60)
            print(f"flapping all gone after {time.monotonic() - began:.1f}")
    finally:
        stop.set()
        thread.join()


async def many_tasks(
    environment: AccessEnvironment, request: Request, count: int, kind: TaskKind, key: str, due_in: timedelta
) -> None:
    from storage.task_queue import schedule_task

    now = environment.clock()
    plan = TaskPlan(kind=kind, lock_key=key, due_at=now + due_in)

    def store(tx: Any) -> None:
        for _ in range(count):
            schedule_task(tx, plan, request_id=request.id, now=now)

    await environment.ledger.database.write(store)


@pytest.mark.parametrize(
    "kind",
    [TaskKind.UPDATE_CARD, TaskKind.RENEW_PASSWORD, TaskKind.MOVE_EXPIRY, TaskKind.CLOSE_CREDENTIALS, TaskKind.ALERT],
)
async def test_07_thousands_of_tasks_of_one_person(fleet: HangingServers, kind: TaskKind) -> None:
    fleet.build()
    fleet.slack_may_hang()
    (other, good) = await fleet.granted("shop", 2, minutes=60)
    await many_tasks(fleet.environment, other, 10000, kind, f"message:{other.id}", timedelta(0))
    fleet.slack.holds = lambda _n: True
    fleet.slack.seconds = 5
    await near_its_end(fleet, good)
    async with fleet.running():
        assert await seconds_late(fleet, good) < 1


async def test_09_flood_of_clicks(fleet: HangingServers) -> None:
    """A person asks for everything at once, a thousand times."""
    fleet.build()
    environment = fleet.environment
    (mine, good) = await fleet.granted("shop", 2, minutes=60)
    ada = await environment.person(ADA)
    await near_its_end(fleet, good)

    async def click(n: int) -> None:
        wanted = RequestInput(
            database="shop", level="readonly", duration=timedelta(minutes=5), reason="looking at a refund"
        )
        match n % 4:
            case 0:
                await queries.status(environment.context, ada, mine.id)
            case 1:
                await password.renew(environment.context, ada, await environment.now(mine))
            case 2:
                await queries.explain(environment.context, ada, wanted)
            case _:
                await extend.extend(
                    environment.context,
                    ada,
                    mine.id,
                    RequestInput(duration=timedelta(minutes=5), reason="the refund takes longer"),
                )

    async with fleet.running():
        await asyncio.sleep(1.8)
        began = time.monotonic()
        clicks = [asyncio.create_task(click(n)) for n in range(2000)]
        late = await seconds_late(fleet, good)
        await asyncio.gather(*clicks, return_exceptions=True)
        print(f"clicks took {time.monotonic() - began:.1f}")
    assert late < 1


async def test_10_another_process_holds_the_write_lock(fleet: HangingServers) -> None:
    fleet.build()
    (good,) = await fleet.granted("shop", minutes=60)
    await near_its_end(fleet, good)
    other = sqlite3.connect(fleet.environment.ledger.database.path, check_same_thread=False, isolation_level=None)
    async with fleet.running():
        await asyncio.sleep(1)
        other.execute("BEGIN IMMEDIATE")
        threading.Timer(8, lambda: other.execute("ROLLBACK")).start()
        late = await seconds_late(fleet, good)
    other.close()
    assert late < 2


async def test_11_another_process_reads_for_long(fleet: HangingServers) -> None:
    fleet.build()
    (good,) = await fleet.granted("shop", minutes=60)
    other = sqlite3.connect(fleet.environment.ledger.database.path, isolation_level=None)
    other.execute("BEGIN")
    other.execute("SELECT count(*) FROM requests").fetchall()
    await near_its_end(fleet, good)
    async with fleet.running():
        late = await seconds_late(fleet, good)
    other.close()
    assert late < 1


async def test_12_huge_policy(fleet: HangingServers) -> None:
    fleet.build()
    environment = fleet.environment
    (good,) = await fleet.granted("shop", minutes=60)
    environment.policy["rules"] += [
        deepcopy(environment.policy["rules"][0]) | {"name": f"rule{n}"} for n in range(3000)
    ]
    await near_its_end(fleet, good)
    async with fleet.running():
        await asyncio.sleep(1.5)
        began = time.monotonic()
        environment.write()
        print(f"written {time.monotonic() - began:.1f}")
        environment.context.files.refresh()
        print(f"loaded {time.monotonic() - began:.1f}", str(environment.context.files.problems)[:200])
        late = await seconds_late(fleet, good)
    assert late < 1


async def test_13_long_reads_in_the_bot(fleet: HangingServers) -> None:
    fleet.build()
    (good,) = await fleet.granted("shop", minutes=60)
    await near_its_end(fleet, good)
    async with fleet.running():
        await asyncio.sleep(1)
        reads = [
            asyncio.create_task(fleet.environment.ledger.database.read(lambda _tx: time.sleep(6))) for _ in range(8)
        ]
        late = await seconds_late(fleet, good)
        await asyncio.gather(*reads)
    assert late < 1


async def test_15_ten_thousand_audit_events(fleet: HangingServers) -> None:
    fleet.build()
    fleet.slack_may_hang()
    environment = fleet.environment
    (good,) = await fleet.granted("shop", minutes=60)

    def store(tx: Any) -> None:
        tx.exec_driver_sql(
            "INSERT INTO audit_events (at, kind, actor, request_id, facts) "
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 10000) "
            "SELECT at, kind, actor, request_id, facts FROM (SELECT * FROM audit_events LIMIT 1), n"
        )

    await environment.ledger.database.write(store)
    await near_its_end(fleet, good)
    async with fleet.running():
        assert await seconds_late(fleet, good) < 1


async def test_17_person_revokes_while_the_group_hangs(fleet: HangingServers) -> None:
    """The grant is claimed by a group that hangs, and its requester gives it back."""
    fleet.build()
    grants = await fleet.granted("shop", 40, minutes=30)
    last = grants[-1]
    gate = threading.Event()

    def block(names: Sequence[str], original: Any) -> frozenset[str]:
        gate.wait(10)
        return original(names)

    replace_block(fleet, block)
    fleet.environment.clock.at += timedelta(minutes=30, seconds=30)
    for one in grants[:10]:
        pass
    fleet.environment.clock.run()
    async with fleet.running():
        await asyncio.sleep(0.3)
        began = time.monotonic()
        await revoke.revoke(fleet.environment.context, OPERATOR, last.id)
        await expect("gone", lambda: at_once(lambda: str(last.username) not in fleet.environment.server.users))
        late = time.monotonic() - began
        print(f"LATE {late:.2f}")
    assert late < 2


async def test_18_hundreds_of_alerts(fleet: HangingServers) -> None:
    """A new alert behind four hundred open ones that all change, with a Slack that takes a second for each."""
    fleet.build()
    fleet.slack_may_hang()
    environment = fleet.environment
    (good,) = await fleet.granted("shop", minutes=60)
    for n in range(400):
        await raise_alert(environment.context, None, f"trouble {n}", cause=f"password:{n}", is_event=True)
    post = environment.messenger.post

    async def slow(*a: Any, **k: Any) -> Any:
        await asyncio.sleep(0.5)
        return await post(*a, **k)

    environment.messenger.post = slow  # type: ignore[method-assign]
    await near_its_end(fleet, good)
    async with fleet.running():
        assert await seconds_late(fleet, good) < 1
        began = time.monotonic()
        await raise_alert(environment.context, None, "the end", cause="end:1")
        await expect(
            "alert",
            lambda: at_once(lambda: any(n.what == "the end" for n in environment.messenger.on(ALERTS, AlertNotice))),
            150,
        )
        print(f"ALERT {time.monotonic() - began:.1f}")
        assert time.monotonic() - began < 60
