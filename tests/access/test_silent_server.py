"""A database that accepts connections and never answers, beside a real server, with the real PostgreSQL adapter."""

from __future__ import annotations

import asyncio
import os
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from adapters.postgresql import held
from bot.access import request_access, use_case_types
from bot.engines import Engines
from bot.jobs.registry import JOBS
from bot.jobs.runner import Runner
from bot.notifications.notices import CredentialsNotice
from storage.records import Request, State
from tests.access.environment import ADA, AccessEnvironment
from tests.access.hanging import expect
from tests.contract.postgresql.harness import BOT_PASSWORD, EngineHarness, build
from tests.open_faults import require
from tests.servers.postgresql import PostgresServer
from tests.soak import IS_SOAK

EXPIRED = 60 if IS_SOAK else 16
"""Far more grants than a server has slots."""

LATE_AT_MOST = 2.0 if IS_SOAK else 30.0
"""In seconds. `make soak` measures the promise of two seconds. Elsewhere the end only must not wait for the others, which take minutes."""

READS = "readonly"


@dataclass
class Way:
    """A TCP proxy to a server on loopback. After it falls silent, it accepts connections and never answers."""

    port: int
    is_silent: bool = False
    accepted: int = 0
    at: int = 0
    lines: set[asyncio.StreamWriter] = field(default_factory=set)
    _server: asyncio.Server | None = None

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        self.at = int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for line in list(self.lines):
            line.close()
        await self._server.wait_closed()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.lines.add(writer)
        try:
            if self.is_silent:
                self.accepted += 1
                await reader.read()  # whatever is asked, nothing comes back
            else:
                await self._pass_on(reader, writer)
        finally:
            self.lines.discard(writer)
            writer.close()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            await asyncio.gather(_copy(reader, back), _copy(there, writer))
        finally:
            back.close()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    with suppress(OSError):
        sink.close()


@dataclass
class Place:
    """The test environment on a real server with two databases: ``shop`` is reached directly, ``silent`` through the proxy."""

    environment: AccessEnvironment
    harness: EngineHarness
    way: Way

    async def granted(self, database: str, count: int, *, minutes: int) -> list[Request]:
        environment, asked = self.environment, []
        for n in range(count):
            lasts = timedelta(minutes=minutes, seconds=n)
            wanted = use_case_types.RequestInput(
                database=database, level=READS, duration=lasts, reason="looking at a refund"
            )
            asked.append(
                (
                    await request_access.request_access(environment.context, await environment.person(ADA), wanted)
                ).request
            )
        await environment.drain()
        found = [await environment.now(request) for request in asked]
        require({one.state for one in found} == {State.ACTIVE}, "all are granted")
        require(all(self.harness.role_exists(str(one.username)) for one in found), "their users exist")
        return found


@pytest.fixture
async def place(
    environment: AccessEnvironment, postgresql15: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Place]:
    harness, way = build(postgresql15), Way(postgresql15.port)
    await way.open()
    url = postgresql15.url(harness.bot, BOT_PASSWORD, harness.database)
    monkeypatch.setenv("SHOP_ADMIN_URL", url)
    monkeypatch.setenv("SILENT_ADMIN_URL", url.replace(f":{postgresql15.port}/", f":{way.at}/"))
    for name, reference in (("shop", "env:SHOP_ADMIN_URL"), ("silent", "env:SILENT_ADMIN_URL")):
        levels = {READS: {"roles": ["shop_reader"]}}
        environment.databases["databases"][name] = {"engine": "postgresql", "admin_url": reference, "levels": levels}
        if harness.owner is not None:
            environment.databases["databases"][name]["admin_role"] = harness.owner
    alone = {"name": "alone", "requesters": [ADA], "databases": ["*"], "levels": ["*"], "approvals": []}
    environment.policy["rules"].insert(0, alone)
    environment.write()
    environment.engines.close()
    environment.engines = Engines()
    environment.context = replace(environment.context, engines=environment.engines, prefix=f"s{secrets.token_hex(3)}_")
    environment.runner = Runner(environment.context, JOBS)
    yield Place(environment, harness, way)
    await way.close()
    with harness.superuser() as connection:
        mine = "SELECT rolname FROM pg_roles WHERE starts_with(rolname, %s)"
        for (name,) in connection.execute(mine, (environment.context.prefix,)).fetchall():
            connection.execute(f'DROP ROLE "{name}"')


def is_dead(session: psycopg.Connection[tuple[object, ...]]) -> bool:
    try:
        session.execute("SELECT 1")
    except psycopg.Error:
        return True
    return False


@pytest.mark.timeout(600)
async def test_grant_ends_in_time_while_another_server_hangs(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    environment, harness = place.environment, place.harness
    await place.granted("silent", EXPIRED, minutes=30)
    (good,) = await place.granted("shop", 1, minutes=60)
    notice = next(one for one in environment.messenger.on(ADA, CredentialsNotice) if one.request.id == good.id)
    url = harness.server.url(str(good.username), notice.password, harness.database)
    session = psycopg.connect(url, autocommit=True)
    held.close_all()  # the bot just started: no connection is held to the silent server
    place.way.is_silent = True
    environment.clock.at += timedelta(minutes=60, seconds=-12)
    environment.clock.run()
    stop = asyncio.Event()
    running = asyncio.create_task(environment.runner.run(stop))

    async def is_gone() -> bool:
        return not await asyncio.to_thread(harness.role_exists, str(good.username))

    await expect("the user is gone", is_gone, within=150)
    assert good.expires_at is not None
    late = (environment.clock() - good.expires_at).total_seconds()
    with capsys.disabled():
        print(f"\n{EXPIRED} expired grants on a silent PostgreSQL: the end came {late:.2f} s after its time")  # noqa: T201
    assert is_dead(session)
    session.close()
    assert place.way.accepted >= 4, "the silent server was really contacted"
    assert late < LATE_AT_MOST
    stop.set()
    await running
    over = [r for r in await environment.ledger.requests.find() if r.state is State.REVOKED]
    assert [r.id for r in over] == [good.id], "the others are not over, and the bot knows it"


async def test_command_line_revokes_on_servers_that_answer(place: Place) -> None:
    """No bot runs. The grants on the silent server come first and are more than its slots. Their server is silent all the time."""
    environment = place.environment
    silent = await place.granted("silent", 10, minutes=30)
    (good,) = await place.granted("shop", 1, minutes=60)
    held.close_all()  # the bot just started: no connection is held to the silent server
    place.way.is_silent = True
    await environment.ledger.close()
    numbers = [str(one.id) for one in (*silent, good)]
    told = await asyncio.to_thread(_dbaccess, environment.folder, "revoke", *numbers, "--wait", "12")
    assert f"#{good.id} {good.username} on shop: " in told
    assert "not ended yet" not in next(line for line in told.splitlines() if line.startswith(f"#{good.id} "))
    assert told.count("not ended yet") == len(silent)
    assert not place.harness.role_exists(str(good.username))


def _dbaccess(folder: Path, *arguments: str) -> str:
    env = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("SLACK_", "DBACCESS_"))},
        "DBACCESS_STORE_URL": f"sqlite+aiosqlite:///{folder}/ledger.db",
        "DBACCESS_CONFIG": str(folder),
        "SLACK_API_URL": "http://127.0.0.1:1/api/",
    }
    command = [sys.executable, "-m", "bot.cli", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, timeout=170)
    assert done.returncode == 1, (done.stdout, done.stderr)
    return done.stdout
