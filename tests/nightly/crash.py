"""Real bots are killed with SIGKILL at every kind of moment, while people request, use and give back access. Then everything is checked.

``python -m tests.nightly.crash --rounds 40 --ledger sqlite``. The seed is printed; the order of moments and pauses follows from it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.nightly.aftermath import Finding, check
from tests.nightly.fleet import Bot, Fleet, Servers, running_fleet, running_servers
from tests.nightly.moments import Killer, Moment, moments, shuffled
from tests.nightly.stories import STORIES, Cast, LedgerView, Story
from tests.nightly.users import UserWatch

SEED = 20261123
PER_ROUND = 4
SECONDS = (10, 20)
"""The duration of a grant. It ends in this round or in one of the next ones."""
MOMENT_SECONDS = 6.0
"""A moment that does not come within this time is replaced by a kill at that time."""
LONG_PAUSE = (10.0, 20.0)
SETTLE_SECONDS = 400.0
FRESH_SECONDS = 12.0


@dataclass
class Result:
    """What a run showed. ``findings``: what must not be. Empty where everything is as promised."""

    ledger: str
    seed: int
    rounds: int
    kills: int = 0
    moments: Counter[str] = field(default_factory=Counter)
    not_reached: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    def as_json(self) -> dict[str, Any]:
        return {
            "ledger": self.ledger, "seed": self.seed, "rounds": self.rounds, "kills": self.kills, "seconds": round(self.seconds),
            "moments": dict(sorted(self.moments.items())), "moments not reached": sum(self.not_reached.values()),
            "figures": self.figures, "findings": [str(one) for one in self.findings[:20]],
        }  # fmt: skip


@dataclass
class Run:
    """A run in progress. ``tasks`` are the stories, which last longer than their round."""

    fleet: Fleet
    chance: random.Random
    result: Result
    view: LedgerView
    cast: Cast = field(default_factory=Cast)
    stories: list[Story] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    async def round(self, moment: Moment) -> None:
        """Start some stories, kill a bot at the moment, and start it again."""
        self.begin_stories()
        killer = Killer(self.fleet, moment, self.chance)
        bot, was_reached = await killer.wait(MOMENT_SECONDS)
        self.result.moments[str(moment)] += was_reached
        self.result.not_reached[str(moment)] += not was_reached
        await self.come_back(bot)

    def begin_stories(self) -> None:
        kinds = list(STORIES)
        first = len(self.stories)
        for number in range(first, first + PER_ROUND):
            kind, database = kinds[number % len(kinds)], ("shop", "cache")[(number // len(kinds) + number) % 2]
            story = self.cast.story(self.fleet, self.view, kind, database, self.chance.randint(*SECONDS))
            self.stories.append(story)
            self.tasks.append(asyncio.create_task(story.run()))

    async def come_back(self, bot: Bot) -> None:
        """Start the bot again: at once, after a pause, or with another kill while it starts. Sometimes all replicas are killed."""
        self.result.kills += 1
        down, way = [bot], self.chance.random()
        if way < 0.1:
            down = list(self.fleet.bots)
            self.result.kills += len(down) - 1
            for each in down:
                each.kill()
        if 0.1 <= way < 0.2:
            await asyncio.sleep(self.chance.uniform(*LONG_PAUSE))
        for each in down:
            again = asyncio.create_task(self.fleet.restart(each))
            if 0.2 <= way < 0.4:
                await asyncio.sleep(self.chance.uniform(0.3, 3.0))
                each.kill()
                self.result.kills += 1
            await again
            if each.killed_at is not None:
                await self.fleet.restart(each)

    async def settle(self) -> None:
        """Wait until every story is over and nothing is left to do."""
        waiting = set(self.tasks)
        while waiting:
            _, waiting = await asyncio.wait(waiting, timeout=20)
            names = [str(story) for story, task in zip(self.stories, self.tasks, strict=True) if not task.done()]
            if names:
                print(f"{len(names)} stories go on: {'; '.join(names[:5])}", file=sys.stderr, flush=True)
        outcomes = await asyncio.gather(*self.tasks, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                self.result.findings.append(Finding("story", f"{type(outcome).__name__}: {outcome}"[:500]))
        deadline, fresh_until = time.monotonic() + SETTLE_SECONDS, 0.0
        while (left := self.view.unfinished_tasks()) and time.monotonic() < deadline:
            if time.monotonic() > fresh_until:
                print(f"left to do: {left}", file=sys.stderr, flush=True)
                # new processes have used up none of the updates that Slack takes in a minute
                await self.fleet.stop()
                await self.fleet.start()
                fresh_until = time.monotonic() + FRESH_SECONDS
            await asyncio.sleep(0.3)


async def run(servers: Servers, *, ledger: str, rounds: int, seed: int = SEED) -> Result:
    """All rounds with one ledger: one bot with SQLite, three with PostgreSQL."""
    chance, started = random.Random(f"{seed} {ledger}"), time.monotonic()
    result = Result(ledger, seed, rounds)
    async with running_fleet(servers, ledger=ledger, replicas=1 if ledger == "sqlite" else 3) as fleet:
        await fleet.start()
        view = LedgerView(fleet)
        looking = asyncio.create_task(view.watch())
        with UserWatch(fleet) as watch:
            this = Run(fleet, chance, result, view)
            order = shuffled(moments(ledger=ledger), chance)
            for number in range(rounds):
                moment = next(order)
                print(f"{ledger} {number + 1}/{rounds} {moment}", file=sys.stderr, flush=True)
                await this.round(moment)
            await this.settle()
        looking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await looking
        await check(result.findings, result.figures, fleet, this.stories, watch)
    result.seconds = time.monotonic() - started
    return result


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.nightly.crash", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--ledger", choices=["sqlite", "postgresql"], nargs="+", default=["sqlite", "postgresql"])
    options = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(f"seed {options.seed}")
    found = []
    with running_servers() as servers:
        for ledger in options.ledger:
            found.append(asyncio.run(run(servers, ledger=ledger, rounds=options.rounds, seed=options.seed)))
            print(json.dumps(found[-1].as_json()), flush=True)
    return 1 if any(result.findings for result in found) else 0


if __name__ == "__main__":
    sys.exit(main())
