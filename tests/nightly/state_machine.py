"""The state machine of the use cases: whatever people, clock, servers, Slack, configuration and bots do, in any order, every grant ends.

``python -m tests.nightly.state_machine [--steps 10000] [--ledger sqlite|postgresql|both] [--seed N] [--shrink]``
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any

import structlog
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import get_state_machine_test, invariant, rule

from bot.access import decide, revoke
from bot.access.errors import AccessError
from bot.access.use_case_types import FormNeeded
from bot.monitors.alerts import check_alerts
from bot.monitors.configuration import announce_files
from bot.monitors.groups import check_groups
from bot.monitors.members import check_members
from storage.records import State
from tests.access.environment import ADA, ADMIN, LEAD, SECOND
from tests.nightly import invariants
from tests.nightly.people import SCOPES, WANTED, People, Wanted, minutes
from tests.nightly.world import Bot
from tests.servers import postgresql

POSTGRESQL = 18
SECONDS = (1, 5, 61, 120, 601, 1860, 3660, 7200, 90000)
"""How far the clock is turned: past a lease (90 s), ``claim_within``, ``provision_within``, an expiry, ``request_ttl``, a day."""

points = st.integers(1, 40)
spans = st.sampled_from(SECONDS).map(lambda seconds: timedelta(seconds=seconds))
hangs = st.sampled_from((61, 120, 1860)).map(lambda seconds: timedelta(seconds=seconds))
bots = st.integers(0, 2)
fresh = st.none() | st.sampled_from(WANTED)


class UseCases(People):
    """Every rule is a step: those of people, and those of clock, bots, servers, Slack and configuration."""

    # Stories of several steps.

    @rule(who=st.sampled_from((ADA, LEAD, SECOND)), what=st.sampled_from(WANTED), lasts=minutes, heals=st.booleans())
    def grant(self, who: str, what: Wanted, lasts: timedelta, *, heals: bool) -> None:
        """The whole way to a live grant, if nothing is in its way. ``heals``: everything that is in its way is mended first."""
        if heals:
            self.heal()
            self.configure(0)
            self.do(self._lock_down("cli", SCOPES[0], lifts=True))
        self.do(self._grant(who, what, lasts))

    @rule(
        who=st.sampled_from((ADA, LEAD)),
        what=st.sampled_from(WANTED[:2]),
        lasts=minutes,
        meanwhile=st.sampled_from(("nothing", "lock down", "leave", "time", "configure", "deny")),
        deciders=st.lists(st.sampled_from((LEAD, SECOND, ADMIN, ADA)), max_size=4),
    )
    def decide_later(self, who: str, what: Wanted, lasts: timedelta, meanwhile: str, deciders: list[str]) -> None:
        """A request waits while something happens, and is decided then, or not, by several people."""
        self.do(self._ask(who, what, lasts))
        match meanwhile:
            case "lock down":
                self.lock_down(ADMIN, SCOPES[len(deciders)], lifts=False)
            case "leave":
                self.leave(who, comes=False)
            case "time":
                self.turn_clock(timedelta(minutes=31), runs=True)
            case "configure":
                self.configure(len(deciders))
            case "deny":
                self.deny(SECOND, 0)
        for decider in deciders:
            self.do(self._decide(decide.approve, decider, 0, State.PENDING))
        self.run(0)

    # Time, bots, tasks.

    @rule(by=spans, runs=st.booleans())
    def turn_clock(self, by: timedelta, *, runs: bool) -> None:
        self.do(self.world.turn(by, runs=runs))

    @rule(number=bots)
    def run(self, number: int) -> None:
        self.do(self._run(number))

    async def _run(self, number: int) -> None:
        await self.world.run(self.world.bot(number))
        invariants.check_overdue(await self._snapshot())

    @rule(number=bots)
    def run_one_task(self, number: int) -> None:
        self.do(self.world.run(self.world.bot(number), once=True))

    @rule(number=bots, point=points)
    def die_at(self, number: int, point: int) -> None:
        """A bot dies at this point of its work, if it comes so far."""
        self.world.points.dies_in = point
        self.do(self.world.run(self.world.bot(number)))
        self.world.points.dies_in = 0

    @rule(point=points, by=hangs, number=bots, what=fresh, takes_over=st.booleans())
    def clock_jumps_at(self, point: int, by: timedelta, number: int, what: Wanted | None, *, takes_over: bool) -> None:
        """The bot hangs at this point, and goes on later: its lease may be over, and others may have done its work."""

        async def act() -> None:
            await self.world.turn(by, runs=False)
            if takes_over:
                await self._act_as(self.world.bot(number).runner.drain)

        self._interrupt(point, act, what)

    @rule(
        point=points,
        verb=st.sampled_from(("done", "revoke", "lock down", "server down", "slack down", "configure", "lost")),
        what=fresh,
    )
    def act_at(self, point: int, verb: str, what: Wanted | None) -> None:
        """Somebody acts, or something fails, at this point of a bot's work."""

        async def act() -> None:
            match verb:
                case "done":
                    await self._on_request(revoke.done, None, 0, State.ACTIVE, State.APPROVED)
                case "revoke":
                    await self._on_request(revoke.revoke, ADMIN, 0, State.ACTIVE, State.APPROVED)
                case "lock down":
                    await self._lock_down(ADMIN, SCOPES[1], lifts=False)
                case "server down":
                    self.world.servers["postgresql"].is_up = False
                case "slack down":
                    self.world.messenger.is_down = True
                case "configure":
                    self.world.configure(3)
                case _:
                    self.world.servers["postgresql"].loses_answers = True

        self._interrupt(point, partial(self._act_as, act), what)

    def _interrupt(self, point: int, act: Callable[[], Awaitable[None]], what: Wanted | None) -> None:
        """``what`` is granted to Ada in this run, if nothing is in its way."""
        if what is not None:
            self.do(self._approved(ADA, what, timedelta(minutes=1)))
        self.world.points.action, self.world.points.acts_in = act, point
        self.do(self.world.run(self.world.bot()))
        self.world.points.action = None

    async def _act_as(self, act: Callable[[], Awaitable[Any]]) -> None:
        with suppress(AccessError, FormNeeded):
            await act()

    @rule()
    def start_replica(self) -> None:
        if not self.world.is_sqlite and len(self.world.bots) < 3:
            self.do(self.world.start_bot())

    @rule(number=bots)
    def kill_bot(self, number: int) -> None:
        self.do(self.world.kill(self.world.bot(number)))

    @rule(number=bots)
    def monitors(self, number: int) -> None:
        self.do(self._monitors(self.world.bot(number)))

    async def _monitors(self, bot: Bot) -> None:
        await announce_files(bot.context)
        await check_groups(bot.context)
        await check_members(bot.context)
        await check_alerts(bot.context)
        await bot.sweep.run()

    # What must be true.

    async def _snapshot(self) -> invariants.Snapshot:
        return await invariants.read(self.world.bot().context.ledger)

    @invariant()
    def holds(self) -> None:
        if not self.world.bots:
            return
        assert self.faults == []
        invariants.check(self.world, self.loop.run(self._snapshot()), self.memory)

    def teardown(self) -> None:
        try:
            if self.world.bots and sys.exc_info()[0] is None:
                self.loop.run(self._end())
        finally:
            self.loop.run(self.world.close())
            self.loop.close()
            structlog.configure(**self._was)

    async def _end(self) -> None:
        """Everything works again, and time passes: nobody is left."""
        self.world.heal()
        self.world.configure(0)
        for by in (1, 100, 100, 1900, 4000, 12000, 90000, 4000, 400, 400):
            await self.world.turn(timedelta(seconds=by), runs=True)
            for bot in list(self.world.bots):
                await self.world.run(bot)
                await self._monitors(bot)
        now = await self._snapshot()
        invariants.check(self.world, now, self.memory)
        invariants.check_end(self.world, now)
        type(self).reached.update(event.kind for event in now.events)
        assert self.faults == []
        passwords = self.world.messenger.passwords
        assert not list(await invariants.passwords_in(self.world.bot().context.ledger, passwords))


