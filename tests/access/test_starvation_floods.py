"""Neither floods of tasks and clicks, nor other users of the ledger, delay the end of somebody else's grant."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Sequence
from copy import deepcopy
from datetime import timedelta
from typing import Any
from unittest.mock import AsyncMock

import pytest
from sqlalchemy import update

from bot.access import extend, lockdown, password, queries
from bot.access.ports import Person
from bot.access.targets import target_of
from bot.access.use_case_types import LockdownScope, RequestInput
from bot.engines import WORKERS, Share
from bot.jobs import end_together
from bot.slack.interaction import bolt_listener
from storage.records import Request, State, TaskKind
from storage.schema import requests
from storage.task_queue import schedule_task
from storage.transitions import TaskPlan
from tests.access.environment import ADA, AccessEnvironment
from tests.access.hanging import HangingServers
from tests.access.test_starvation_hostile import LATE_AT_MOST, SOON, near_its_end, quiet, replace_block, seconds_late
from tests.open_faults import open_fault

__all__ = ["quiet"]


async def many_tasks(environment: AccessEnvironment, request: Request, count: int, kind: TaskKind) -> None:

    now = environment.clock()
    plan = TaskPlan(kind=kind, lock_key=f"message:{request.id}", due_at=now)

    def store(tx: Any) -> None:
        for _ in range(count):
            schedule_task(tx, plan, request_id=request.id, now=now)

    await environment.ledger.database.write(store)


@pytest.mark.parametrize(
    "kind",
    [TaskKind.UPDATE_CARD, TaskKind.RENEW_PASSWORD, TaskKind.MOVE_EXPIRY, TaskKind.CLOSE_CREDENTIALS, TaskKind.ALERT],
)
async def test_ten_thousand_tasks_of_one_grant_delay_no_end(fleet: HangingServers, kind: TaskKind) -> None:
    fleet.build()
    fleet.slack_may_hang()
    (other, good) = await fleet.granted("shop", 2, minutes=60)
    await many_tasks(fleet.environment, other, 10000, kind)
    fleet.slack.holds = lambda _n: True
    fleet.slack.seconds = 5
    await near_its_end(fleet, good)
    async with fleet.running():
        assert await seconds_late(fleet, good) < LATE_AT_MOST


async def test_flood_of_clicks_delays_no_end(fleet: HangingServers) -> None:
    """A person asks for everything at once, a thousand times."""
    fleet.build()
    environment = fleet.environment
    (mine, good) = await fleet.granted("shop", 2, minutes=60)
    ada = await environment.person(ADA)
    await near_its_end(fleet, good)

    async def use_case(n: int) -> None:
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

    client, respond = AsyncMock(), AsyncMock(response_url="x")

    async def ack() -> None:
        return

    async def click(n: int) -> None:
        async def listener(_interaction: Any, _person: Person) -> None:
            await use_case(n)

        body = {"user_id": ADA, "text": "status", "trigger_id": "1"}
        await bolt_listener(environment.context, listener)(ack, body, client, respond)

    async with fleet.running():
        await asyncio.sleep(1.8)
        clicks = [asyncio.create_task(click(n)) for n in range(2000)]
        late = await seconds_late(fleet, good)
        await asyncio.gather(*clicks, return_exceptions=True)
    assert late < LATE_AT_MOST


@open_fault("S2", "no end begins while another process holds the write lock of the SQLite file")
async def test_write_lock_of_another_process_delays_no_end(fleet: HangingServers) -> None:
    fleet.build()
    (good,) = await fleet.granted("shop", minutes=60)
    await near_its_end(fleet, good)
    other = sqlite3.connect(fleet.environment.ledger.database.path, check_same_thread=False, isolation_level=None)
    async with fleet.running():
        await asyncio.sleep(1)
        other.execute("BEGIN IMMEDIATE")
        threading.Timer(6, lambda: other.execute("ROLLBACK")).start()
        late = await seconds_late(fleet, good)
    other.close()
    assert late < LATE_AT_MOST


async def test_long_read_of_another_process_delays_no_end(fleet: HangingServers) -> None:
    fleet.build()
    (good,) = await fleet.granted("shop", minutes=60)
    other = sqlite3.connect(fleet.environment.ledger.database.path, isolation_level=None)
    other.execute("BEGIN")
    other.execute("SELECT count(*) FROM requests").fetchall()
    await near_its_end(fleet, good)
    async with fleet.running():
        late = await seconds_late(fleet, good)
    other.close()
    assert late < LATE_AT_MOST


@open_fault("S3", "the policy is loaded on the event loop, a second for each thousand rules")
async def test_huge_policy_delays_no_end(fleet: HangingServers) -> None:
    fleet.build()
    environment = fleet.environment
    (good,) = await fleet.granted("shop", minutes=60)
    environment.policy["rules"] += [
        deepcopy(environment.policy["rules"][0]) | {"name": f"rule{n}"} for n in range(3000)
    ]
    await near_its_end(fleet, good)
    async with fleet.running():
        await asyncio.sleep(1.5)
        environment.write()
        environment.context.files.refresh()
        late = await seconds_late(fleet, good)
    assert late < LATE_AT_MOST


@open_fault("S4", "eight long reads of the ledger hold up the reads of an end")
async def test_long_reads_of_the_bot_delay_no_end(fleet: HangingServers) -> None:
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
    assert late < LATE_AT_MOST


async def test_ten_thousand_audit_events_delay_no_end(fleet: HangingServers) -> None:
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
        assert await seconds_late(fleet, good) < LATE_AT_MOST


async def test_ends_of_a_group_that_hangs_are_free_after_the_lease(
    fleet: HangingServers, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ends of a group that hangs are free again when the lease has run out."""
    fleet.build()
    grants = await fleet.granted("shop", 40, minutes=30)
    gate = threading.Event()

    def block(names: Sequence[str], original: Any) -> frozenset[str]:
        gate.wait(12)
        return original(names)

    replace_block(fleet, block)
    monkeypatch.setattr(end_together, "LEASE", timedelta(seconds=3))
    await near_its_end(fleet, grants[-1])
    fleet.environment.clock.at += SOON
    async with fleet.running():
        late = await seconds_late(fleet, grants[-1])
        gate.set()
        assert 2 < late < 8


