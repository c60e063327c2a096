"""The people of the state machine, and what happens around them: outages, other configurations. People are often the wrong ones, or late.

Each rule is a step of ``state_machine.UseCases``.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any, ClassVar

import structlog
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from adapters.base import Rejected
from bot.access import decide, extend, lockdown, password, request_access, review, revoke
from bot.access.errors import AccessError
from bot.access.ports import Person
from bot.access.use_case_types import FormNeeded, LockdownScope, RequestInput
from bot.monitors.members import end_access_of_former_member
from storage.records import Request, RequestKind, State
from tests.access.environment import ADA, ADMIN, GUEST, LEAD, SECOND, STRANGER, Killed
from tests.nightly import configurations, invariants
from tests.nightly.world import World

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
OPERATOR = Person(id="cli:root", name="root", is_member=True)
FAULTS = frozenset({
    "task_failed", "runner_failed", "probe_failed", "sweep_failed", "adapter_failed", "group_failed", "listener_failed",
    "task_set_aside", "ledger_unavailable", "task_interrupted",
})  # fmt: skip
"""Log events that stand for a fault of dbaccess itself."""

whos, whats = st.sampled_from(PEOPLE), st.integers(0, 7)
minutes = st.sampled_from([1, 15, 45, 60, 120, 121]).map(lambda number: timedelta(minutes=number))


class People(RuleBasedStateMachine):
    """A world, and the steps of the people in it."""

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
