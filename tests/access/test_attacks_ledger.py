"""A ledger that cannot be written, that is older than its servers, or that has a twin; and clocks that are wrong."""

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
from pydantic import SecretStr
from sqlalchemy import event

from bot.access import queries, revoke
from bot.access.registry import JOBS
from bot.access.runner import Runner
from bot.app import App
from bot.settings import Settings
from storage.errors import LedgerError
from storage.ledger import Ledger
from storage.records import Request, State
from tests.access.house import HOUR, LEAD, House
from tests.access.steps import alerts, refusal_of
from tests.open_faults import open_fault, require

# Readiness (R8).


class Connected:
    """Slack is there."""

    is_well = True


async def not_well(house: House) -> set[str]:
    """What /readyz would name, but for Slack."""
    settings = Settings(
        slack_bot_token=SecretStr("xoxb-1"),
        slack_app_token=SecretStr("xapp-1"),
        config=house.folder,
        store_url=SecretStr(house.store),
    )
    app = App(settings)
    app.context, app._connection = house.context, Connected()  # type: ignore[assignment]
    return set(await app.not_well())


@contextmanager
def read_only(ledger: Ledger) -> Iterator[None]:
    """SQLite takes no write, as on a full or a read-only disk; reading goes on."""

    def refuse(connection: sqlite3.Connection, *_: object) -> None:
        connection.execute("PRAGMA query_only = ON")

    def allow(connection: sqlite3.Connection, *_: object) -> None:
        connection.execute("PRAGMA query_only = OFF")

    pool = ledger.engine.sync_engine.pool
    event.listen(pool, "checkout", refuse)
    event.listen(pool, "checkin", allow)
    try:
        yield
    finally:
        event.remove(pool, "checkout", refuse)


async def test_a_bot_at_work_is_ready(house: House) -> None:
    await house.granted()
    assert await not_well(house) == set()


@open_fault("R8", "only reading is tried: /readyz says 200 while nothing can be written")
async def test_a_ledger_that_takes_no_write_makes_the_bot_not_ready(house: House) -> None:
    request = await house.granted()
    house.clock.at += 3 * HOUR
    with read_only(house.ledger):
        with pytest.raises(LedgerError):
            await house.drain()
        require(house.server.users, "the end cannot be carried out")
        named = await not_well(house)
    await house.drain()
    require((await house.now(request)).state is State.REVOKED, "it ends once there is room")
    assert named


@open_fault("R8", "an end that is overdue does not make the bot not ready")
async def test_an_overdue_end_makes_the_bot_not_ready(house: House) -> None:
    await house.granted()
    house.server.is_up = False
    await house.turn(hours=1, minutes=3)
    require(house.server.users, "the end cannot be carried out")
    assert await not_well(house)


# Clocks (R15).


@open_fault("R15", "an hour lasts a day and an hour, and nobody is told")
async def test_a_clock_that_is_set_back_is_told(house: House) -> None:
    request = await house.granted()
    house.clock.at -= timedelta(days=1)
    await house.turn(hours=3)
    assert (await house.now(request)).state is State.REVOKED or alerts(house)


@open_fault("R15", "what was granted while the clock was ahead lives a day longer, and nobody is told")
async def test_a_clock_that_was_ahead_and_is_set_right_is_told(house: House) -> None:
    house.clock.at += timedelta(days=1)
    request = await house.granted()
    house.clock.at -= timedelta(days=1)
    await house.turn(hours=20)
    assert (await house.now(request)).state is State.REVOKED or alerts(house)


@pytest.mark.parametrize("days", [1, 400])
async def test_a_clock_that_jumps_ahead_while_a_user_is_made_leaves_nobody(house: House, days: int) -> None:
    request = await house.approve(await house.ask())

    def step(name: str) -> None:
        if name == "after create":
            house.server.step = lambda _name: None
            house.clock.at += timedelta(days=days)

    house.server.step = step
    await house.drain()
    await house.turn(minutes=10)
    assert house.server.users == {}
    assert (await house.now(request)).state is State.REVOKED


# A ledger that is not the newest (R10).


def copied(house: House, to: Path) -> Path:
    """A copy of the file as it is now."""
    with sqlite3.connect(house.ledger.path) as source, sqlite3.connect(to) as target:
        source.backup(target)
    source.close()
    target.close()
    return to


