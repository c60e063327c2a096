"""The state machine of the use cases: whatever people, clock, servers, Slack, configuration and bots do, in any order, every grant ends.

``python -m tests.nightly.state_machine [--steps 10000] [--ledger sqlite|postgresql|both] [--seed N] [--shrink]``
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any, ClassVar

import structlog
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    get_state_machine_test,
    initialize,
    invariant,
    rule,
)

from adapters.base import Rejected
from bot.access import decide, extend, lockdown, password, request_access, review, revoke
from bot.access.errors import AccessError
from bot.access.ports import Person
from bot.access.use_case_types import FormNeeded, LockdownScope, RequestInput
from bot.monitors.alerts import check_alerts
from bot.monitors.configuration import announce_files
from bot.monitors.groups import check_groups
from bot.monitors.members import check_members, end_access_of_former_member
from storage.records import Request, RequestKind, State
from tests.access.environment import ADA, ADMIN, GUEST, LEAD, SECOND, STRANGER, Killed
from tests.nightly import configurations, invariants
from tests.nightly.world import Bot, World
from tests.servers import postgresql

Wanted = tuple[str, str, RequestKind]

PEOPLE = (ADA, LEAD, SECOND, ADMIN, STRANGER, GUEST)
WANTED = (
    ("shop", "readonly", RequestKind.ACCESS),
    ("shop", "write", RequestKind.ACCESS),
    ("stock", "readonly", RequestKind.ACCESS),
    ("shop", "readonly", RequestKind.BREAK_GLASS),
    ("stock", "readonly", RequestKind.BREAK_GLASS),
)
SCOPES = (
    LockdownScope(),
    LockdownScope(database="shop"),
    LockdownScope(database="stock"),
    LockdownScope(person_id=ADA),
    LockdownScope(person_id=LEAD),
)
POSTGRESQL = 18
OPERATOR = Person(id="cli:root", name="root", is_member=True)
SECONDS = (1, 5, 61, 120, 601, 1860, 3660, 7200, 90000)
"""How far the clock is turned: past a lease (90 s), ``claim_within``, ``provision_within``, an expiry, ``request_ttl``, a day."""
FAULTS = frozenset({
    "task_failed", "runner_failed", "probe_failed", "sweep_failed", "adapter_failed", "group_failed", "listener_failed",
    "task_set_aside", "ledger_unavailable", "task_interrupted",
})  # fmt: skip
"""Log events that stand for a fault of dbaccess itself."""

whos, whats, points = st.sampled_from(PEOPLE), st.integers(0, 7), st.integers(1, 60)
spans = st.sampled_from(SECONDS).map(lambda seconds: timedelta(seconds=seconds))
minutes = st.sampled_from([1, 15, 45, 60, 120, 121]).map(lambda number: timedelta(minutes=number))
bots = st.integers(0, 2)
fresh = st.none() | st.sampled_from(WANTED)


class UseCases(RuleBasedStateMachine):
    """Every rule is a step."""

    taken: ClassVar[int] = 0
    reached: ClassVar[Counter[str]] = Counter()
    """How often each kind of transition was made, over all runs."""

    def __init__(self) -> None:
        super().__init__()
        os.environ.setdefault("SHOP_ADMIN_URL", "postgresql://bot:ShopAdminSecret@localhost/shop")
        os.environ.setdefault("STOCK_ADMIN_URL", "mysql://bot:StockAdminSecret@localhost/stock")
        self.faults = list[str]()
        self._was = structlog.get_config()
        structlog.configure(processors=[self._note])
        self.loop = asyncio.Runner()
        self.world = World(url=self._new_url())
        self.memory = invariants.Memory()
        self.valid = 0

    @classmethod
    def _new_url(cls) -> str | None:
        """The URL of a new, empty PostgreSQL ledger. None means SQLite."""
        return None

    def _note(self, _logger: Any, _method: str, event: dict[str, Any]) -> Any:
        if event["event"] in FAULTS:
            self.faults.append(repr(event))
        raise structlog.DropEvent

    def do(self, what: Awaitable[Any]) -> Any:
        """One step. What a person does is refused, or done, or the bot dies meanwhile; nothing else."""
        type(self).taken += 1
        return self.loop.run(self._do(what))

    async def _do(self, what: Awaitable[Any]) -> Any:
        try:
            return await what
        except (AccessError, FormNeeded):
            return None
        except Killed:
            await self.world.kill(self.world.bot())
            return None

    @initialize(given=st.lists(st.tuples(st.sampled_from((ADA, LEAD, SECOND)), st.sampled_from(WANTED)), max_size=4))
    def begin(self, given: list[tuple[str, Wanted]]) -> None:
        """A bot runs, and some grants are live."""
        self.loop.run(self.world.start_bot())
        for who, what in given:
            self.do(self._grant(who, what, timedelta(hours=1)))

    # Requests. ``who`` is often the wrong person.

    async def _person(self, who: str) -> Person:
        return await self.world.bot().context.member(who)

    async def _request(self, number: int, *states: State) -> Request:
        """A request in one of these states if there is one, else any. ``number`` counts from the newest."""
        found = await self.world.bot().context.ledger.requests.find()
        found = tuple(one for one in found if one.state in states) or found
        if not found:
            raise AccessError("there is no request yet")
        return found[number % len(found)]

    @rule(who=st.sampled_from((ADA, LEAD, SECOND, STRANGER)), what=st.sampled_from(WANTED), lasts=minutes)
    def ask(self, who: str, what: Wanted, lasts: timedelta) -> None:
        self.do(self._ask(who, what, lasts))

    async def _ask(self, who: str, what: Wanted, lasts: timedelta) -> None:
        context = self.world.bot().context
        usage = await context.ledger.requests.usage(who, what[0], now=self.world.clock())
        wanted = RequestInput(database=what[0], level=what[1], duration=lasts, reason="a refund", kind=what[2])
        outcome = await request_access.request_access(context, await self._person(who), wanted)
        assert who != STRANGER
        if outcome.is_new and what[2] is RequestKind.ACCESS and not self.world.points.action:
            limits = configurations.in_force(self._in_force())
            assert usage.live_of_person < limits.live_per_person
            assert usage.live_of_database < limits.live_per_database
            assert usage.waiting_of_person < limits.waiting_per_person

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

    async def _grant(self, who: str, what: Wanted, lasts: timedelta) -> None:
        await self._approved(who, what, lasts)
        await self.world.run(self.world.bot())

    async def _approved(self, who: str, what: Wanted, lasts: timedelta) -> None:
        await self._ask(who, what, lasts)
        for approver in (LEAD, SECOND, ADMIN):
            with suppress(AccessError):
                await self._decide(decide.approve, approver, 0, State.PENDING)

    @rule(number=whats, lasts=minutes)
    def extend(self, number: int, lasts: timedelta) -> None:
        self.do(self._extend(number, lasts))

    async def _extend(self, number: int, lasts: timedelta) -> None:
        grant = await self._request(number, State.ACTIVE)
        wanted = RequestInput(duration=lasts, reason="it takes longer")
        person = await self._person(grant.requester_id)
        await extend.extend(self.world.bot().context, person, grant.id, wanted)
        for approver in (LEAD, SECOND, ADMIN) if number % 2 else ():
            with suppress(AccessError):
                await self._decide(decide.approve, approver, 0, State.PENDING)

    @rule(who=st.sampled_from((LEAD, SECOND)), number=whats)
    def approve(self, who: str, number: int) -> None:
        self.do(self._decide(decide.approve, who, number, State.PENDING))

    @rule(who=whos, number=whats)
    def approve_as_anybody(self, who: str, number: int) -> None:
        self.do(self._decide(decide.approve, who, number, State.PENDING))

    @rule(who=whos, number=whats)
    def deny(self, who: str, number: int) -> None:
        self.do(self._decide(partial(decide.deny, reason="not today"), who, number, State.PENDING))

    @rule(who=st.sampled_from((SECOND, ADMIN, LEAD)), number=whats)
    def sign_off(self, who: str, number: int) -> None:
        self.do(self._decide(review.sign_off, who, number, State.ACTIVE, State.REVOKED))

    async def _decide(self, verb: Callable[..., Awaitable[Request]], who: str, number: int, *states: State) -> None:
        request = await self._request(number, *states)
        await verb(self.world.bot().context, await self._person(who), request)
        may = configurations.in_force(self._in_force()).deciders.get(request.terms.rule, frozenset())
        assert who in may, f"{who} decided {request.terms.rule}"

    def _in_force(self) -> int:
        """The number of the configuration in force: the last valid one that the acting bot has seen."""
        if self.world.configuration < configurations.INVALID:
            self.valid = self.world.configuration
        return self.valid

    @rule(who=whos, number=whats)
    def cancel(self, who: str, number: int) -> None:
        self.do(self._on_request(request_access.cancel, who, number, State.PENDING))

    @rule(who=whos, number=whats)
    def revoke(self, who: str, number: int) -> None:
        self.do(self._on_request(revoke.revoke, who, number, State.ACTIVE, State.APPROVED))

    @rule(number=whats)
    def done(self, number: int) -> None:
        self.do(self._on_request(revoke.done, None, number, State.ACTIVE, State.APPROVED))

    async def _on_request(self, verb: Callable[..., Awaitable[Any]], who: str | None, number: int, *at: State) -> None:
        request = await self._request(number, *at)
        await verb(self.world.bot().context, await self._person(who or request.requester_id), request.id)

    @rule(number=whats, shows=st.booleans())
    def new_password(self, number: int, *, shows: bool) -> None:
        self.do(self._new_password(number, shows=shows))

    async def _new_password(self, number: int, *, shows: bool) -> None:
        request = await self._request(number, State.ACTIVE)
        verb = password.reveal if shows else password.renew
        shown = await verb(self.world.bot().context, await self._person(request.requester_id), request)
        if isinstance(shown, password.ShownPassword):
            self.world.messenger.passwords.add(shown.password)

    @rule(who=st.sampled_from((ADMIN, LEAD, "cli")), scope=st.sampled_from(SCOPES), lifts=st.booleans())
    def lock_down(self, who: str, scope: LockdownScope, *, lifts: bool) -> None:
        self.do(self._lock_down(who, scope, lifts=lifts))

    async def _lock_down(self, who: str, scope: LockdownScope, *, lifts: bool) -> None:
        person = OPERATOR if who == "cli" else await self._person(who)
        verb = lockdown.unlock if lifts else lockdown.lock_down
        await verb(self.world.bot().context, person, LockdownScope() if lifts else scope)
        assert who != LEAD

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

    @rule(point=points, by=spans, number=bots, what=fresh, takes_over=st.booleans())
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

    # Outages and changes.

    @rule(
        what=st.sampled_from(("slack", "directory", "postgresql", "mysql", "lost", "unyielding", "blocked", "rejected"))
    )
    def fail(self, what: str) -> None:
        type(self).taken += 1
        server = self.world.servers["postgresql"]
        match what:
            case "slack":
                self.world.messenger.is_down = True
            case "directory":
                self.world.directory.is_silent = True
            case "lost":
                server.loses_answers = True
            case "unyielding":
                server.unyielding.update(server.users)
            case "blocked":
                server.holds_up = Rejected("a lock is held")
            case "rejected":
                server.rejects = Rejected("no such role")
            case _:
                self.world.servers[what].is_up = False

    @rule()
    def heal(self) -> None:
        type(self).taken += 1
        self.world.heal()

    @rule(number=st.integers(0, configurations.INVALID))
    def configure(self, number: int) -> None:
        type(self).taken += 1
        self._in_force()
        self.world.configure(number)
        if number == configurations.INVALID:
            for bot in self.world.bots:
                bot.context.files.refresh()
        else:
            self._in_force()

    @rule(who=st.sampled_from((ADA, LEAD)), comes=st.booleans())
    def leave(self, who: str, *, comes: bool) -> None:
        if comes:
            self.world.directory.known[who] = Person(id=who, name=who.lower(), is_member=True)
        else:
            self.world.directory.leaves(who)
        self.do(end_access_of_former_member(self.world.bot().context, who))

    @rule(number=whats)
    def use(self, number: int) -> None:
        """Log in with a password that a message shows."""
        type(self).taken += 1
        passwords = sorted(self.world.messenger.passwords)
        for server, name in self.world.users():
            for one in passwords:
                server.login(name, one)
        del number

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
