"""The cost at rest: memory, processor time, and statements on the ledger, with and without somebody who asks for readiness."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

from benchmarks.figures import Figure, Goal
from benchmarks.grants import make_usable
from benchmarks.world import World

GROUP = "At rest"
MEGABYTES, STATEMENTS_A_MINUTE = 150, 20
LIVE, SETTLE_SECONDS, READY_EVERY = 5, 15.0, 5.0
AHEAD_SECONDS = 300.0
MINUTE = 60.0
HOOK = Path(__file__).parent / "statement_hook"
COUNTED = "DBACCESS_FIGURES_STATEMENTS"
NAMED_AT_MOST = 12


def count_statements(world: World) -> None:
    """Before the bot starts: SQLite reports each statement to a hook in the bot's process. PostgreSQL writes them into its log."""
    if world.ledger.is_sqlite:
        world.environment |= {"PYTHONPATH": str(HOOK), COUNTED: str(world.folder / "statements")}


async def measure_rest(world: World, seconds: float = MINUTE) -> list[Figure]:
    """A few grants are live, nobody does anything, and no message waits for its turn."""
    await make_usable(world, LIVE)
    await world.restart_bot()
    await world.until_idle(ahead=AHEAD_SECONDS)
    await asyncio.sleep(SETTLE_SECONDS)
    quiet = await _period(world, seconds, asks=False)
    asked = await _period(world, seconds, asks=True)
    per_minute = MINUTE / seconds
    goal = Goal(statistic="median", at_most=STATEMENTS_A_MINUTE)
    return [
        Figure(
            group=GROUP, name="memory of the bot (RSS)", unit="MB", values=[world.resident_megabytes()],
            goal=Goal(statistic="median", at_most=MEGABYTES),
        ),
        Figure(
            group=GROUP, name="statements on the ledger in a minute", unit="", values=[sum(quiet[0].values()) * per_minute],
            goal=goal, more={"statements": dict(quiet[0].most_common(NAMED_AT_MOST))},
        ),
        Figure(
            group=GROUP, name=f"the same, with /readyz every {READY_EVERY:.0f} s", unit="", values=[sum(asked[0].values()) * per_minute],
            more={"statements": dict(asked[0].most_common(NAMED_AT_MOST))},
        ),
        Figure(group=GROUP, name="processor time of the bot in a minute", unit="s", values=[quiet[1] * per_minute]),
    ]  # fmt: skip


async def _period(world: World, seconds: float, *, asks: bool) -> tuple[Counter[str], float]:
    """The statements of this time by their text, and the processor time."""
    known, before, end = len(statements(world)), world.processor_seconds(), time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if asks:
            await asyncio.to_thread(world.readyz)
        await asyncio.sleep(min(left, READY_EVERY))
    return Counter(statements(world)[known:]), world.processor_seconds() - before


def statements(world: World) -> list[str]:
    """The first words of all statements on the ledger so far."""
    if world.ledger.is_sqlite:
        path = world.folder / "statements"
        return path.read_text().splitlines() if path.exists() else []
    return world.ledger.logged_statements(world.server)