async def test_lockdown_of_a_dead_server_delays_no_end(fleet: HangingServers) -> None:

    fleet.build()
    await fleet.granted("far0", 100)
    (good,) = await fleet.granted("shop", minutes=60)
    fleet.server.holds = lambda what: what.startswith("env:FAR")
    await near_its_end(fleet, good)
    async with fleet.running():
        await asyncio.sleep(1.5)
        await lockdown.lock_down(
            fleet.environment.context, await fleet.environment.person("U0ADMIN"), LockdownScope(database="far0")
        )
        assert await seconds_late(fleet, good) < LATE_AT_MOST


async def test_calls_that_hang_in_every_other_share_delay_no_end(fleet: HangingServers) -> None:
    fleet.build()
    (good,) = await fleet.granted("shop", minutes=60)
    target = target_of(good)
    asked = [
        asyncio.create_task(fleet.environment.engines.call(target, lambda _a: fleet.server.reach("asked"), share=share))
        for share in Share
        if share is not Share.ENDS
        for _ in range(WORKERS[share] + 5)
    ]
    fleet.server.holds = lambda what: what == "asked"
    await near_its_end(fleet, good)
    async with fleet.running():
        assert await seconds_late(fleet, good) < LATE_AT_MOST
    await asyncio.gather(*asked, return_exceptions=True)


async def test_extension_at_the_end_delays_no_other_end(fleet: HangingServers) -> None:
    """Extended a moment before the end: it ends at the new time, and so does the neighbour."""
    fleet.build()
    (mine, good) = await fleet.granted("shop", 2, minutes=60)
    environment = fleet.environment
    ada = await environment.person(ADA)
    await near_its_end(fleet, good)
    async with fleet.running():
        await asyncio.sleep(0.9)
        wanted = RequestInput(duration=timedelta(minutes=5), reason="the refund takes longer")
        await extend.extend(environment.context, ada, mine.id, wanted)
        assert await seconds_late(fleet, good) < LATE_AT_MOST
        after = await environment.now(mine)
        if after.state is State.ACTIVE:
            environment.clock.at += timedelta(minutes=5)
            environment.runner.wake()
            assert await seconds_late(fleet, mine) < 3


async def test_unreadable_requests_delay_no_end(fleet: HangingServers) -> None:

    fleet.build()
    bad = await fleet.granted("shop", 120, minutes=30)
    (good,) = await fleet.granted("shop", minutes=60)
    damaged = update(requests).where(requests.c.id.in_([one.id for one in bad])).values(target={"broken": True})
    await fleet.environment.ledger.database.write(lambda tx: tx.execute(damaged))
    await near_its_end(fleet, good)
    async with fleet.running():
        assert await seconds_late(fleet, good) < LATE_AT_MOST


async def test_huge_state_of_a_level_delays_no_end(fleet: HangingServers) -> None:
    """Somebody made two hundred thousand objects on the server."""
    fleet.build()
    environment = fleet.environment
    (good,) = await fleet.granted("shop", minutes=60)
    environment.server.facts = [(f"object {n}", "owner") for n in range(200_000)]
    await fleet.granted("shop", 3, minutes=59)
    await near_its_end(fleet, good)
    async with fleet.running():
        assert await seconds_late(fleet, good) < LATE_AT_MOST
