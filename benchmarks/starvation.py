"""The delay of the end of a grant on a healthy server, while everything else is slow.

200 expired grants on a server that accepts connections and never answers, Slack takes 14.5 seconds for each call, and 300
requests of one person wait for their cards.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from benchmarks.dead_server import FailingServer
from benchmarks.figures import Figure, Goal
from benchmarks.grants import Usable, approve, make_request, next_reason
from benchmarks.many_grants import create_users, make_copies, set_expiry_on_server, store_copies
from benchmarks.prefill import RealGrant
from benchmarks.sessions import RoleWatch, SessionWatch
from benchmarks.slack import Call, TooLate, until
from benchmarks.world import ALERTS, REQUESTERS, World, admin_url, database_entry, new_server, running_world
from tests.contract.postgresql.harness import build
from tests.servers.postgresql import PostgresServer

GROUP = "Everything slow at once"
EXPIRED, WAITING, HEALTHY = 200, 300, 24
FIRST_END, APART = 15.0, 2.0
SLACK_SECONDS = 14.5
"""Just below the 15 seconds after which the bot gives a call up. So each call is slow, and succeeds."""
LATE_AT_MOST, ALERT_WITHIN = 1.0, 60.0
CUT_OFF = 120.0
CALLS_NAMED = 60
COMMANDS_AT_ONCE = 10
CONNECTS = frozenset({"auth.test", "apps.connections.open"})


@dataclass(frozen=True, kw_only=True)
class Scene:
    world: World
    dead: FailingServer
    healthy: Usable
    on_dead: Usable


async def measure_starvation(server: PostgresServer) -> list[Figure]:
    """Build the scene and watch the ends on the healthy server."""
    async with _scene(server) as scene:
        world = scene.world
        await _many_requests(world)
        await world.stop_bot(signal.SIGKILL)
        engine = world.ledger.engine
        on_dead, healthy = (RealGrant.read(engine, one.waiting.number) for one in (scene.on_dead, scene.healthy))
        store_copies(world, on_dead, make_copies(world, on_dead, EXPIRED), starts_in=-60, apart=0)
        copies = make_copies(world, healthy, HEALTHY)
        password = await create_users(world.harness, healthy, copies)
        login = {**scene.healthy.login, "Password": password}
        async with SessionWatch() as sessions, RoleWatch(world, {c.number: c.username for c in copies}) as users:
            await sessions.open({c.number: {**login, "Username": c.username} for c in copies})
            ends = store_copies(world, healthy, copies, starts_in=FIRST_END, apart=APART)
            set_expiry_on_server(world.harness, copies, ends)
            due = {copy.number: at.timestamp() for copy, at in zip(copies, ends, strict=True)}
            await _run_slowly(scene, lambda: users.all_gone and sessions.all_dead, max(due.values()) + CUT_OFF)
            cut_off = time.time()
            dead = [sessions.died_at.get(number, cut_off) - at for number, at in due.items()]
            gone = [users.gone_at.get(number, cut_off) - at for number, at in due.items()]
            never = sum(number not in users.gone_at for number in due)
        return _figures(scene, dead, gone, never)


def _figures(scene: Scene, dead: list[float], gone: list[float], never: int) -> list[Figure]:
    first = scene.dead.first_hang_at
    alert = _alert(scene.world, first or 0.0)
    note = f"{never} of {HEALTHY} had not ended {CUT_OFF:.0f} s after the last of these ends" if never else ""
    goal = Goal(statistic="p99", at_most=LATE_AT_MOST)
    until_alert = alert.answered_at if alert else time.monotonic()
    after = until_alert - (first or until_alert)
    return [
        Figure(
            group=GROUP, name="end on a healthy server, until its session is dead", unit="s", values=dead, goal=goal, note=note
        ),
        Figure(
            group=GROUP, name="end on a healthy server, until its user is removed", unit="s", values=gone, goal=goal, note=note,
            more={"connections_that_hung": scene.dead.hangs},
        ),
        Figure(
            group=GROUP, name="alert about the dead server in its channel", unit="s",
            values=[after], goal=Goal(statistic="most", at_most=ALERT_WITHIN),
            note="" if alert else "no alert was posted",
            more={"calls": _calls_until(scene.world, first or 0.0, alert)},
        ),
    ]  # fmt: skip


def _calls_until(world: World, first: float, alert: Call | None) -> list[str]:
    """The calls of Slack until the alert, each with the seconds at which it came."""
    last = alert.answered_at if alert else time.monotonic()
    calls = [call for call in world.slack.timeline if first <= call.received_at <= last]
    return [f"{call.received_at - first:.1f} {call.method} {call.arguments.get('channel', '')}" for call in calls][
        :CALLS_NAMED
    ]


def _alert(world: World, since: float) -> Call | None:
    """The first alert that names the dead database."""
    for call in world.slack.timeline:
        is_posted = call.method == "chat.postMessage" and call.arguments.get("channel") == ALERTS
        if is_posted and call.received_at >= since and "reports" in call.text:
            return call
    return None


@asynccontextmanager
async def _scene(server: PostgresServer) -> AsyncIterator[Scene]:
    """A bot with two databases. The server of ``reports`` dies after one grant was made on it."""
    other = await asyncio.to_thread(new_server)
    dead = FailingServer(other.port)
    await dead.start()
    try:
        async with running_world(server) as world:
            harness = build(other)
            world.databases["reports"] = database_entry(harness, "REPORTS_ADMIN_URL")
            url = admin_url(harness).replace(f":{other.port}/", f":{dead.port}/")
            world.admin_urls["REPORTS_ADMIN_URL"] = url
            await world.start_bot()
            healthy, on_dead = [
                await approve(world, await make_request(world, REQUESTERS[1], database))
                for database in ("shop", "reports")
            ]
            await world.until_idle()
            dead.fail()
            try:
                yield Scene(world=world, dead=dead, healthy=healthy, on_dead=on_dead)
            finally:
                await world.stop_bot(signal.SIGKILL)
    finally:
        await dead.stop()
        other.remove()


async def _many_requests(world: World) -> None:
    """300 requests of one person, whose cards Slack does not take now."""
    world.slack.slow["chat.postMessage"] = SLACK_SECONDS
    gate, first = asyncio.Semaphore(COMMANDS_AT_ONCE), world.ledger.newest_request() + 1

    async def one(minutes: int) -> None:
        async with gate:
            await world.slack.command(REQUESTERS[0], f"request shop readonly {minutes}m {next_reason()}")

    await asyncio.gather(*(one(minutes) for minutes in range(1, WAITING + 1)))
    numbers = (first, first + WAITING)
    await until("the requests wait", lambda: world.ledger.count("pending", numbers) >= WAITING)


async def _run_slowly(scene: Scene, is_over: Callable[[], bool], end: float) -> None:
    """Run the bot with a slow Slack until all is over, at the latest until ``end`` in seconds of ``time.time``."""
    slack = scene.world.slack
    slack.slow_everywhere, slack.quick = SLACK_SECONDS, CONNECTS
    await scene.world.start_bot(wait_ready=False)
    try:
        await until("the healthy grants have ended", is_over, end - time.time())
        await until("the alert is posted", lambda: _alert(scene.world, 0.0) is not None, ALERT_WITHIN)
    except TooLate:
        pass
