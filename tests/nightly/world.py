"""The world of the state machine: the real use cases, jobs and monitors on a real ledger, two servers in memory, and a clock that it turns.

Everything that a bot does outside its own memory passes a *point*: each write of the ledger, each call to a server, each call to Slack. At
a point, the bot may die, or somebody else may act. So a run can be repeated exactly, step by step.
"""

from __future__ import annotations

import asyncio
import atexit
import shutil
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, TypeVar

from adapters.base import CREATE_LIMIT_SECONDS, Adapter, Target
from bot.access.alerts import resolve_alert
from bot.access.context import Context
from bot.access.files import Files
from bot.access.ports import Delayed, DeliveryError, Notice, Person, Posted
from bot.engines import Engines, Share
from bot.jobs.probes import CAUSE, Probes, _Watch
from bot.jobs.registry import JOBS
from bot.jobs.runner import Runner
from bot.monitors.sweep import Sweep
from bot.notifications.notices import CredentialsNotice
from storage.ledger import Ledger
from tests.access.environment import Clock, FakeDirectory, Killed, RecordingMessenger
from tests.access.fake_engine import FakeServer, engine
from tests.nightly import configurations

T = TypeVar("T")
Action = Callable[[], Awaitable[None]]
CREATE_LIMIT = timedelta(seconds=CREATE_LIMIT_SECONDS)
"""No server runs a statement later than this."""
SKIP = timedelta(seconds=1)


@dataclass
class Points:
    """Where a bot can be interrupted. ``dies_in`` and ``acts_in`` count the points until it dies, and until ``action`` is done."""

    dies_in: int = 0
    acts_in: int = 0
    action: Action | None = None
    is_dead: bool = False
    passed: int = 0

    async def pass_one(self) -> None:
        """Raises Killed where the bot dies here or is dead."""
        self.passed += 1
        if self.is_dead or self._is_next("dies_in"):
            self.is_dead = True
            raise Killed
        if self.action is not None and self._is_next("acts_in"):
            action, self.action = self.action, None
            await action()

    def _is_next(self, name: str) -> bool:
        left = getattr(self, name)
        setattr(self, name, max(0, left - 1))
        return bool(left == 1)


class InterruptibleEngines(Engines):
    """Engines whose calls are points."""

    def __init__(self, points: Points, classes: dict[str, type[Adapter]]) -> None:
        super().__init__(classes)
        self._points = points

    async def call(self, target: Target, verb: Callable[[Adapter], T], *, share: Share = Share.QUERIES) -> T:
        await self._points.pass_one()
        try:
            return await super().call(target, verb, share=share)
        finally:
            await self._points.pass_one()


class InterruptibleMessenger(RecordingMessenger):
    """A messenger whose calls are points. ``passwords`` are all that a message ever showed."""

    def __init__(self, points: Points) -> None:
        super().__init__(step=lambda _name: None)
        self._points = points
        self.is_down = False
        self.passwords = set[str]()
        self.refuse = self._refuse

    def _refuse(self, _place: str, _notice: Notice) -> DeliveryError | None:
        return Delayed("Slack does not answer") if self.is_down else None

    async def post(self, channel: str, notice: Notice, *, thread: str | None = None) -> Posted:
        await self._points.pass_one()
        posted = await super().post(channel, notice, thread=thread)
        await self._points.pass_one()
        return posted

    async def update(self, posted: Posted, notice: Notice) -> None:
        await self._points.pass_one()
        await super().update(posted, notice)
        if isinstance(notice, CredentialsNotice) and notice.password:
            self.passwords.add(notice.password)
        await self._points.pass_one()


class InterruptibleDirectory(FakeDirectory):
    """A directory whose answers about people are points."""

    def __init__(self, points: Points) -> None:
        super().__init__()
        self._points = points

    async def person(self, person_id: str, *, fresh: bool = False) -> Person:
        await self._points.pass_one()
        return await super().person(person_id, fresh=fresh)


def interrupt_writes(ledger: Ledger, points: Points) -> None:
    """Make each transaction of the ledger that writes a point before it and one after its commit."""
    write = ledger.database.write

    async def interruptible(work: Any, *, announce: bool = True) -> Any:
        await points.pass_one()
        result = await write(work, announce=announce)
        await points.pass_one()
        return result

    ledger.database.write = interruptible  # type: ignore[method-assign]


class SteppedProbes(Probes):
    """Probes that ask once, when the world says so, and not in real time."""

    def _watch(self, server: str, watch: _Watch) -> None:
        self._watches.setdefault(server, watch)

    async def ask_all(self) -> None:
        for server, watch in list(self._watches.items()):
            answer = await self._ask(server, watch)
            if answer.error is not None:
                watch.failed += 1
                waiting = await self._context.ledger.tasks.due_ends(server)
                await self._alert(server, watch, answer.error, waiting)
                continue
            del self._watches[server]
            await resolve_alert(self._context, f"{CAUSE}{server}", f"{watch.request.database} answers again.")


@dataclass
class Bot:
    """One running bot: a replica."""

    context: Context
    runner: Runner
    probes: SteppedProbes
    sweep: Sweep