def profile(examples: int, *, steps: int = 50, fixed: bool = False, shrinks: bool = False) -> settings:
    """``fixed``: the same steps at every run. ``shrinks``: look for a shorter sequence that fails, for up to five minutes."""
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        derandomize=fixed,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink) if shrinks else (Phase.generate,),
        print_blob=False,
    )


def run(machine: type[UseCases], chosen: settings, number: int | None = None) -> None:
    """Run the machine. Raises what a step raised, with the shortest sequence of steps that was found."""
    test = get_state_machine_test(machine, settings=chosen)
    (seed(number)(test) if number is not None else test)()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.nightly.state_machine")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--shrink", action="store_true", help="look for a shorter sequence that fails")
    parser.add_argument("--ledger", choices=("sqlite", "postgresql", "both"), default="both")
    chosen = parser.parse_args(argv)
    for name in ("sqlite", "postgresql") if chosen.ledger == "both" else (chosen.ledger,):
        _say(str(run_ledger(name, chosen.steps, chosen.seed, shrinks=chosen.shrink)))
    return 0


def run_ledger(name: str, steps: int, first_seed: int | None, *, shrinks: bool = False) -> dict[str, Any]:
    """Run at least this many steps. Returns what was run."""
    if name == "sqlite":
        return _run_steps(UseCases, name, steps, first_seed, shrinks=shrinks)
    server = postgresql.start(POSTGRESQL)
    try:

        class OnPostgreSQL(UseCases):
            @classmethod
            def _new_url(cls) -> str | None:
                return server.superuser_url(server.new_database()).replace("postgresql://", "postgresql+psycopg://")

        return _run_steps(OnPostgreSQL, name, steps, first_seed, shrinks=shrinks)
    finally:
        server.remove()


def _run_steps(
    machine: type[UseCases], name: str, steps: int, first_seed: int | None, *, shrinks: bool
) -> dict[str, Any]:
    number, seeds, began = first_seed if first_seed is not None else random.randrange(2**32), [], time.monotonic()
    machine.taken, machine.reached = 0, Counter()
    while machine.taken < steps:
        _say(f"state machine on {name}: seed {number}, {machine.taken} steps so far")
        run(machine, profile(20, shrinks=shrinks), number)
        seeds.append(number)
        number += 1
    return {
        "ledger": name,
        "steps": machine.taken,
        "seeds": seeds,
        "seconds": round(time.monotonic() - began),
        "events": dict(machine.reached.most_common()),
    }


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