async def put_back(house: House, copy: Path) -> None:
    """The copy takes the ledger's place, and the bot is started on it."""
    await house.ledger.close()
    for suffix in ("", "-wal", "-shm"):
        Path(f"{house.ledger.path}{suffix}").unlink(missing_ok=True)
    shutil.copy(copy, house.ledger.path)
    house.ledger = Ledger(house.store, clock=house.clock)
    await house.ledger.open(create=True)
    house.context = replace(house.context, ledger=house.ledger)
    house.runner = Runner(house.context, JOBS)
    await house.ledger.free_leases()


@pytest.fixture
async def lost(house: House, tmp_path: Path) -> Request:
    """The second request, live, of which the restored ledger knows nothing: its copy has the first one, approved."""
    first = await house.approve(await house.ask())
    copy = copied(house, tmp_path / "copy.db")
    await house.drain()
    await revoke.revoke(house.context, await house.person(LEAD), first.id)
    await house.drain()
    require((await house.now(first)).state is State.REVOKED, "the first one has ended")
    second = await house.approve(await house.ask(reason="another one"))
    await house.drain()
    second = await house.now(second)
    require(list(house.server.users) == [second.username], "the second one is live")
    await put_back(house, copy)
    return second


@open_fault("R10", "a grant that was revoked is given again")
async def test_what_was_revoked_does_not_come_back(house: House, lost: Request) -> None:
    await house.turn(minutes=5)
    assert list(house.server.users) == [lost.username]


@open_fault("R10", "nobody is told that the ledger is older than its servers")
async def test_a_ledger_older_than_its_servers_is_an_alert(house: House, lost: Request) -> None:
    await house.turn(minutes=5)
    require(lost.username in house.server.users, "its user is there")
    assert alerts(house)


@open_fault("R10", "a number is given a second time")
async def test_no_number_is_given_twice(house: House, lost: Request) -> None:
    await house.turn(minutes=5)
    await refusal_of(house.ask(reason="a new one"))
    assert lost.id not in [r.id for r in await house.ledger.requests()]


@open_fault("R10", "the card of a request that the ledger does not know is taken for one of another ledger")
async def test_a_card_with_a_higher_number_stops_granting(house: House, tmp_path: Path) -> None:
    first = await house.ask()
    copy = copied(house, tmp_path / "copy.db")
    second = await house.ask(duration=2 * HOUR)
    require(second.id > first.id, "it is another one")
    await put_back(house, copy)
    require(await refusal_of(queries.by_token(house.context, second.token)), "it is not in the ledger")
    await refusal_of(house.approve(first))
    await house.turn(minutes=5)
    assert house.server.users == {}
    assert alerts(house)


# One bot on one ledger (R18).

RUNS = """
import asyncio, sys
from storage.ledger import Ledger
async def run():
    ledger = Ledger(sys.argv[1])
    await ledger.open(create=False)
    print(ledger.take_sole_run(), flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await ledger.close()
asyncio.run(run())
"""


@contextmanager
def running(store: str) -> Iterator[str]:
    """A process that wants to be the only one; what it was told, or nothing where it could not even open the ledger."""
    with subprocess.Popen(
        [sys.executable, "-c", RUNS, store], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:  # fmt: skip
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.communicate()


@open_fault("R18", "the second process locks a new file of the same name, and both run")
async def test_a_lock_file_that_is_removed_lets_no_second_bot_run(house: House) -> None:
    with running(house.store) as first:
        require(first == "True", "the first one runs")
        with running(house.store) as second:
            require(second == "False", "a second one does not")
        Path(f"{house.ledger.path}.lock").unlink()
        with running(house.store) as third:
            assert third != "True"


@open_fault("R18", "the lock is that of a name: through a hard link a second bot runs")
async def test_a_hard_link_to_the_ledger_lets_no_second_bot_run(house: House, tmp_path: Path) -> None:
    await house.ledger.close()  # everything is in the one file now
    os.link(house.ledger.path, tmp_path / "other.db")
    with running(house.store) as first:
        require(first == "True", "the first one runs")
        with running(f"sqlite+aiosqlite:///{tmp_path}/other.db") as second:
            assert second != "True"
