"""The measurements by name, each in worlds of its own on one shared server."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.bare import BareTimes, measure_bare, measure_durable_commit
from benchmarks.commands import measure_acks
from benchmarks.ends import LARGE, measure_ends, measure_lone_ends
from benchmarks.figures import Figure
from benchmarks.grants import Usable, give_back, make_usable
from benchmarks.growth import measure_growth
from benchmarks.ledger_work import measure_ledger_work
from benchmarks.lockdown import has_lockdown, measure_lockdown
from benchmarks.policy import measure_policy
from benchmarks.report import Skipped
from benchmarks.rest import count_statements, measure_rest
from benchmarks.slack import TooLate
from benchmarks.starvation import measure_starvation
from benchmarks.usable import ROUNDS, measure_usable
from benchmarks.world import World, running_world
from tests.servers.postgresql import PostgresServer

HISTORY, LONG_HISTORY = 100_000, 1_000_000
MINUTE, LONG_REST = 60.0, 310.0
"""The long one is longer than the period of every monitor but the hourly one."""


@dataclass(kw_only=True)
class Run:
    """The options, the shared server, and what was measured so far."""

    server: PostgresServer
    ledger: str
    is_full: bool
    bare: BareTimes
    durable_commit: float
    figures: list[Figure] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    async def measure(self, name: str, measurement: Callable[[], Awaitable[list[Figure]]]) -> None:
        """Add the figures of one measurement, or why there are none."""
        print(f"measuring {name} …", file=sys.stderr, flush=True)
        try:
            self.figures += await measurement()
        except (TooLate, TimeoutError) as error:
            self.skipped.append(Skipped(name=name, why=f"not finished: {str(error)[:200]}"))

    async def measure_bare_again(self) -> None:
        """Measure the bare limits close to the figures that are compared with them: the machine may have other work at another time."""
        self.bare, self.durable_commit = await _bare(self.server)

    @asynccontextmanager
    async def world(self) -> AsyncIterator[World]:
        """A world whose bot runs and has made its first grant."""
        async with running_world(server=self.server, ledger=self.ledger) as world:
            await world.start_bot()
            await give_back(world, await make_usable(world, 1))
            yield world


async def _bare(server: PostgresServer) -> tuple[BareTimes, float]:
    with TemporaryDirectory(prefix="dbaccess-figures-") as name:
        bare = await asyncio.to_thread(measure_bare, server, Path(name))
        return bare, await asyncio.to_thread(measure_durable_commit, Path(name))


async def prepare(server: PostgresServer, *, ledger: str, is_full: bool) -> Run:
    """Measure the bare limits for the first time."""
    bare, commit = await _bare(server)
    return Run(server=server, ledger=ledger, is_full=is_full, bare=bare, durable_commit=commit)


async def policy(run: Run) -> None:
    await run.measure("the policy", lambda: asyncio.to_thread(measure_policy))


async def usable(run: Run) -> None:
    async with run.world() as world:
        for at_a_time in ROUNDS:
            await run.measure_bare_again()
            measurement = partial(measure_usable, world, run.bare, at_a_time)
            await run.measure(f"click to usable, {at_a_time} at a time", measurement)


async def commands(run: Run) -> None:
    async with run.world() as world:
        await run.measure("command to acknowledgement", lambda: measure_acks(world))


async def ends(run: Run) -> None:
    async with run.world() as world:
        (template,) = await make_usable(world, 1)
        await world.until_idle()
        await run.measure_bare_again()
        await run.measure("ends one at a time", lambda: measure_lone_ends(world, template, run.bare))
        await run.measure("100 ends", lambda: measure_ends(world, template, run.bare, 100))
        await run.measure("1,000 ends", lambda: measure_ends(world, template, run.bare, LARGE))


async def lockdown(run: Run) -> None:
    async with run.world() as world:
        if not await has_lockdown(world):
            run.skipped.append(Skipped(name=f"lockdown of {LARGE:,}", why="this version has no command `lockdown`"))
            return
        template: Usable = (await make_usable(world, 1))[0]
        await run.measure("lockdown", lambda: measure_lockdown(world, template, run.bare, LARGE))


async def growth(run: Run) -> None:
    sizes = [HISTORY, LONG_HISTORY] if run.is_full else [HISTORY]
    await run.measure(
        "growth", lambda: measure_growth(run.server, run.bare, sizes, ledger=run.ledger, is_full=run.is_full)
    )


async def rest(run: Run) -> None:
    async with running_world(run.server, ledger=run.ledger) as world:
        count_statements(world)
        await world.start_bot()
        await give_back(world, await make_usable(world, 16))
        await run.measure("the work of a grant", lambda: measure_ledger_work(world))
        await run.measure("rest", lambda: measure_rest(world, LONG_REST if run.is_full else MINUTE))


async def starvation(run: Run) -> None:
    await run.measure("starvation", lambda: measure_starvation(run.server))


async def rest_and_starvation(run: Run) -> None:
    """Both mostly wait, and neither measures how fast something is on an idle machine."""
    await asyncio.gather(rest(run), starvation(run))


MEASUREMENTS: dict[str, Callable[[Run], Awaitable[None]]] = {
    "policy": policy,
    "usable": usable,
    "commands": commands,
    "ends": ends,
    "lockdown": lockdown,
    "growth": growth,
    "rest": rest,
    "starvation": starvation,
}
