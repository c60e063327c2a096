"""The test environment: a real ledger and policy, a fake server, a fake directory, a recording messenger, and a clock that the test sets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from sqlalchemy import select

from bot.access import decide, request_access, use_case_types
from bot.access.context import Context
from bot.access.files import Files
from bot.access.ports import DeliveryError, DirectoryUnavailable, MessageGone, Notice, Person, Posted
from bot.engines import Engines
from bot.jobs.registry import JOBS
from bot.jobs.runner import Runner
from bot.notifications.notices import ClosedNotice, CredentialsNotice, PreparingNotice
from storage.ledger import Ledger
from storage.records import Request, State
from storage.schema import tasks
from tests.access.fake_engine import FakeServer, engine
from tests.open_faults import require

BEGIN = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
ADA, LEAD, SECOND, ADMIN, STRANGER, GUEST = "U0ADA", "U0LEAD", "U0SECOND", "U0ADMIN", "U0STRANGER", "U0GUEST"
CARDS, AUDIT, ALERTS = "C0CARDS", "C0AUDIT", "C0ALERTS"
PEOPLE = {ADA: "ada", LEAD: "lead", SECOND: "second", ADMIN: "admin", STRANGER: "stranger"}
HOUR = timedelta(hours=1)


class Killed(BaseException):
    """Stands for the death of the process at this step."""


@dataclass
class Clock:
    """A clock that the test sets. After ``run`` it goes on in real time."""

    at: datetime = BEGIN
    started: float | None = None

    def __call__(self) -> datetime:
        return self.at if self.started is None else self.at + timedelta(seconds=time.monotonic() - self.started)

    def run(self) -> None:
        self.started = time.monotonic()


@dataclass
class FakeDirectory:
    """A ``bot.access.ports.Directory`` in memory. ``is_silent``: it answers nothing."""

    known: dict[str, Person] = field(
        default_factory=lambda: {i: Person(id=i, name=n, is_member=True) for i, n in PEOPLE.items()}
    )
    is_silent: bool = False
    not_in_the_channel: set[str] = field(default_factory=set)
    groups: dict[str, set[str]] = field(default_factory=dict)
    silent_groups: set[str] = field(default_factory=set)
    handles: dict[str, str] = field(default_factory=dict)
    silent_handles: set[str] = field(default_factory=set)
    """Handles whose members are known, but which Slack does not resolve to a group now."""

    async def person(self, person_id: str, *, fresh: bool = False) -> Person:
        if self.is_silent:
            raise DirectoryUnavailable("no answer")
        return self.known.get(person_id) or Person(
            id=person_id, name=person_id, is_member=False, not_member_reason="a guest"
        )

    async def team_id(self) -> str:
        return "T0TEAM"

    async def outside(self, channel: str, people: Sequence[str]) -> tuple[str, ...]:
        return tuple(p for p in people if p in self.not_in_the_channel)

    async def members(self, names: Collection[str]) -> Mapping[str, frozenset[str]]:
        if self.is_silent:
            return {}
        known = {name: self.handles.get(name, name) for name in names}
        told = self.groups.keys() - self.silent_groups
        return {name: frozenset(self.groups[group]) for name, group in known.items() if group in told}

    def forget(self, person_id: str) -> None:
        return

    async def group_ids(self, handles: Collection[str]) -> Mapping[str, str]:
        return {
            handle: self.handles[handle] for handle in handles if handle in self.handles.keys() - self.silent_handles
        }

    def forget_groups(self) -> None:
        return

    def leaves(self, person_id: str) -> None:
        self.known[person_id] = Person(id=person_id, name=person_id, is_member=False, not_member_reason="deactivated")


@dataclass
class RecordingMessenger:
    """A ``bot.access.ports.Messenger`` that records what each message shows now. ``refuse`` returns the error for a place and notice, or None."""

    step: Callable[[str], None]
    shown: dict[tuple[str, str], Notice] = field(default_factory=dict)
    refuse: Callable[[str, Notice], DeliveryError | None] = lambda _place, _notice: None
    _number: int = 0

    async def post(self, channel: str, notice: Notice, *, thread: str | None = None) -> Posted:
        self.step(f"before post {type(notice).__name__}")
        if error := self.refuse(channel, notice):
            raise error
        self._number += 1
        posted = Posted(channel=channel, ts=f"{self._number}.0")
        self.shown[posted.channel, posted.ts] = notice
        self.step(f"after post {type(notice).__name__}")
        return posted

    async def update(self, posted: Posted, notice: Notice) -> None:
        self.step(f"before update {type(notice).__name__}")
        if error := self.refuse(posted.channel, notice):
            raise error
        if (posted.channel, posted.ts) not in self.shown:
            raise MessageGone("message_not_found")
        self.shown[posted.channel, posted.ts] = notice
        self.step(f"after update {type(notice).__name__}")

    def on(self, channel: str, kind: type[Any] | None = None) -> list[Any]:
        return [n for (c, _), n in self.shown.items() if c == channel and (kind is None or isinstance(n, kind))]


@dataclass
class AccessEnvironment:
    folder: Path
    store: str
    clock: Clock = field(default_factory=Clock)
    kill_at: int = -1
    steps: int = 0
    policy: dict[str, Any] = field(default_factory=dict)
    databases: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.server = FakeServer(clock=self.clock, step=self.step)
        self.messenger = RecordingMessenger(step=self.step)
        self.people = FakeDirectory()
        self.policy = {
            "admins": [ADMIN], "audit_channel": AUDIT, "alert_channel": ALERTS, "defaults": {"channel": CARDS},
            "rules": [{"name": "shop", "requesters": [ADA, LEAD], "databases": ["shop"], "levels": ["*"], "approvals": [{"from": [LEAD, SECOND], "count": 1}]}],
        }  # fmt: skip
        self.databases = {
            "databases": {
                "shop": {
                    "engine": "postgresql",
                    "admin_url": "env:SHOP_ADMIN_URL",
                    "levels": {"readonly": {"roles": ["reader"]}},
                }
            }
        }
        self.ledger = Ledger(self.store, clock=self.clock)
        self.engines = Engines({"postgresql": engine(self.server)})
        self.context = Context(
            ledger=self.ledger,
            files=Files(self.folder),
            directory=self.people,
            messenger=self.messenger,
            engines=self.engines,
            prefix="jit_",
        )
        self.runner = Runner(self.context, JOBS)
        self.write()

    def write(self) -> None:
        (self.folder / "policy.yml").write_text(yaml.safe_dump(self.policy))
        (self.folder / "databases.yml").write_text(yaml.safe_dump(self.databases))

    def step(self, _name: str) -> None:
        """Called before and after every step outside the ledger. At number ``kill_at`` the process dies."""
        self.steps += 1
        if self.steps == self.kill_at:
            raise Killed

    async def open(self) -> None:
        await self.ledger.open(create=True)

    async def close(self) -> None:
        self.engines.close()
        await self.ledger.close()

    async def restart(self) -> None:
        """A restart after SIGKILL: a new worker, and leases that are free."""
        self.kill_at = -1
        self.runner = Runner(self.context, JOBS)
        await self.ledger.tasks.free_leases()

    async def drain(self) -> None:
        """Run all tasks that are due now, also those that a probe has for a moment."""
        await self.runner.drain()
        while await self._probe_has_a_task():
            await asyncio.sleep(0.01)
            await self.runner.drain()

    async def _probe_has_a_task(self) -> bool:
        claimed = select(tasks.c.id).where(tasks.c.claim.is_not(None)).limit(1)
        is_probing = bool(self.runner.probes._watches)
        return is_probing and await self.ledger.database.read(lambda tx: tx.execute(claimed).first() is not None)

    async def turn(self, **by: float) -> None:
        """Move the clock forward, and stop at every due task on the way, as the real runner does."""
        until = self.clock.at + timedelta(**by)
        for _ in range(500):
            await self.drain()
            due = await self.ledger.tasks.next_due()
            if due is None or due > until:
                break
            self.clock.at = max(due, self.clock.at)
        self.clock.at = until
        await self.drain()

    async def person(self, person_id: str) -> Person:
        return await self.context.member(person_id)

    async def ask(
        self,
        who: str = ADA,
        *,
        duration: timedelta = HOUR,
        reason: str = "looking at a refund",
        level: str = "readonly",
    ) -> Request:
        wanted = use_case_types.RequestInput(database="shop", level=level, duration=duration, reason=reason)
        asked = await request_access.request_access(self.context, await self.person(who), wanted)
        await self.drain()
        return await self.ledger.requests.get(asked.request.id)

    async def approve(self, request: Request, who: str = LEAD) -> Request:
        return await decide.approve(self.context, await self.person(who), request)

    async def granted(self, who: str = ADA, approver: str = LEAD) -> Request:
        request = await self.approve(await self.ask(who), approver)
        await self.drain()
        request = await self.ledger.requests.get(request.id)
        require(request.state is State.ACTIVE, "it is granted")
        return request

    async def now(self, request: Request) -> Request:
        return await self.ledger.requests.get(request.id)

    def credentials(self, who: str = ADA) -> CredentialsNotice:
        (found,) = self.messenger.on(who, CredentialsNotice)
        assert isinstance(found, CredentialsNotice)
        return found

    def login(self, request: Request) -> int | None:
        notice = self.credentials()
        return self.server.login(str(request.username), notice.password)

    def message(self, who: str = ADA) -> Notice:
        """The present content of the credential message."""
        return next(
            n for n in self.messenger.on(who) if isinstance(n, PreparingNotice | CredentialsNotice | ClosedNotice)
        )