@dataclass
class World:
    """``url`` is the ledger; None makes a SQLite file. On SQLite one bot runs at a time."""

    url: str | None = None
    clock: Clock = field(default_factory=Clock)
    points: Points = field(default_factory=Points)
    bots: list[Bot] = field(default_factory=list)
    sent: dict[int, datetime] = field(default_factory=dict)
    """When each statement was sent whose answer was lost."""

    def __post_init__(self) -> None:
        self.folder = Path(mkdtemp(prefix="dbaccess-state-"))
        self.is_sqlite = self.url is None
        if self.url is None:
            self.url = f"sqlite+aiosqlite:///{self.folder}/ledger.db"
        self.servers = {
            "postgresql": FakeServer(clock=self.clock, identity="server-1"),
            "mysql": FakeServer(clock=self.clock, identity="server-2"),
        }
        self.messenger = InterruptibleMessenger(self.points)
        self.directory = InterruptibleDirectory(self.points)
        self.directory.groups = {"S0TEAM": {"U0ADA", "U0SECOND"}}
        self.configure(0)

    # Bots.

    async def start_bot(self) -> Bot:
        """Start one more bot. On SQLite it finds the leases of a dead one free, as the real start does."""
        if self.is_sqlite and not (self.folder / "ledger.db").exists():
            shutil.copy(await new_ledger(), self.folder / "ledger.db")
        ledger = Ledger(str(self.url), clock=self.clock)
        await ledger.open(create=not self.is_sqlite)
        interrupt_writes(ledger, self.points)
        engines = InterruptibleEngines(self.points, {name: engine(server) for name, server in self.servers.items()})
        context = Context(
            ledger=ledger,
            files=Files(self.folder),
            directory=self.directory,
            messenger=self.messenger,
            engines=engines,
            prefix="jit_",
        )
        context.files.refresh()
        runner = Runner(context, JOBS)
        probes = runner.probes = SteppedProbes(context, runner.worker, runner.wake)
        if self.is_sqlite:
            await ledger.tasks.free_leases()
        bot = Bot(context=context, runner=runner, probes=probes, sweep=Sweep(context))
        self.bots.append(bot)
        return bot

    def bot(self, number: int = 0) -> Bot:
        return self.bots[number % len(self.bots)]

    async def kill(self, bot: Bot) -> None:
        """The bot is gone at once. What it had claimed stays claimed. On SQLite a new one starts."""
        self.bots.remove(bot)
        await _forget_tasks()
        self.points.is_dead = False
        bot.context.engines.close()
        await bot.context.ledger.close()
        if not self.bots:
            await self.start_bot()

    async def close(self) -> None:
        for bot in self.bots:
            bot.context.engines.close()
            await bot.context.ledger.close()
        shutil.rmtree(self.folder)

    # What happens.

    async def run(self, bot: Bot, *, once: bool = False) -> None:
        """Run the due tasks, or only the first one. A bot that dies meanwhile is replaced."""
        try:
            if once:
                for claim in (await bot.runner.tasks.claim_due(bot.runner.worker, bot.runner.lease, limit=1)).claims:
                    await bot.runner._run_task(claim)
            else:
                await bot.runner.drain()
            await bot.probes.ask_all()
        except Killed:
            await self.kill(bot)

    async def turn(self, by: timedelta, *, runs: bool) -> None:
        """Turn the clock. ``runs``: stop at each due task on the way, as the running bot does; else the bot is late."""
        until = self.clock.at + by
        for _ in range(200 if runs else 0):
            await self.run(self.bot())
            due = await self.bot().context.ledger.tasks.next_due()
            if due is None or due > until:
                break
            self._move_clock(max(due, self.clock.at + SKIP))
        self._move_clock(max(until, self.clock.at))

    def _move_clock(self, until: datetime) -> None:
        """Statements that would be on their way for ``CREATE_LIMIT`` by then take effect first."""
        for server in self.servers.values():
            for late in tuple(server.in_flight):
                if self.sent.setdefault(id(late), self.clock.at) + CREATE_LIMIT <= until:
                    late()
                    server.in_flight.remove(late)
                    del self.sent[id(late)]
        self.clock.at = until

    def configure(self, number: int) -> None:
        """Put a configuration in force. Each bot finds it at its next look at the files."""
        self.configuration = configurations.write(self.folder, number)
        for bot in self.bots:
            bot.context.files.forget()

    def heal(self) -> None:
        """Every outage is over, nobody is in the way."""
        self.points.dies_in, self.points.action = 0, None
        self.directory.is_silent = self.messenger.is_down = False
        for server in self.servers.values():
            server.land()
            server.is_up, server.loses_answers, server.rejects = True, False, None
            server.holds_up = None
            server.unyielding.clear()

    def users(self) -> Sequence[tuple[FakeServer, str]]:
        return [(server, name) for server in self.servers.values() for name in server.users]


async def new_ledger() -> Path:
    """An empty ledger, to be copied: making one takes longer than many steps."""
    if not _new_ledgers:
        path = Path(mkdtemp(prefix="dbaccess-state-")) / "ledger.db"
        ledger = Ledger(f"sqlite+aiosqlite:///{path}")
        await ledger.open(create=True)
        await ledger.close()
        _new_ledgers.append(path)
        atexit.register(shutil.rmtree, path.parent)
    return _new_ledgers[0]


_new_ledgers: list[Path] = []


async def _forget_tasks() -> None:
    """What a dead bot had begun besides ends here."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    for task in others:
        with suppress(BaseException):
            await task
