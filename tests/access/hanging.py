"""Servers and a Slack that hang until the test releases them, for tests with the real runner."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, ClassVar

from adapters.base import Adapter, Removal, ServerDown
from bot.access import request_access, use_case_types
from bot.access.ports import Delayed, Notice
from bot.engines import Engines
from bot.jobs.registry import JOBS
from bot.jobs.runner import Runner
from storage.records import Request, State
from tests.access.environment import ADA, LEAD, AccessEnvironment
from tests.access.fake_engine import FakeServer, engine
from tests.open_faults import require

PATIENCE = 60.0
"""In seconds: far above what a step takes, and far below what a hanging call takes."""

FOR_EVER = 600.0

READS = {"readonly": {"grants": [{"on": ["a.b"], "privileges": ["SELECT"]}]}}


@dataclass
class Hang:
    """Calls that hang and then fail: when they are released, or after ``seconds``. ``holds`` says which calls hang."""

    holds: Callable[[str], bool] = lambda _what: False
    seconds: float = FOR_EVER
    inside: int = 0
    gate: threading.Event = field(default_factory=threading.Event)
    turn: threading.Lock = field(default_factory=threading.Lock)

    def reach(self, what: str) -> None:
        """For calls of an adapter, which run in threads."""
        if not self.holds(what):
            return
        with self.turn:
            self.inside += 1
        self.gate.wait(self.seconds)
        with self.turn:
            self.inside -= 1
        raise ServerDown("no connection: timed out")

    async def call(self, what: str) -> None:
        """For calls to Slack, which run on the event loop."""
        if not self.holds(what):
            return
        self.inside += 1
        try:
            end = time.monotonic() + self.seconds
            while not self.gate.is_set() and time.monotonic() < end:
                await asyncio.sleep(0.02)
        finally:
            self.inside -= 1
        raise Delayed("Slack does not answer (TimeoutError)")

    def let_go(self) -> None:
        self.gate.set()


def hanging_engine(server: FakeServer, hang: Hang) -> type[Adapter]:
    """An adapter whose calls may hang: by the reference of the admin URL, and for a drop also by the username."""

    class Hanging(engine(server)):  # type: ignore[misc]
        label: ClassVar[str] = "HangingSQL"

        def _reach(self, name: str) -> None:
            hang.reach(self.target.admin_url)
            super()._reach(name)

        def drop_user(self, username: str, level: Any, before: Any = None) -> Removal:
            hang.reach(username)
            found: Removal = super().drop_user(username, level, before)
            return found

        def block_users(self, usernames: Any) -> frozenset[str]:
            found: frozenset[str] = super().block_users(usernames)
            return frozenset(name for name in found if not hang.holds(name))

    return Hanging


@dataclass
class HangingServers:
    """The test environment with further servers, and the calls that hang. The further servers share one engine and one memory."""

    environment: AccessEnvironment
    far: FakeServer
    server: Hang = field(default_factory=Hang)
    slack: Hang = field(default_factory=Hang)

    def build(self, servers: int = 1) -> None:
        environment = self.environment
        engines = Engines(
            {
                "postgresql": hanging_engine(environment.server, self.server),
                "mysql": hanging_engine(self.far, self.server),
            }
        )
        environment.context = replace(environment.context, engines=engines)
        environment.engines = engines
        environment.runner = Runner(environment.context, JOBS)
        names = [f"far{n}" for n in range(servers)]
        for name in names:
            environment.databases["databases"][name] = {
                "engine": "mysql",
                "admin_url": f"env:{name.upper()}",
                "levels": deepcopy(READS),
            }
        rule = {"name": "alone", "requesters": [ADA], "databases": [*names, "shop"], "levels": ["*"], "approvals": []}
        environment.policy["rules"].insert(0, rule)
        environment.write()

    def slack_may_hang(self) -> None:
        post, update = self.environment.messenger.post, self.environment.messenger.update

        async def slow_post(channel: str, notice: Notice, *, thread: str | None = None) -> Any:
            await self.slack.call(type(notice).__name__)
            return await post(channel, notice, thread=thread)

        async def slow_update(posted: Any, notice: Notice) -> None:
            await self.slack.call(type(notice).__name__)
            await update(posted, notice)

        self.environment.messenger.post, self.environment.messenger.update = slow_post, slow_update  # type: ignore[method-assign]

    async def granted(self, database: str, count: int = 1, *, minutes: int = 30) -> list[Request]:
        """Live grants on one database. Each lasts one second longer than the one before, so that no two requests are the same."""
        environment, asked = self.environment, []
        ada = await environment.person(ADA)
        for n in range(count):
            lasts = timedelta(minutes=minutes, seconds=n)
            wanted = use_case_types.RequestInput(
                database=database, level="readonly", duration=lasts, reason="looking at a refund"
            )
            asked.append((await request_access.request_access(environment.context, ada, wanted)).request)
        await environment.drain()
        found = [await environment.now(request) for request in asked]
        require({one.state for one in found} == {State.ACTIVE}, "all are granted")
        return found

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run the real runner. Hanging calls are released at the end."""
        stop = asyncio.Event()
        running = asyncio.create_task(self.environment.runner.run(stop))
        try:
            yield
        finally:
            stop.set()
            self.server.let_go()
            self.slack.let_go()
            await running

    async def is_over(self, request: Request) -> bool:
        return (await self.environment.now(request)).state is State.REVOKED


async def expect(what: str, is_so: Callable[[], Awaitable[bool]], within: float = PATIENCE) -> float:
    """Wait until ``is_so``, at most ``within`` seconds. Returns how many seconds it took."""
    began = time.monotonic()
    while not await is_so():
        assert time.monotonic() - began < within, f"never came: {what}"
        await asyncio.sleep(0.02)
    return time.monotonic() - began


async def at_once(condition: Callable[[], bool]) -> bool:
    return condition()


async def waiting_requests(environment: AccessEnvironment, count: int) -> None:
    """Pending requests whose reminders are all due after ten minutes."""
    environment.policy["defaults"]["remind_after"] = "10m"
    environment.policy["rules"][0]["requesters"] = [LEAD]
    environment.write()
    ada = await environment.person(ADA)
    for n in range(count):
        lasts = timedelta(hours=1, seconds=n)
        wanted = use_case_types.RequestInput(
            database="shop", level="readonly", duration=lasts, reason="looking at a refund"
        )
        await request_access.request_access(environment.context, ada, wanted)
    await environment.drain()
