"""Claims of tasks, as SQL inside a transaction: which tasks may run now, who has them, and when the next may run."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Connection,
    CursorResult,
    Integer,
    Select,
    and_,
    bindparam,
    func,
    or_,
    select,
    update,
)

from storage import serialization
from storage.database import advisory_lock_key
from storage.errors import ClaimLost
from storage.pools import Slot, is_of
from storage.records import Priority, Task, TaskKind
from storage.schema import requests, tasks
from storage.serialization import UnreadableRow, readable

CLAIM_BITS = 62
"""A claim number fits into a signed 64-bit column and cannot be guessed."""

FREE: dict[str, Any] = {"claim": None, "worker": None, "lease_until": None, "held_key": None}
"""Column values of a task that no worker has."""

REASON_MAX = 200
ORDER = (tasks.c.priority, tasks.c.attempts > 0, tasks.c.due_at, tasks.c.id)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The right to run a task until ``until``. ``number`` is unique to this claim; every later step presents it."""

    task: Task
    number: int
    worker: str
    until: datetime

    @property
    def slot(self) -> Slot:
        """The slot that the task takes in a runner."""
        return slot_of(self.task, is_retry=self.task.attempts > 1)

    def renewed(self, until: datetime) -> Claim:
        return replace(self, until=until)


@dataclass(frozen=True, kw_only=True)
class SetAside:
    """A task that cannot be read. It is not tried again. ``request_id`` is None where it cannot be read, or there is none."""

    task_id: int
    request_id: int | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class DueTasks:
    """The result of ``TaskQueue.claim_due``. ``next_due`` is the earliest time at which another claim may succeed, None if there is no such time."""

    claims: tuple[Claim, ...]
    set_aside: tuple[SetAside, ...]
    next_due: datetime | None
    now: datetime


def slot_of(task: Task, *, is_retry: bool) -> Slot:
    """The slot of a task."""
    return Slot(
        pool=task.pool,
        server=task.server,
        priority=Priority(task.priority),
        is_retry=is_retry,
        is_blocked=task.blocked_at is not None and not is_retry,
    )


class EndsOf(Enum):
    """Which ends of one server are claimed together."""

    NOT_BLOCKED = "users that are not blocked yet"
    BLOCKED = "users whose login is blocked"


# Which tasks may run. These statements are built once for each situation (``cache``) and get the time as the parameter ``now``:
# building one costs more than running it.

