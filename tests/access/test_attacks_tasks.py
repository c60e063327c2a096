"""Rows that this version cannot read, after a rolled-back upgrade or a change by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from sqlalchemy import text

from storage.records import Request, State
from tests.access.environment import BEGIN, HOUR, LEAD, SECOND, AccessEnvironment
from tests.access.steps import alerts

WITHIN = 20.0
OTHER_KIND, NO_JSON, LIST = ("digest", "{}"), ("alert", "no JSON"), ("alert", "[1]")


async def put_task(environment: AccessEnvironment, kind: str, payload: str) -> None:
    """Insert a task that is due before all others."""
    values = {"kind": kind, "lock_key": f"message:{kind}", "payload": payload, "at": f"{BEGIN:%Y-%m-%d %H:%M:%S.%f}"}
    insert = text(
        "INSERT INTO tasks (kind, lock_key, request_id, payload, due_at, created_at, attempts, priority, pool)"
        " VALUES (:kind, :lock_key, NULL, :payload, :at, :at, 0, 0, 'slack')"
    )
    await environment.ledger.database.write(lambda tx: tx.execute(insert, values))


@asynccontextmanager
async def at_work(environment: AccessEnvironment) -> AsyncIterator[asyncio.Task[None]]:
    """Run the runner as the bot does."""
    stop = asyncio.Event()
    running = asyncio.create_task(environment.runner.run(stop))
    try:
        yield running
    finally:
        stop.set()
        await asyncio.wait({running}, timeout=WITHIN)
        if running.done() and not running.cancelled():
            running.exception()


async def until_ended(environment: AccessEnvironment, request: Request, running: asyncio.Task[None]) -> None:
    """Wait until the grant is over, the runner has died, or the time is over."""
    deadline = asyncio.get_running_loop().time() + WITHIN
    while not running.done() and asyncio.get_running_loop().time() < deadline:
        if (await environment.now(request)).state is State.REVOKED:
            return
        await asyncio.sleep(0.02)


async def assert_ends_all_the_same(environment: AccessEnvironment, kind: str, payload: str) -> None:
    """Two ends, one after the other. Only the first may be claimed before the unreadable row."""
    first = await environment.granted()
    later = await environment.approve(await environment.ask(LEAD, duration=4 * HOUR), SECOND)
    await environment.drain()
    await put_task(environment, kind, payload)
    environment.clock.at += 2 * HOUR
    async with at_work(environment) as running:
        await until_ended(environment, first, running)
        environment.clock.at += 4 * HOUR
        environment.runner.wake()
        await until_ended(environment, later, running)
        assert not running.done(), "the runner lives"
        assert environment.server.users == {}, "and both ends were carried out"


@pytest.mark.parametrize(("kind", "payload"), [OTHER_KIND, NO_JSON], ids=["unknown kind", "no JSON"])
async def test_unreadable_task_stops_no_end(environment: AccessEnvironment, kind: str, payload: str) -> None:
    await assert_ends_all_the_same(environment, kind, payload)


async def test_task_with_invalid_payload_stops_no_end(environment: AccessEnvironment) -> None:
    await assert_ends_all_the_same(environment, *LIST)


@pytest.mark.parametrize(("kind", "payload"), [OTHER_KIND, NO_JSON, LIST], ids=["unknown kind", "no JSON", "list"])
async def test_unreadable_task_raises_an_alert(environment: AccessEnvironment, kind: str, payload: str) -> None:
    environment.context.config_in_force()  # as at the start of the bot
    await put_task(environment, kind, payload)
    environment.clock.at += HOUR
    with suppress(Exception):  # what is told counts, not how it fails
        await environment.drain()
    assert alerts(environment), "an alert is raised"


async def test_unreadable_request_stops_no_other_end(environment: AccessEnvironment) -> None:
    mine, other = await environment.granted(), await environment.ask(LEAD)
    damage = text("UPDATE requests SET terms = '{}' WHERE id = :id")
    await environment.ledger.database.write(lambda tx: tx.execute(damage, {"id": other.id}))
    environment.clock.at += 2 * HOUR
    await environment.drain()
    assert (await environment.now(mine)).state is State.REVOKED
    assert environment.server.users == {}
