"""Load: 20 commands a second over three replicas, with grants among them. No error, flat memory and connections, and ends on time.

Slack takes about 50 updates of messages a minute, and the bot gives half of them to the cards. Each grant needs about three. So most of the
commands are refused by the policy, as those of a script that went wrong; the others are grants that end by themselves, and withdrawn requests.

``python -m tests.nightly.load --seconds 3600``.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from tests.nightly.aftermath import Finding, check, percentile
from tests.nightly.fleet import LEADS, Fleet, Servers, running_fleet, running_servers
from tests.nightly.stories import Cast, LedgerView, Story
from tests.nightly.users import UserWatch

RATE, GRANTS_A_SECOND = 20.0, 0.25
KINDS = ("approved", "automatic", "cancelled", "done")
GRANT_SECONDS = 20
SAMPLE_SECONDS = 2.0
LATE_SECONDS = 1.0
GROWTH_MEGABYTES = 25.0
"""The most that a process may grow from its first third to its last third."""
MORE_CONNECTIONS = 6


@dataclass
class Samples:
    """Resident megabytes of each bot, and open connections on the servers, over time."""

    memory: dict[int, list[float]] = field(default_factory=dict)
    connections: list[int] = field(default_factory=list)

    async def take(self, fleet: Fleet) -> None:
        """Take samples until cancelled."""
        while True:
            for bot in fleet.bots:
                if bot.process is not None:
                    self.memory.setdefault(bot.number, []).append(resident_megabytes(bot.process.pid))
            self.connections.append(await asyncio.to_thread(connections, fleet))
            await asyncio.sleep(SAMPLE_SECONDS)

    def findings(self) -> list[Finding]:
        found = [
            Finding("memory", f"bot {number} grew by {grown:.0f} MB")
            for number, values in self.memory.items()
            if (grown := growth(values)) > GROWTH_MEGABYTES
        ]
        if growth([float(n) for n in self.connections]) > MORE_CONNECTIONS:
            found.append(Finding("connections", f"grew from {self.connections[0]} to {self.connections[-1]}"))
        return found


def growth(values: Sequence[float]) -> float:
    """The median of the last third minus that of the second sixth: the start is left out."""
    size = len(values)
    early, late = values[size // 6 : size // 3], values[-(size // 3) :]
    return median(late) - median(early) if early and late else 0.0


def resident_megabytes(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1]) / 1024


def connections(fleet: Fleet) -> int:
    """The connections of the bots to the ledger and the targets."""
    with fleet.shop.superuser("postgres") as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE usename = %s OR starts_with(datname, 'ledger')"
        row = connection.execute(query, (fleet.shop.bot,)).fetchone()
    clients = str(fleet.servers.redis.run("CLIENT", "LIST"))
    return int(str(row[0] if row else 0)) + clients.count(f"user={fleet.cache.bot} ")


@dataclass
class Load:
    """People who send commands at a steady rate."""

    fleet: Fleet
    view: LedgerView
    counts: Counter[str] = field(default_factory=Counter)
    stories: list[Story] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    _running: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self, seconds: float, rate: float, grants: float) -> None:
        """Send commands for so many seconds, and wait for what they began."""
        cast, kinds, leads = Cast(), itertools.cycle(KINDS), itertools.cycle(LEADS)
        began, sent, granted = time.monotonic(), 0, 0
        while (now := time.monotonic() - began) < seconds:
            for _ in range(int(now * rate) - sent):
                sent += 1
                if granted < now * grants:
                    granted += 1
                    database = ("shop", "cache")[granted // len(KINDS) % 2]
                    story = cast.story(self.fleet, self.view, next(kinds), database, GRANT_SECONDS)
                    self.stories.append(story)
                    self._begin(story.run())
                else:
                    self._begin(self._refused(next(leads), sent))
            await asyncio.sleep(0.02)
        await asyncio.gather(*self._running)

    def _begin(self, act: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(self._counted(act))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _counted(self, act: Coroutine[Any, Any, None]) -> None:
        try:
            await act
        except Exception as error:  # noqa: BLE001 - every error of a person is counted, and fails the run at its end
            self.errors[f"{type(error).__name__}: {str(error)[:200]}"] += 1

    async def _refused(self, person: str, number: int) -> None:
        """A person whom no rule names asks for access."""
        outcome = await self.fleet.slack.command(person, f"request shop readonly 1h refused{number}")
        self.counts["refused" if outcome.was_acked else "not acknowledged"] += 1


async def run(servers: Servers, seconds: float, rate: float = RATE, grants: float = GRANTS_A_SECOND) -> dict[str, Any]:
    """The figures of one run. ``findings`` in it is empty where all is as promised."""
    samples, findings, figures = Samples(), list[Finding](), dict[str, Any]()
    async with running_fleet(servers, ledger="postgresql", replicas=3) as fleet:
        await fleet.start()
        view = LedgerView(fleet)
        background = [asyncio.create_task(view.watch()), asyncio.create_task(samples.take(fleet))]
        load = Load(fleet, view)
        with UserWatch(fleet) as watch:
            await load.run(seconds, rate, grants)
            background[1].cancel()
            while view.unfinished_tasks():
                await asyncio.sleep(0.3)
        for task in background:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        refused = load.counts["refused"]
        answered = sum(1 for answer in fleet.slack.workspace.ephemerals if answer["user"] in LEADS)
        await check(findings, figures, fleet, load.stories, watch)
        findings += samples.findings()
        findings += [Finding("error", f"{times} times {what}") for what, times in load.errors.most_common(10)]
        findings += [Finding("log", line[:300]) for line in errors_in(fleet.log_text())[:10]]
        if load.counts["not acknowledged"]:
            findings.append(Finding("command", f"{load.counts['not acknowledged']} were not acknowledged"))
    if answered < refused:
        findings.append(Finding("command", f"{refused - answered} of {refused} got no answer"))
    if figures["late p99 s"] >= LATE_SECONDS:
        findings.append(Finding("late", f"p99 is {figures['late p99 s']} s"))
    return {
        "seconds": seconds, "commands a second": rate, "grants a second": grants, "refused": refused, **figures,
        "memory MB": {number: [round(v[len(v) // 6]), round(v[-1])] for number, v in samples.memory.items()},
        "connections": [samples.connections[len(samples.connections) // 6], samples.connections[-1]],
        "connections most": max(samples.connections), "p99 of connections": percentile([float(n) for n in samples.connections], 99),
        "findings": [str(one) for one in findings[:20]],
    }  # fmt: skip


def errors_in(log: str) -> list[str]:
    """The lines of a log that say an error."""
    return [line for line in log.splitlines() if '"level": "error"' in line or line.startswith("Traceback")]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.nightly.load", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--rate", type=float, default=RATE, help="commands a second")
    parser.add_argument(
        "--grants", type=float, default=GRANTS_A_SECOND, help="of these, so many go their way to a grant"
    )
    options = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with running_servers() as servers:
        result = asyncio.run(run(servers, options.seconds, options.rate, options.grants))
    print(json.dumps(result), flush=True)
    return 1 if result["findings"] else 0


if __name__ == "__main__":
    sys.exit(main())
