"""The same figures with a long history in the ledger, beside a ledger with none. Both bots run, and take turns."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from statistics import median

from benchmarks.bare import BareTimes
from benchmarks.commands import measure_acks
from benchmarks.ends import measure_ends, measure_lone_ends
from benchmarks.figures import Figure, Goal
from benchmarks.grants import Usable, give_back, make_usable
from benchmarks.prefill import RealGrant, add_history
from benchmarks.usable import measure_usable
from benchmarks.world import World, running_world
from tests.servers.postgresql import PostgresServer

GROUP = "Growth"
RATIO = 1.2
ROUNDS, TURNS, READ_ROUNDS, LONE, MANY = 5, 3, 3, 8, 100


@dataclass(kw_only=True)
class _Aged:
    """A world with this many requests of history, and what was measured in it by the name of the figure."""

    history: int
    world: World
    template: Usable
    figures: dict[str, Figure] = field(default_factory=dict)

    def add(self, figures: list[Figure]) -> None:
        for figure in figures:
            known = self.figures.get(figure.name)
            values = [*(known.values if known else ()), *figure.values]
            self.figures[figure.name] = Figure(group=GROUP, name=figure.name, unit=figure.unit, values=values)


async def measure_growth(
    server: PostgresServer, bare: BareTimes, sizes: list[int], *, ledger: str, is_full: bool
) -> list[Figure]:
    """The ``bare`` of these figures is their median with no history. ``is_full``: also many ends at once."""
    async with AsyncExitStack() as stack:
        worlds = [await _aged(stack, server, size, ledger) for size in (0, *sizes)]
        for _ in range(TURNS):
            for aged in worlds:
                aged.add(await measure_usable(aged.world, bare, 1, ROUNDS))
                aged.add(await measure_acks(aged.world, read_rounds=READ_ROUNDS, write_rounds=0))
                aged.add(await measure_lone_ends(aged.world, aged.template, bare, LONE))
        for aged in worlds:
            if is_full:
                aged.add(await measure_ends(aged.world, aged.template, bare, MANY))
            memory = [aged.world.resident_megabytes()]
            aged.add([Figure(group=GROUP, name="memory of the bot (RSS)", unit="MB", values=memory)])
        none = worlds[0].figures
        return [
            _compared(figure, none[name], aged.history) for aged in worlds[1:] for name, figure in aged.figures.items()
        ]


def _compared(figure: Figure, none: Figure, history: int) -> Figure:
    return Figure(
        group=GROUP, name=f"{history:,} requests of history: {figure.name}", unit=figure.unit, values=figure.values,
        bare=median(none.values), goal=Goal(statistic="ratio", at_most=RATIO),
    )  # fmt: skip


async def _aged(stack: AsyncExitStack, server: PostgresServer, history: int, ledger: str) -> _Aged:
    world = await stack.enter_async_context(running_world(server, ledger=ledger))
    await world.start_bot()
    ended = await make_usable(world, 1)
    await give_back(world, ended)
    if history:
        await world.stop_bot()
        real = await asyncio.to_thread(RealGrant.read, world.ledger.engine, ended[0].waiting.number)
        await asyncio.to_thread(add_history, world.ledger.engine, real, history)
        await world.start_bot()
    (template,) = await make_usable(world, 1)
    await world.until_idle()
    return _Aged(history=history, world=world, template=template)
