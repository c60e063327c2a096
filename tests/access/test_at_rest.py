"""The queries of an idle bot to its ledger: the runner and each periodic check, counted one by one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from sqlalchemy import event

from bot import scheduler
from bot.jobs.runner import LONGEST_SLEEP_SECONDS
from bot.monitors.clock import CLOCK_SECONDS, ClockWatch
from bot.monitors.configuration import announce_files
from bot.monitors.groups import check_groups
from bot.monitors.members import check_members
from bot.monitors.replicas import HEARTBEAT_SECONDS, Heartbeat
from bot.monitors.sweep import SWEEP_SECONDS, Sweep
from tests.access.environment import AccessEnvironment

AT_MOST_A_MINUTE = 20.0


@contextmanager
def statements(environment: AccessEnvironment) -> Iterator[list[str]]:
    """All statements of the ledger, with BEGIN. COMMIT is not counted: the driver sends none for a transaction that only reads."""
    seen, lock, engine = list[str](), threading.Lock(), environment.ledger.database.engine

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        with lock:
            seen.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", note)


async def count(environment: AccessEnvironment, check: Callable[[], Awaitable[object]]) -> int:
    with statements(environment) as seen:
        await check()
    return len(seen)


async def test_idle_bot_asks_its_ledger_little(environment: AccessEnvironment) -> None:
    context = environment.context
    context.config_in_force()
    await announce_files(context, is_start=True)
    await environment.drain()
    passed = [0.0]
    sweep, clock = Sweep(context), ClockWatch(context, monotonic=lambda: passed[0])
    context.ledger.replicas.join("bot-1", "1.0")
    heartbeat = Heartbeat(context)
    await heartbeat.run()
    await sweep.run(is_start=True)
    await clock.run()
    environment.clock.at += timedelta(minutes=6)
    passed[0] += 360

    stop = asyncio.Event()
    running = asyncio.create_task(environment.runner.run(stop))
    await asyncio.sleep(2.0)  # the commits of before wake it once more

    async def one_round() -> None:
        environment.runner.wake()
        await asyncio.sleep(1.0)

    rounds = await count(environment, one_round)
    stop.set()
    await running

    async def alerts() -> None:
        await scheduler.check_open_alerts(context, environment.runner.probes)

    a_minute = {
        "runner": rounds * 60 / LONGEST_SLEEP_SECONDS,
        "sweep": await count(environment, sweep.run) * 60 / SWEEP_SECONDS,
        "clock": await count(environment, clock.run) * 60 / CLOCK_SECONDS,
        "alerts": await count(environment, alerts) * 60 / scheduler.ALERTS_SECONDS,
        "groups": await count(environment, lambda: check_groups(context)) * 60 / scheduler.MEMBERSHIP_SECONDS,
        "members": await count(environment, lambda: check_members(context)) * 60 / scheduler.MEMBERSHIP_SECONDS,
        "heartbeat": await count(environment, heartbeat.run) * 60 / HEARTBEAT_SECONDS,
        "newest": await count(environment, heartbeat.on_files_checked) * 60 / scheduler.FILES_SECONDS,
        "files": await count(environment, lambda: announce_files(context)) * 60 / scheduler.FILES_SECONDS,
    }
    assert min(a_minute["runner"], a_minute["sweep"], a_minute["clock"]) > 0, "they were counted"
    assert a_minute["heartbeat"] > 0, "it was counted"
    assert sum(a_minute.values()) <= AT_MOST_A_MINUTE, a_minute
