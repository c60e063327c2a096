"""A lockdown ends all grants at once, by ``/dbaccess lockdown`` of an admin."""

from __future__ import annotations

import asyncio
import time

from benchmarks.bare import BareTimes
from benchmarks.figures import Figure, Goal
from benchmarks.grants import Usable
from benchmarks.many_grants import ManyGrants, many_grants
from benchmarks.slack import until
from benchmarks.world import ADMIN, World

GROUP = "Lockdown"
WITHIN = 5.0
PATIENCE = 240.0
FAR = 7_200.0
FORM_SECONDS = 1.0


async def has_lockdown(world: World) -> bool:
    """Whether this version has the command."""
    return (await world.command_line("lockdown", "--help")).returncode == 0


async def measure_lockdown(world: World, template: Usable, bare: BareTimes, number: int) -> list[Figure]:
    """From the command until nobody can log in and every session is dead. Nothing can be granted in this world afterwards."""
    async with many_grants(world, template, number, starts_in=FAR) as found:
        await world.until_idle()
        started = await _lock_down(world, found)
        await until("every session is dead", lambda: found.sessions.all_dead, PATIENCE)
        await until("every login is blocked", lambda: found.users.all_blocked, PATIENCE)
        numbers = list(found.ends)
        await until("every receipt is stored", lambda: world.ledger.count("revoked", numbers) == number, PATIENCE)
        over = time.time() - started
        await until("every user is removed", lambda: found.users.all_gone, PATIENCE)
        blocked = [max(found.sessions.died_at[n], found.users.blocked_at[n]) - started for n in numbers]
        return [
            Figure(
                group=GROUP, name=f"lockdown of {number:,}, until each login is blocked and its session dead", unit="s", values=blocked,
                goal=Goal(statistic="most", at_most=WITHIN), bare=bare.dead_at_once(number)[number // 2],
            ),
            Figure(
                group=GROUP, name=f"lockdown of {number:,}, until the last has its receipt", unit="s", values=[over],
                bare=bare.ended_at_once(number)[-1],
            ),
        ]  # fmt: skip


async def _lock_down(world: World, found: ManyGrants) -> float:
    """Send the command, and confirm the form where one opens. Returns the time of the last act."""
    known, started = len(world.slack.workspace.views), time.time()
    await world.slack.command(ADMIN, "lockdown")
    deadline = time.monotonic() + FORM_SECONDS
    while time.monotonic() < deadline and not found.sessions.died_at:
        if len(world.slack.workspace.views) > known and (form := world.slack.form(ADMIN)):
            started = time.time()
            await world.slack.submit(ADMIN, form)
            break
        await asyncio.sleep(0.01)
    return started
