"""A ledger that cannot be written, that is older than its servers, or that has a copy; and wrong clocks."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import event
from sqlalchemy.pool import Pool

from bot.access import queries, revoke
from bot.health import Health
from bot.jobs.registry import JOBS
from bot.jobs.runner import Runner
from bot.monitors.clock import ClockWatch
from storage.errors import LedgerError
from storage.ledger import Ledger
from storage.records import Request, State
from tests.access.environment import HOUR, LEAD, AccessEnvironment
from tests.access.steps import alerts, refusal_of
from tests.open_faults import require

# Readiness (R8).


async def unready_reasons(environment: AccessEnvironment) -> set[str]:
    """The components that /readyz reports as not ready, while Slack is connected."""
    return set(await Health(environment.context, environment.runner, lambda: True).unready_reasons())


@contextmanager
def read_only(ledger: Ledger) -> Iterator[None]:
    """SQLite refuses writes on every connection, as on a read-only disk. Reads still work."""

    def refuse(connection: sqlite3.Connection, *_: object) -> None:
        connection.execute("PRAGMA query_only = ON").close()

    def allow(connection: sqlite3.Connection, *_: object) -> None:
        connection.execute("PRAGMA query_only = OFF").close()

    event.listen(Pool, "checkout", refuse)
    event.listen(ledger.database.engine.pool, "checkin", allow)
    try:
        yield
    finally:
        event.remove(Pool, "checkout", refuse)


async def test_running_bot_is_ready(environment: AccessEnvironment) -> None:
    await environment.granted()
    assert await unready_reasons(environment) == set()


async def test_read_only_ledger_makes_the_bot_not_ready(environment: AccessEnvironment) -> None:
    request = await environment.granted()
    environment.clock.at += 3 * HOUR
    with read_only(environment.ledger):
        with pytest.raises(LedgerError):
            await environment.drain()
        require(environment.server.users, "the end cannot be carried out")
        named = await unready_reasons(environment)
    await environment.drain()
    require((await environment.now(request)).state is State.REVOKED, "it ends once there is room")
    assert named


async def test_overdue_end_makes_the_bot_not_ready(environment: AccessEnvironment) -> None:
    await environment.granted()
    environment.server.is_up = False
    await environment.turn(hours=1, minutes=3)
    require(environment.server.users, "the end cannot be carried out")
    assert await unready_reasons(environment)


# Clocks (R15).


async def test_clock_set_back_raises_an_alert(environment: AccessEnvironment) -> None:
    request = await environment.granted()
    environment.clock.at -= timedelta(days=1)
    await ClockWatch(environment.context).run()
    await environment.turn(hours=3)
    assert (await environment.now(request)).state is State.REVOKED or alerts(environment)


async def test_clock_corrected_backwards_raises_an_alert(environment: AccessEnvironment) -> None:
    environment.clock.at += timedelta(days=1)
    request = await environment.granted()
    environment.clock.at -= timedelta(days=1)
    await ClockWatch(environment.context).run()
    await environment.turn(hours=20)
    assert (await environment.now(request)).state is State.REVOKED or alerts(environment)


@pytest.mark.parametrize("days", [1, 400])
async def test_clock_jump_during_create_leaves_no_user(environment: AccessEnvironment, days: int) -> None:
    request = await environment.approve(await environment.ask())

    def step(name: str) -> None:
        if name == "after create":
            environment.server.step = lambda _name: None
            environment.clock.at += timedelta(days=days)

    environment.server.step = step
    await environment.drain()
    await environment.turn(minutes=10)
    assert environment.server.users == {}
    assert (await environment.now(request)).state is State.REVOKED


# A ledger that is not the newest (R10).


def copied(environment: AccessEnvironment, to: Path) -> Path:
    """A copy of the ledger file as it is now."""
    with sqlite3.connect(environment.ledger.database.path) as source, sqlite3.connect(to) as target:
        source.backup(target)
    source.close()
    target.close()
    return to


async def put_back(environment: AccessEnvironment, copy: Path) -> None:
    """Replace the ledger with its copy and start the bot on it."""
    await environment.ledger.close()
    for suffix in ("", "-wal", "-shm"):
        Path(f"{environment.ledger.database.path}{suffix}").unlink(missing_ok=True)
    shutil.copy(copy, environment.ledger.database.path)
    environment.ledger = Ledger(environment.store, clock=environment.clock)
    await environment.ledger.open(create=True)
    environment.context = replace(environment.context, ledger=environment.ledger, compared=set())
    environment.runner = Runner(environment.context, JOBS)
    await environment.ledger.tasks.free_leases()


@pytest.fixture
async def lost(environment: AccessEnvironment, tmp_path: Path) -> Request:
    """A live second request that the restored ledger does not have. The restored ledger has the first request, approved."""
    first = await environment.approve(await environment.ask())
    copy = copied(environment, tmp_path / "copy.db")
    await environment.drain()
    await revoke.revoke(environment.context, await environment.person(LEAD), first.id)
    await environment.drain()
    require((await environment.now(first)).state is State.REVOKED, "the first one has ended")
    second = await environment.approve(await environment.ask(reason="another one"))
    await environment.drain()
    second = await environment.now(second)
    require(list(environment.server.users) == [second.username], "the second one is live")
    await put_back(environment, copy)
    return second


async def test_restored_ledger_does_not_grant_a_revoked_request(environment: AccessEnvironment, lost: Request) -> None:
    await environment.turn(minutes=5)
    assert list(environment.server.users) == [lost.username]


async def test_ledger_older_than_its_servers_raises_an_alert(environment: AccessEnvironment, lost: Request) -> None:
    await environment.turn(minutes=5)
    require(lost.username in environment.server.users, "its user exists")
    assert alerts(environment)


async def test_restored_ledger_reuses_no_request_id(environment: AccessEnvironment, lost: Request) -> None:
    await environment.turn(minutes=5)
    await refusal_of(environment.ask(reason="a new one"))
    assert lost.id not in [r.id for r in await environment.ledger.requests.find()]


async def test_card_with_a_higher_id_stops_granting(environment: AccessEnvironment, tmp_path: Path) -> None:
    first = await environment.ask()
    copy = copied(environment, tmp_path / "copy.db")
    second = await environment.ask(duration=2 * HOUR)
    require(second.id > first.id, "it is another one")
    await put_back(environment, copy)
    require(await refusal_of(queries.by_token(environment.context, second.token)), "it is not in the ledger")
    await refusal_of(environment.approve(first))
    await environment.turn(minutes=5)
    assert environment.server.users == {}
    assert alerts(environment)


# One bot on one ledger (R18).

RUNS = """
import asyncio, sys
from storage.ledger import Ledger
async def run():
    ledger = Ledger(sys.argv[1])
    await ledger.open(create=False)
    print(ledger.acquire_run_lock(), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await ledger.close()
asyncio.run(run())
"""


@contextmanager
def running(store: str) -> Iterator[str]:
    """Start a process that claims the sole run. Yields its answer, or an empty text where it could not open the ledger."""
    with subprocess.Popen(
        [sys.executable, "-c", RUNS, store], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:  # fmt: skip
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.communicate()


async def test_removed_lock_file_does_not_allow_a_second_bot(environment: AccessEnvironment) -> None:
    with running(environment.store) as first:
        require(first == "True", "the first one runs")
        with running(environment.store) as second:
            require(second == "False", "a second one does not")
        Path(f"{environment.ledger.database.path}.lock").unlink()
        with running(environment.store) as third:
            assert third != "True"


async def test_hard_link_to_the_ledger_does_not_allow_a_second_bot(
    environment: AccessEnvironment, tmp_path: Path
) -> None:
    await environment.ledger.close()  # everything is in the one file now
    os.link(environment.ledger.database.path, tmp_path / "other.db")
    with running(environment.store) as first:
        require(first == "True", "the first one runs")
        with running(f"sqlite+aiosqlite:///{tmp_path}/other.db") as second:
            assert second != "True"