NOW = bindparam("now", type_=tasks.c.due_at.type)


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What keeps due tasks waiting: kinds of slots of which none is free, and addresses of servers that do not answer."""

    full: frozenset[Slot] = frozenset()
    closed: frozenset[str] = frozenset()


ANY = Situation()


def is_taken(lock_key: ColumnElement[str]) -> ColumnElement[bool]:
    """Whether a claimed task has this lock key, or holds it beside its own."""
    claimed, holder = tasks.alias(), tasks.alias()
    has_it = select(claimed.c.id).where(claimed.c.lock_key == lock_key, claimed.c.claim.is_not(None)).exists()
    return or_(has_it, select(holder.c.id).where(holder.c.held_key == lock_key).exists())


def may_run(situation: Situation) -> ColumnElement[bool]:
    """Whether a task is due at ``NOW``, free, the first of its free lock key, and has a slot and a server."""
    free = (tasks.c.claim.is_(None), tasks.c.set_aside.is_(None), tasks.c.due_at <= NOW)
    room = (~is_of(slot) for slot in sorted(situation.full, key=str))
    return and_(*free, *room, *_gate(situation.closed), ~is_taken(tasks.c.lock_key), ~_has_predecessor())


def _has_predecessor() -> ColumnElement[bool]:
    """Whether another due task of the lock key goes first: one that ends access, else the older one."""
    first = tasks.alias()
    is_safety, goes_first = tasks.c.priority == int(Priority.SAFETY), first.c.priority == int(Priority.SAFETY)
    order = or_(and_(goes_first, ~is_safety), and_(goes_first == is_safety, first.c.id < tasks.c.id))
    free = (first.c.claim.is_(None), first.c.set_aside.is_(None), first.c.due_at <= NOW)
    return select(first.c.id).where(first.c.lock_key == tasks.c.lock_key, *free, order).exists()


def _gate(closed: frozenset[str]) -> tuple[ColumnElement[bool], ...]:
    """Tasks of a server that does not answer wait, apart from those that need no answer.

    These are ends of grants that never started, and provisioning that tells the requester (first try) or gives up (too late to start).
    """
    if not closed:
        return ()
    of_task = requests.c.id == tasks.c.request_id
    never_started = select(requests.c.id).where(of_task, requests.c.started_at.is_(None)).exists()
    too_late = select(requests.c.id).where(of_task, requests.c.start_before <= NOW).exists()
    gives_up = and_(tasks.c.kind == TaskKind.PROVISION, or_(tasks.c.attempts == 0, too_late))
    ends_nothing = and_(tasks.c.kind == TaskKind.REVOKE, never_started)
    return (or_(tasks.c.server.is_(None), tasks.c.server.not_in(sorted(closed)), gives_up, ends_nothing),)


@lru_cache(maxsize=512)
def due_query(
    situation: Situation,
    limit: int,
    *,
    ends_of: EndsOf | None = None,
    untried_only: bool = False,
    has_but: bool = False,
) -> Select[Any]:
    """The ids and lock keys of the first tasks that may run. ``ends_of``: only revocations of such users, of the server in the parameter ``server``.

    ``has_but``: without those in the parameter ``but``.
    """
    where = [may_run(situation)]
    if ends_of is not None:
        is_blocked = tasks.c.blocked_at.is_not(None) if ends_of is EndsOf.BLOCKED else tasks.c.blocked_at.is_(None)
        where += [tasks.c.kind == TaskKind.REVOKE, tasks.c.server == bindparam("server"), is_blocked]
    if has_but:
        where.append(tasks.c.id.not_in(bindparam("but", expanding=True)))
    if untried_only:
        where.append(tasks.c.attempts == 0)
    return select(tasks.c.id, tasks.c.lock_key).where(*where).order_by(*ORDER).limit(limit)


@lru_cache(maxsize=512)
def later_query(situation: Situation) -> Select[Any]:
    """The earliest due time of a task that is not due yet, and the earliest end of a lease.

    The latest due time is read, too: in SQLite, text that is no time is later than any time, and its task would never be due.
    """
    later = (tasks.c.claim.is_(None), tasks.c.set_aside.is_(None), tasks.c.due_at > NOW, ~is_taken(tasks.c.lock_key))
    closed = sorted(situation.closed)
    waits = (or_(tasks.c.server.is_(None), tasks.c.server.not_in(closed)),) if closed else ()
    return select(
        select(func.min(tasks.c.due_at)).where(*later, *waits).scalar_subquery(),
        select(func.min(tasks.c.lease_until)).where(tasks.c.claim.is_not(None)).scalar_subquery(),
        select(func.max(tasks.c.due_at)).where(tasks.c.set_aside.is_(None)).scalar_subquery(),
    )


def next_due(tx: Connection, situation: Situation, now: datetime) -> datetime | None:
    """The earliest time at which a claim may succeed, where none succeeds now. None if there is no such time."""
    later, lease_until, _ = tx.execute(later_query(situation), {"now": now}).one()
    return min((at for at in (later, lease_until) if at is not None), default=None)


# Read and claim.


def read_due(
    tx: Connection, query: Select[Any], parameters: Mapping[str, Any], *, is_sqlite: bool
) -> tuple[list[Task], list[UnreadableRow], int]:
    """The tasks that a ``due_query`` finds, in order, those that cannot be read, and how many it found.

    On PostgreSQL their rows and lock keys are locked until the commit.

    There, the whole lock key is locked, not only its first row: two workers could otherwise take its second and third task, in either
    order. What another worker has locked is skipped.
    """
    found = tx.execute(query, parameters).all()
    ids = [row.id for row in found]
    if ids and not is_sqlite:
        locked = try_lock_keys(tx, [row.lock_key for row in found])
        again = query.where(tasks.c.id.in_([row.id for row in found if row.lock_key in locked]))
        rows = tx.execute(again.with_for_update(skip_locked=True, of=tasks), parameters)
        ids = [row.id for row in rows]
    return *_read(tx, ids), len(found)


def try_lock_keys(tx: Connection, lock_keys: Sequence[str]) -> set[str]:
    """PostgreSQL: keep others from claiming in these lock keys until the end of this transaction. Does not wait; returns those that it got."""
    numbers = {advisory_lock_key(f"lock key {lock_key}"): lock_key for lock_key in lock_keys}
    array = bindparam("numbers", list(numbers), type_=ARRAY(BigInteger))
    listed = func.unnest(array).table_valued("number").render_derived(name="listed")
    rows = tx.execute(select(listed.c.number, func.pg_try_advisory_xact_lock(listed.c.number)))
    return {numbers[number] for number, is_locked in rows if is_locked}


ROWS = select(tasks).where(tasks.c.id.in_(bindparam("ids", expanding=True)))


def _read(tx: Connection, ids: Sequence[int]) -> tuple[list[Task], list[UnreadableRow]]:
    """The tasks with these ids, in this order, and those that cannot be read."""
    if not ids:
        return [], []
    rows, unreadable = readable(tx, ROWS, tasks.c.id, serialization.task, {"ids": ids})
    found = {task.id: task for task in rows}
    return [found[task_id] for task_id in ids if task_id in found], unreadable


def set_aside(tx: Connection, unreadable: Sequence[UnreadableRow]) -> list[SetAside]:
    """Set these tasks aside: they are not claimed any more."""
    found = list[SetAside]()
    for task_id, error in unreadable:
        reason = f"{type(error).__name__}: {error}"[:REASON_MAX]
        tx.execute(update(tasks).where(tasks.c.id == task_id).values(**FREE, set_aside=reason))
        request_id = tx.execute(select(tasks.c.request_id).where(tasks.c.id == task_id)).scalar_one_or_none()
        number = request_id if isinstance(request_id, int) else None
        found.append(SetAside(task_id=task_id, request_id=number, reason=type(error).__name__))
    return found


def set_aside_unreadable(tx: Connection) -> list[SetAside]:
    """Set aside every task that cannot be read, also one that is not due."""
    every = select(tasks).where(tasks.c.set_aside.is_(None)).order_by(tasks.c.id)
    return set_aside(tx, readable(tx, every, tasks.c.id, serialization.task)[1])


def with_room(found: Sequence[Task], room: Callable[[Slot], int]) -> list[Task]:
    """The tasks for whose slots there is room, in order."""
    taken, fitting = Counter[Slot](), list[Task]()
    for task in found:
        slot = slot_of(task, is_retry=task.attempts > 0)
        pool = replace(slot, server=None)
        if taken[slot] < room(slot) and taken[pool] < room(pool):
            fitting.append(task)
            taken.update({slot, pool})
    return fitting


CLAIM = (
    update(tasks)
    .where(tasks.c.id == bindparam("task_id", type_=BigInteger))
    .values(
        claim=bindparam("number", type_=BigInteger),
        attempts=bindparam("tried", type_=Integer),
        worker=bindparam("worker"),
        lease_until=bindparam("until", type_=tasks.c.lease_until.type),
    )
)


def claim_rows(tx: Connection, found: Sequence[Task], worker: str, until: datetime) -> list[Claim]:
    """Claim these tasks."""
    made = [
        Claim(
            task=replace(task, attempts=task.attempts + 1),
            number=secrets.randbits(CLAIM_BITS),
            worker=worker,
            until=until,
        )
        for task in found
    ]
    if made:
        same = {"worker": worker, "until": until}
        tx.execute(CLAIM, [{"task_id": c.task.id, "number": c.number, "tried": c.task.attempts, **same} for c in made])
    return made


EXPIRED = (
    select(tasks.c.id).where(tasks.c.claim.is_not(None), tasks.c.lease_until <= NOW).with_for_update(skip_locked=True)
)


def free_expired_leases(tx: Connection, now: datetime) -> None:
    """Free the tasks whose lease ran out: their workers have stopped."""
    if found := list(tx.execute(EXPIRED, {"now": now}).scalars()):
        tx.execute(update(tasks).where(tasks.c.id.in_(found)).values(**FREE))


# Present a claim.


def holds(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    """The conditions on a row of ``tasks`` under which the claim still has its task."""
    return (tasks.c.id == claim.task.id, tasks.c.claim == claim.number)


CLAIMED = select(tasks.c.id).where(
    tasks.c.id == bindparam("task_id"), tasks.c.claim == bindparam("number"), tasks.c.lease_until > NOW
)


def require_claim(tx: Connection, claim: Claim, *, now: datetime, for_update: bool = False) -> None:
    """Raises ClaimLost unless this claim still has its task. ``for_update`` locks the task's row until the commit."""
    query = CLAIMED.with_for_update() if for_update and tx.dialect.name != "sqlite" else CLAIMED
    if tx.execute(query, {"task_id": claim.task.id, "number": claim.number, "now": now}).first() is None:
        raise ClaimLost(f"the claim on {claim.task.kind} is lost")


def require_one_row(changed: CursorResult[Any]) -> None:
    """Raises ClaimLost unless exactly one row was changed."""
    if changed.rowcount != 1:
        raise ClaimLost("another worker has the task, or it is finished")
