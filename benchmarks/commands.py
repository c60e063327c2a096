"""Command to acknowledgement, while many people send commands, beside a bare Bolt listener."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import median

from benchmarks.figures import Figure
from benchmarks.grants import next_reason
from benchmarks.slack import TimedSlack, running_slack, until
from benchmarks.world import REQUESTERS, World, fill_workspace
from tests.fake_slack.workspace import APP_TOKEN, BOT_TOKEN

GROUP = "Command to acknowledgement"
AT_ONCE = 50
READ_ROUNDS, WRITE_ROUNDS = 8, 2
PAUSE_SECONDS = 0.2
Times = tuple[list[float], list[float]]
"""The seconds to each acknowledgement, and to each answer."""


async def measure_acks(
    world: World, *, read_rounds: int = READ_ROUNDS, write_rounds: int = WRITE_ROUNDS
) -> list[Figure]:
    """Fifty people send a command at the same moment, to the bot and to the bare listener in turns. ``list`` reads, ``request`` writes."""
    bare, reads = list[float](), list[Times]()
    async with bare_listener() as bare_slack:
        for slack in (bare_slack, world.slack):
            await acknowledged(slack, "list", answers=slack is world.slack)
        for _ in range(read_rounds):
            bare += (await acknowledged(bare_slack, "list"))[0]
            reads.append(await acknowledged(world.slack, "list", answers=True))
    writes = [await acknowledged(world.slack, "request", answers=True) for _ in range(write_rounds)]
    await world.until_idle()
    return [*_figures("list", reads, median(bare)), *_figures("request", writes, median(bare))]


def _figures(command: str, times: list[Times], bare: float) -> list[Figure]:
    if not times:
        return []
    return [
        _figure(command, "acknowledged", [s for acks, _ in times for s in acks], bare),
        _figure(command, "answered", [s for _, answers in times for s in answers], None),
    ]


def _figure(command: str, what: str, values: list[float], bare: float | None) -> Figure:
    name = f"{AT_ONCE} people send `{command}` at once, until each is {what}"
    return Figure(group=GROUP, name=name, unit="s", values=values, bare=bare)


async def acknowledged(slack: TimedSlack, command: str, *, answers: bool = False) -> Times:
    """The seconds from each command to its acknowledgement, and to its answer where ``answers`` are expected."""
    people, before = REQUESTERS[:AT_ONCE], len(slack.ephemeral_times)

    async def send(person: str) -> float:
        text = command if command == "list" else f"request shop readonly 1h {next_reason()}"
        started = time.monotonic()
        outcome = await slack.command(person, text)
        assert outcome.was_acked, f"{command} was not acknowledged"
        return time.monotonic() - started

    started = time.monotonic()
    acks = await asyncio.gather(*(send(person) for person in people))
    if answers:
        await until("each command is answered", lambda: len(slack.ephemeral_times) >= before + len(people))
    await asyncio.sleep(PAUSE_SECONDS)
    return acks, [at - started for at in slack.ephemeral_times[before:]]


@asynccontextmanager
async def bare_listener() -> AsyncIterator[TimedSlack]:
    """A fake Slack with a bare Bolt listener as its only app."""
    async with running_slack() as slack:
        fill_workspace(slack)
        tokens = {"SLACK_BOT_TOKEN": BOT_TOKEN, "SLACK_APP_TOKEN": APP_TOKEN, "SLACK_API_URL": f"{slack.url}/api/"}
        process = await asyncio.to_thread(
            subprocess.Popen,
            [sys.executable, "-m", "benchmarks.bolt_listener"],
            env={**os.environ, **tokens},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            await until("the listener is connected", lambda: slack.is_connected)
            yield slack
        finally:
            process.kill()
            await asyncio.to_thread(process.wait)
