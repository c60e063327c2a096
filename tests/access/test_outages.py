"""Outages: the ledger cannot be written, a server is down for hours, its admin password was rotated. The bot stays up and recovers by itself."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from sqlalchemy import event
from sqlalchemy.pool import Pool

from adapters.base import Rejected
from bot.access.ports import Delayed
from bot.health import Health
from bot.jobs import outage
from storage.ledger import Ledger
from storage.records import Request, State
from tests.access.environment import HOUR, AccessEnvironment
from tests.access.hanging import expect
from tests.access.steps import alerts


@contextmanager
def unwritable(ledger: Ledger) -> Iterator[None]:
    """SQLite refuses writes on every connection, as on a full or read-only disk. Reads still work."""

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


@asynccontextmanager
async def running(environment: AccessEnvironment) -> AsyncIterator[asyncio.Task[None]]:
    stop = asyncio.Event()
    task = asyncio.create_task(environment.runner.run(stop))
    try:
        yield task
    finally:
        stop.set()
        await task


def is_over(environment: AccessEnvironment, request: Request) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        return (await environment.now(request)).state is State.REVOKED

    return check


async def test_ledger_that_cannot_be_written_is_reported_and_survived(
    environment: AccessEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "ALERT_SECONDS", 0.5)
    request = await environment.granted()
    environment.clock.run()
    health = Health(environment.context, environment.runner, lambda: True)
    async with running(environment) as runs:
        with unwritable(environment.ledger):
            environment.clock.at += HOUR
            environment.runner.wake()

            async def is_unready() -> bool:
                return "cannot be written" in (await health.unready_reasons()).get("store", "")

            await expect("the bot is not ready", is_unready)
            await asyncio.sleep(2.0)
            assert not runs.done()
            assert environment.server.users, "nothing ends while its end cannot be recorded"
        await expect("it ends", is_over(environment, request))

        async def has_alert() -> bool:
            return any("The ledger could not be written for" in one for one in alerts(environment))

        await expect("the outage is told", has_alert)

        async def is_ready() -> bool:
            return await health.unready_reasons() == {}

        await expect("the bot is ready", is_ready)


async def test_short_outage_of_the_ledger_is_no_alert(environment: AccessEnvironment) -> None:
    found = outage.LedgerOutage()
    found.begins()
    await found.ends(environment.context)
    await environment.drain()
    assert alerts(environment) == []


async def test_server_that_is_down_for_hours_is_ended_when_it_is_back(environment: AccessEnvironment) -> None:
    request = await environment.granted()
    environment.server.is_up = False
    await environment.turn(hours=6)
    health = Health(environment.context, environment.runner, lambda: True)
    assert "1 end overdue, the oldest by 5 h" in (await health.unready_reasons())["ends"]
    assert await environment.ledger.alerts.open()
    environment.server.is_up = True
    await environment.turn(minutes=2)
    assert (await environment.now(request)).state is State.REVOKED
    assert await health.unready_reasons() == {}

    async def is_resolved() -> bool:
        return await environment.ledger.alerts.open() == ()

    await expect("the alerts are over", is_resolved)  # the probe of the server asks in real time


async def test_rotated_admin_password_is_read_again_for_the_end(environment: AccessEnvironment, tmp_path: Path) -> None:
    """The reference is a file. Its new content is used without a restart, by an end that failed with the former one."""
    secret = tmp_path / "admin_url"
    secret.write_text("postgresql://bot:former@localhost/shop")
    environment.databases["databases"]["shop"]["admin_url"] = f"file:{secret}"
    environment.write()
    valid = ["former"]

    class Checked(environment.engines._classes["postgresql"]):  # type: ignore[misc, name-defined]
        def _reach(self, name: str) -> None:
            if valid[0] not in self.secrets.admin_url:
                raise Rejected("the server refuses the login of the bot")
            super()._reach(name)

    environment.engines._classes["postgresql"] = Checked  # type: ignore[index]
    request = await environment.granted()
    valid[0] = "rotated"
    await environment.turn(hours=1, minutes=3)
    assert (await environment.now(request)).state is State.REVOKING
    assert await environment.ledger.alerts.open()
    secret.write_text("postgresql://bot:rotated@localhost/shop")
    await environment.turn(minutes=3)
    assert (await environment.now(request)).state is State.REVOKED
    assert environment.server.users == {}
    assert await environment.ledger.alerts.open() == ()


async def test_end_waits_for_nobody_while_everything_else_is_down(environment: AccessEnvironment) -> None:
    """Slack is down and the ledger was away: the end comes all the same."""
    request = await environment.granted()
    environment.people.is_silent = True
    environment.messenger.refuse = lambda _place, _notice: Delayed("Slack does not answer")
    await environment.turn(hours=1, seconds=5)
    assert (await environment.now(request)).state is State.REVOKED
    assert environment.server.users == {}
