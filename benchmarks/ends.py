"""Expiry to dead: grants that end in the same second, each with an open session. And all of them at once by a lockdown."""

from __future__ import annotations

import time
from collections.abc import Mapping
from statistics import median

from benchmarks.bare import BareTimes
from benchmarks.figures import Figure, Goal
from benchmarks.grants import Usable
from benchmarks.many_grants import ManyGrants, many_grants
from benchmarks.slack import until
from benchmarks.world import World

GROUP = "Expiry to dead"
LONE, APART = 20, 0.7
PATIENCE = 240.0
BEFORE_FIRST = 7.0
"""Seconds from the start of the bot until the first end: it is ready by then."""
SESSIONS_WITHIN, RECEIPTS_WITHIN = 5.0, 25.0
LARGE = 1_000


async def measure_lone_ends(world: World, template: Usable, bare: BareTimes, number: int = LONE) -> list[Figure]:
    """Ends that come one at a time."""
    async with many_grants(world, template, number, starts_in=BEFORE_FIRST, apart=APART) as found:
        await _all_over(world, found)
        return [
            Figure(
                group=GROUP, name="1 end, until its session is dead", unit="s", values=_late(found, found.sessions.died_at),
                bare=median(bare.dead), goal=Goal(statistic="median", at_most=0.1),
            ),
            Figure(
                group=GROUP, name="1 end, until its user is removed", unit="s", values=_late(found, found.users.gone_at),
                bare=median(bare.ended),
            ),
        ]  # fmt: skip


async def measure_ends(world: World, template: Usable, bare: BareTimes, number: int) -> list[Figure]:
    """Ends that fall into the same second."""
    async with many_grants(world, template, number, starts_in=BEFORE_FIRST + number / 250) as found:
        at = next(iter(found.ends.values()))
        ahead = at - time.time()
        receipts_after = await _all_over(world, found)
        note = "" if ahead > 0 else f"the bot was ready {-ahead:.1f} s after the end"
        goals = {"dead": SESSIONS_WITHIN, "over": RECEIPTS_WITHIN} if number >= LARGE else {}
        return [
            Figure(
                group=GROUP, name=f"{number:,} ends in one second, until each session is dead", unit="s",
                values=_late(found, found.sessions.died_at), bare=median(bare.dead_at_once(number)),
                goal=_at_most(goals.get("dead")), note=note,
            ),
            Figure(
                group=GROUP, name=f"{number:,} ends in one second, until each user is removed", unit="s",
                values=_late(found, found.users.gone_at), bare=median(bare.ended_at_once(number)),
                goal=_at_most(goals.get("over")), note=note,
            ),
            Figure(
                group=GROUP, name=f"{number:,} ends in one second, until the last has its receipt", unit="s",
                values=[receipts_after], bare=bare.ended_at_once(number)[-1], goal=_at_most(goals.get("over")), note=note,
            ),
        ]  # fmt: skip


def _at_most(seconds: float | None) -> Goal | None:
    return Goal(statistic="most", at_most=seconds) if seconds else None


async def _all_over(world: World, found: ManyGrants) -> float:
    """Wait until every session is dead, every user gone and every receipt stored. Returns the seconds from the last end."""
    last, numbers = max(found.ends.values()), list(found.ends)
    seconds = max(0.0, last - time.time()) + PATIENCE
    await until("every session is dead", lambda: found.sessions.all_dead, seconds)
    await until("every receipt is stored", lambda: world.ledger.count("revoked", numbers) == len(numbers), seconds)
    stored_at = time.time()
    await until("every user is removed", lambda: found.users.all_gone, seconds)
    return stored_at - last


def _late(found: ManyGrants, happened_at: Mapping[int, float]) -> list[float]:
    return [happened_at[number] - end for number, end in found.ends.items()]
