"""Click to usable, and the processor time of a grant from its request to its end."""

from __future__ import annotations

from contextlib import suppress
from statistics import median

from benchmarks.bare import BareTimes
from benchmarks.figures import Figure, Goal
from benchmarks.grants import Usable, give_back, make_usable
from benchmarks.slack import TooLate
from benchmarks.world import World

GROUP = "Click to usable"
COST = "Cost of a grant"
ROUNDS = {1: 20, 16: 3, 64: 1}
LATE_SECONDS = 60.0
RATIO, PROCESSOR_SECONDS = 3.0, 0.12


async def measure_usable(world: World, bare: BareTimes, at_a_time: int, rounds: int | None = None) -> list[Figure]:
    """From the click on Approve until a login with the delivered credentials works, and what the grants cost until they have ended."""
    is_one, grants, rates, used = at_a_time == 1, list[Usable](), list[float](), list[float]()
    for _ in range(rounds or ROUNDS[at_a_time]):
        if not is_one:
            await world.restart_bot()
            await give_back(world, await make_usable(world, 1))
        before = world.processor_seconds()
        usable = await make_usable(world, at_a_time)
        await give_back(world, usable)
        used.append((world.processor_seconds() - before) / at_a_time)
        rates.append(at_a_time / 2 / median(grant.seconds for grant in usable))
        grants += usable
    late = await _late_work(world) / len(used) if is_one else 0.0
    name = "1 grant" if at_a_time == 1 else f"{at_a_time} grants at a time"
    figures = [
        Figure(
            group=GROUP, name=f"{name}, from the click to a working login", unit="s", values=[g.seconds for g in grants],
            bare=median(bare.usable_at_once(at_a_time)), goal=Goal(statistic="ratio", at_most=RATIO) if is_one else None,
            more={"filled_after": round(median(g.filled_after for g in grants), 4)},
        ),
        Figure(
            group=COST, name=f"{name}, processor time of the bot from request to end", unit="s", values=[seconds + late for seconds in used],
            goal=Goal(statistic="median", at_most=PROCESSOR_SECONDS),
        ),
    ]  # fmt: skip
    if not is_one:
        bare_rate = at_a_time / bare.usable_at_once(at_a_time)[-1]
        rate = f"{name}, grants a second until half of them are usable"
        figures.insert(1, Figure(group=GROUP, name=rate, unit="/s", values=rates, bare=bare_rate))
    return figures


async def _late_work(world: World) -> float:
    """The processor seconds of messages whose turn at Slack came later."""
    before = world.processor_seconds()
    with suppress(TooLate):
        await world.until_idle(LATE_SECONDS, ahead=LATE_SECONDS)
    return world.processor_seconds() - before
