"""The invariants of the state machine: after every step, and at its end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Connection, select

from bot.notifications.notices import CredentialsNotice
from storage.audit_kinds import AuditKind
from storage.ledger import Ledger
from storage.lifecycle import TRANSITIONS
from storage.records import (
    AuditEvent,
    Decision,
    Lockdown,
    Request,
    RequestKind,
    State,
    Task,
    TaskKind,
    Verdict,
)
from storage.schema import metadata
from storage.serialization import decision as decision_of
from storage.serialization import readable
from storage.serialization import request as request_of
from storage.serialization import task as task_of
from tests.nightly import configurations
from tests.nightly.world import World

RULES = {rule.audit: rule for rule in TRANSITIONS.values()}
GRANTING = frozenset({
    AuditKind.REQUESTED, AuditKind.APPROVED, AuditKind.APPLIED, AuditKind.EXTENDED, AuditKind.STARTED, AuditKind.ACTIVATED,
})  # fmt: skip
"""The events that a lockdown rules out."""
STRANGERS = frozenset({"U0STRANGER", "U0GUEST"})


@dataclass(frozen=True)
class Snapshot:
    """Everything that the ledger has, as one consistent state."""

    at: datetime
    requests: dict[int, Request]
    decisions: dict[int, tuple[Decision, ...]]
    tasks: tuple[Task, ...]
    events: tuple[AuditEvent, ...]
    lockdowns: tuple[Lockdown, ...]

    def tasks_of(self, request_id: int, kind: TaskKind) -> list[Task]:
        return [task for task in self.tasks if task.request_id == request_id and task.kind is kind]

    def history(self, request_id: int) -> list[AuditEvent]:
        """The transitions of a request, in order."""
        return [event for event in self.events if event.request_id == request_id and event.kind in RULES]


@dataclass
class Memory:
    """What earlier steps have seen: the key of each number, the highest numbers, the state of each request."""

    keys: dict[int, str] = field(default_factory=dict)
    highest: Counter[str] = field(default_factory=Counter)
    claims: set[int] = field(default_factory=set)


async def read(ledger: Ledger) -> Snapshot:
    def transaction(tx: Connection) -> Snapshot:
        tables = metadata.tables
        requests, unreadable = readable(tx, select(tables["requests"]), tables["requests"].c.id, request_of)
        assert not unreadable
        decisions = dict[int, tuple[Decision, ...]]()
        for row in tx.execute(select(tables["decisions"]).order_by(tables["decisions"].c.id)).mappings():
            one = decision_of(row)
            decisions[one.request_id] = (*decisions.get(one.request_id, ()), one)
        assert tx.execute(select(tables["tasks"]).where(tables["tasks"].c.set_aside.is_not(None))).first() is None
        return Snapshot(
            at=ledger.database.now_in(tx),
            requests={one.id: one for one in requests},
            decisions=decisions,
            tasks=tuple(task_of(row) for row in tx.execute(select(tables["tasks"])).mappings()),
            events=tuple(
                AuditEvent(
                    id=row["id"],
                    at=row["at"],
                    kind=row["kind"],
                    actor=row["actor"],
                    request_id=row["request_id"],
                    facts=row["facts"],
                )
                for row in tx.execute(select(tables["audit_events"]).order_by(tables["audit_events"].c.id)).mappings()
            ),
            lockdowns=tuple(Lockdown(**row) for row in tx.execute(select(tables["lockdowns"])).mappings()),
        )

    return await ledger.database.read(transaction)


def check(world: World, now: Snapshot, memory: Memory) -> None:
    """Raises AssertionError where the ledger or a server is not as it must be."""
    for request in now.requests.values():
        check_one_end(now, request)
        check_history(now, request)
        check_decisions(request, now.decisions.get(request.id, ()))
        check_times(now, request)
    check_numbers(now, memory)
    check_users(world, now)
    check_lockdowns(now)
    check_automatic(now)


def check_one_end(now: Snapshot, request: Request) -> None:
    """One end for every beginning: each live request has one revoke task, no other has any."""
    ends = now.tasks_of(request.id, TaskKind.REVOKE)
    assert len(ends) == (1 if request.is_live else 0), (request.state, ends)
    if request.state is State.ACTIVE:
        assert request.expires_at is not None
        assert ends[0].due_at <= request.expires_at or ends[0].attempts, (ends[0], request.expires_at)


def check_history(now: Snapshot, request: Request) -> None:
    """There is an event for each transition, and the events are a path through ``TRANSITIONS`` to the state of the request."""
    history, state = now.history(request.id), None
    assert len(history) == request.version, [event.kind for event in history]
    for event in history:
        rule = RULES[AuditKind(event.kind)]
        assert state in rule.sources if rule.sources else state is None, (request.id, state, event.kind)
        state = rule.target or state
    assert state is request.state, (request.id, state, request.state)
    assert (request.ended_at is not None) == request.state.is_over
    assert (request.receipt is not None) == (request.state is State.REVOKED)
    assert [event.at for event in history] == sorted(event.at for event in history)


def check_decisions(request: Request, decisions: Sequence[Decision]) -> None:
    """Distinct people decide, never the requester or a stranger, and as many as the rule asked for."""
    people = [one.person_id for one in decisions]
    assert len(people) == len(set(people)), people
    assert request.requester_id not in people
    assert STRANGERS.isdisjoint(people)
    given = request.approved_at is not None or request.state is State.APPLIED
    for number, stage in enumerate(request.terms.stages):
        votes = [one for one in decisions if one.stage == number and one.verdict is Verdict.APPROVE]
        assert len(votes) == stage.count if given else len(votes) <= stage.count, (request.id, votes)


def check_times(now: Snapshot, request: Request) -> None:
    """A grant lasts as long as was approved, with its extensions, and ends by its end."""
    if request.expires_at is None or request.started_at is None:
        return
    extensions = [e for e in now.requests.values() if e.parent_id == request.id and e.state is State.APPLIED]
    lasts = sum((one.effective_duration for one in extensions), request.effective_duration)
    assert request.expires_at - request.started_at == lasts, (request, extensions)
    assert lasts <= configurations.MAX_TOTAL
    for event in now.history(request.id):
        if event.kind in (AuditKind.ACTIVATED, AuditKind.EXTENDED, AuditKind.PASSWORD_SHOWN):
            assert event.at < request.expires_at


def check_numbers(now: Snapshot, memory: Memory) -> None:
    """No number is used twice, for requests, tasks and events."""
    for number, key in memory.keys.items():
        assert now.requests[number].key == key, number
    for kind, numbers in (
        ("request", [n for n in now.requests if n not in memory.keys]),
        ("task", [one.id for one in now.tasks if one.id not in memory.claims]),
        ("event", [one.id for one in now.events[memory.highest["events"] :]]),
    ):
        assert all(number > memory.highest[kind] for number in numbers), (kind, numbers, memory.highest[kind])
        memory.highest[kind] = max([memory.highest[kind], *numbers])
    memory.highest["events"] = len(now.events)
    memory.claims = {one.id for one in now.tasks}
    memory.keys = {one.id: one.key for one in now.requests.values()}


def check_users(world: World, now: Snapshot) -> None:
    """Each user on a server belongs to a started grant that is live, or a task is left that drops it."""
    for server, name in world.users():
        request = now.requests.get(server.users[name].request_id)
        assert request is not None, name
        assert request.username == name
        assert request.started_at is not None, "START is committed before the user is created"
        assert request.is_live or now.tasks_of(request.id, TaskKind.REPAIR), (request.state, name)


def check_lockdowns(now: Snapshot) -> None:
    """Nothing is granted while a lockdown matches. The order of the events tells, not their times."""
    for lockdown in now.lockdowns:
        begin, end = _span(now, lockdown)
        for event in now.events:
            if not begin < event.id < end or event.kind not in GRANTING or event.request_id is None:
                continue
            request = now.requests[event.request_id]
            matches = lockdown.covers(database=request.database, person_id=request.requester_id)
            assert not matches, (lockdown, event)


def _span(now: Snapshot, lockdown: Lockdown) -> tuple[float, float]:
    def first(kind: AuditKind) -> float:
        found = (e.id for e in now.events if e.kind == kind and e.facts.get("lockdown") == lockdown.id)
        return next(found, float("inf"))

    return first(AuditKind.LOCKDOWN_SET), first(AuditKind.LOCKDOWN_LIFTED)


def check_automatic(now: Snapshot) -> None:
    """The policy grants one person no more at once than its cap in any 24 hours."""
    given = [one for one in now.requests.values() if one.terms.rule == "at once" and one.approved_at is not None]
    for one in given:
        since = one.requested_at - timedelta(hours=24)
        near = [o for o in given if o.requester_id == one.requester_id and since < o.requested_at <= one.requested_at]
        assert len(near) <= configurations.AUTOMATIC, near


def check_overdue(now: Snapshot) -> None:
    """After the due tasks ran, no grant is usable after its end, whatever is down."""
    for request in now.requests.values():
        is_usable = request.state is State.ACTIVE and request.expires_at is not None
        if is_usable and not any(task.attempts for task in now.tasks_of(request.id, TaskKind.REVOKE)):
            assert request.expires_at is not None
            assert now.at < request.expires_at, request


def check_end(world: World, now: Snapshot) -> None:
    """Nobody is left and nothing is open."""
    for server in world.servers.values():
        assert server.users == {}, server.users
        assert server.sessions == {}, server.sessions
    unfinished = [one for one in now.requests.values() if not one.state.is_over]
    assert not unfinished, unfinished
    left = {task.kind for task in now.tasks} - {TaskKind.REVIEW}
    assert not left, now.tasks
    shown = [n.request.id for n in world.messenger.shown.values() if isinstance(n, CredentialsNotice)]
    assert not shown, f"the messages of {shown} still have credentials"
    for request in now.requests.values():
        if request.kind is RequestKind.BREAK_GLASS and request.started_at is not None:
            assert request.receipt is not None


async def passwords_in(ledger: Ledger, passwords: set[str]) -> Iterator[str]:
    """The tables that hold one of these passwords."""

    def transaction(tx: Connection) -> list[str]:
        found = []
        for table in metadata.sorted_tables:
            text = "\n".join(str(tuple(row)) for row in tx.execute(select(table)))
            if any(password in text for password in passwords):
                found.append(table.name)
        return found

    return iter(await ledger.database.read(transaction))
