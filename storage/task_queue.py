"""Tasks and their claims. One task of a lock key runs at a time, under a lease that expires."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CursorResult,
    RowMapping,
    Select,
    and_,
    case,
    delete,
    exists,
    func,
    insert,
    literal,
    select,
    true,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from storage import pools, serialization
from storage.database import Database, advisory_lock_key
from storage.errors import ClaimLost
from storage.pools import Slot
from storage.records import Task, TaskKind
from storage.schema import tasks
from storage.transitions import TaskPlan

CLAIM_BITS = 62
"""A claim number fits into a signed 64-bit column and cannot be guessed."""

FREE = {"claim": None, "worker": None, "lease_until": None}
"""Column values of a task that no worker has."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The right to run a task until ``until``. ``number`` is unique to this claim; every later step presents it."""

    task: Task
    number: int
    worker: str
    until: datetime
    slot: Slot


class TaskQueue(Database):
    """The tasks of the ledger: everything that must happen outside it."""

    async def add_task(self, plan: TaskPlan, *, request_id: int | None) -> None:
        """Store one task."""
        async with self.writing() as tx:
            await schedule_task(tx, plan, request_id=request_id, now=await self.now_in(tx))

    async def claim(self, worker: str, lease: timedelta, *, full: Collection[Slot] = ()) -> Claim | None:
        """Claim the first due task whose lock key is free. None if there is none.

        The order is: tasks that end access, then priority, then tasks that were never tried, then due time. A task whose slot is
        in ``full`` is not claimed: it waits in the ledger, without a lease. A claim number is never used twice.
        """
        async with self.writing(announce=False) as tx:
            now = await self.now_in(tx)
            await _free_expired_leases(tx, now)
            found = await self._first_due(tx, now, full)
            return None if found is None else await _claim(tx, found, worker, now + lease)

    async def _first_due(self, tx: AsyncConnection, now: datetime, full: Collection[Slot]) -> RowMapping | None:
        """The task to claim, with its row locked. A lock key in which another worker claims at this moment is skipped.

        The whole lock key is skipped, not only its first row: two workers could otherwise take its second and third task, in
        either order.
        """
        skipped: list[str] = []
        while True:
            first = self._claimable_ids(now, full, tasks.c.lock_key.not_in(skipped)).limit(1)
            row: RowMapping | None = (await tx.execute(self._with_slots(first))).mappings().first()
            if row is None or self.is_sqlite:
                return row
            skipped.append(row["lock_key"])
            if await _take_lock_key(tx, row["lock_key"]):
                ids = self._claimable_ids(now, full, tasks.c.lock_key == row["lock_key"])
                free = self._with_slots(ids).where(tasks.c.claim.is_(None)).with_for_update(skip_locked=True, of=tasks)
                locked: RowMapping | None = (await tx.execute(free)).mappings().first()
                if locked is not None:
                    return locked

    def _claimable_ids(self, now: datetime, full: Collection[Slot], where: ColumnElement[bool]) -> Select[tuple[int]]:
        """The ids of the tasks that may be claimed now, one for each free lock key: a task that ends access, else the oldest."""
        turn = func.row_number().over(partition_by=tasks.c.lock_key, order_by=(~pools.is_safety(), tasks.c.id))
        due = (tasks.c.due_at <= now, tasks.c.claim.is_(None), ~_lock_key_is_taken())
        first = select(tasks.c.id, turn.label("turn")).where(*due, where).subquery()
        ids = select(tasks.c.id).join(first, and_(first.c.id == tasks.c.id, first.c.turn == 1))
        if full:
            ids = ids.where(pools.slot_key().not_in([slot.key for slot in full]))
        return ids.order_by(pools.priority(), tasks.c.attempts > 0, tasks.c.due_at, tasks.c.id)

    def _with_slots(self, ids: Select[tuple[int]]) -> Select[Any]:
        """These tasks, each with the columns of its slot."""
        slot = (pools.priority().label("priority"), pools.pool().label("pool"))
        return select(tasks, *slot).where(tasks.c.id.in_(ids.scalar_subquery()))

    async def renew(self, claim: Claim, lease: timedelta) -> Claim:
        """Extend the lease: it ends ``lease`` from now. Raises ClaimLost."""
        async with self.writing(announce=False) as tx:
            until = await self.now_in(tx) + lease
            _require_one_row(await tx.execute(update(tasks).where(*_holds(claim)).values(lease_until=until)))
        return replace(claim, until=until)

    async def check_claim(self, claim: Claim) -> None:
        """Raises ClaimLost if the lease expired or the task is gone."""
        async with self.reading() as tx:
            await require_claim(tx, claim, now=await self.now_in(tx))

    async def finish(self, claim: Claim) -> None:
        """Remove the task: it is done. Raises ClaimLost if another worker has it."""
        async with self.writing() as tx:
            _require_one_row(await tx.execute(delete(tasks).where(*_holds(claim))))

    async def reschedule(self, claim: Claim, *, due_at: datetime, error: str | None, is_untried: bool = False) -> None:
        """Give the claim back. The task is due at ``due_at``, or earlier if a transition moved it meanwhile. Raises ClaimLost.

        ``is_untried``: this run does not count as an attempt.
        """
        was, at = claim.task.due_at, literal(due_at, tasks.c.due_at.type)
        was_moved_ahead = and_(tasks.c.due_at != was, tasks.c.due_at < at)
        due = case((was_moved_ahead, tasks.c.due_at), else_=at)
        values: dict[str, Any] = {**FREE, "due_at": due, "last_error": error}
        if is_untried:
            values["attempts"] = 0
        async with self.writing() as tx:
            _require_one_row(await tx.execute(update(tasks).where(*_holds(claim)).values(**values)))

    async def free_leases(self) -> None:
        """Free every claimed task. For the start on SQLite, under the run lock: no other bot can hold a lease then."""
        async with self.writing() as tx:
            await tx.execute(update(tasks).values(**FREE))

    async def next_due(self, *, full: Collection[Slot] = ()) -> datetime | None:
        """The earliest time at which a claim may succeed. None if there is no such time.

        That is the due time of a task in a free lock key and slot, the due time of a later one, or the end of a lease.
        """
        async with self.reading() as tx:
            now = await self.now_in(tx)
            claimable = self._claimable_ids(now, full, true()).with_only_columns(tasks.c.due_at).limit(1)
            later = select(func.min(tasks.c.due_at)).where(
                tasks.c.claim.is_(None), tasks.c.due_at > now, ~_lock_key_is_taken()
            )
            leases = select(func.min(tasks.c.lease_until)).where(tasks.c.claim.is_not(None))
            found = [(await tx.execute(query)).scalar() for query in (claimable, later, leases)]
        return min((due_at for due_at in found if due_at is not None), default=None)

    async def time_until_due(self, kind: TaskKind, request_id: int) -> timedelta | None:
        """The time until this request's task of this kind is due; negative if it is late, None if there is no such task."""
        query = select(func.min(tasks.c.due_at)).where(tasks.c.request_id == request_id, tasks.c.kind == kind)
        async with self.reading() as tx:
            due = (await tx.execute(query)).scalar()
            return None if due is None else due - await self.now_in(tx)

    async def tasks(self, *, request_id: int | None = None) -> tuple[Task, ...]:
        """Unfinished tasks in order of creation."""
        query = select(tasks).order_by(tasks.c.id)
        if request_id is not None:
            query = query.where(tasks.c.request_id == request_id)
        return await self.read_all(query, serialization.task)


async def schedule_task(tx: AsyncConnection, plan: TaskPlan, *, request_id: int | None, now: datetime) -> None:
    """Insert the task of ``plan``, or move the unfinished one if the plan is single.

    A claimed task is moved only if it is a REVOKE. A claimed task of another kind may have read the old state already, so
    another one is inserted behind it.
    """
    if plan.is_single and await _move_unfinished(tx, plan, request_id):
        return
    values = {
        "kind": plan.kind,
        "lock_key": plan.lock_key,
        "request_id": request_id,
        "payload": dict(plan.payload),
        "due_at": plan.due_at,
        "created_at": now,
        "attempts": 0,
    }
    await tx.execute(insert(tasks).values(**values))


async def _move_unfinished(tx: AsyncConnection, plan: TaskPlan, request_id: int | None) -> bool:
    same = [
        tasks.c.kind == plan.kind,
        tasks.c.lock_key == plan.lock_key,
        tasks.c.request_id.is_not_distinct_from(request_id),
    ]
    values: dict[str, Any] = {"due_at": plan.due_at}
    if plan.kind is TaskKind.REVOKE:
        values["attempts"] = 0  # the attempts counted for the end that is moved
    else:
        same.append(tasks.c.claim.is_(None))
    changed = await tx.execute(update(tasks).where(*same).values(**values))
    return changed.rowcount > 0


async def clear_tasks(tx: AsyncConnection, request_id: int, kinds: Iterable[TaskKind]) -> None:
    """Remove the request's tasks of these kinds, but never a claimed one: its worker finds the state changed."""
    await tx.execute(
        delete(tasks).where(tasks.c.request_id == request_id, tasks.c.kind.in_(list(kinds)), tasks.c.claim.is_(None))
    )


async def require_claim(tx: AsyncConnection, claim: Claim, *, now: datetime, for_update: bool = False) -> None:
    """Raises ClaimLost unless this claim still has its task. ``for_update`` locks the task's row until the commit."""
    query = select(tasks.c.id).where(*_holds(claim), tasks.c.lease_until > now)
    found = await tx.execute(query.with_for_update() if for_update else query)
    if found.first() is None:
        raise ClaimLost(f"the claim on {claim.task.kind} is lost")


def _holds(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    return (tasks.c.id == claim.task.id, tasks.c.claim == claim.number)


def _require_one_row(changed: CursorResult[object]) -> None:
    if changed.rowcount != 1:
        raise ClaimLost("another worker has the task, or it is finished")


def _lock_key_is_taken() -> ColumnElement[bool]:
    other = tasks.alias()
    return exists().where(and_(other.c.lock_key == tasks.c.lock_key, other.c.claim.is_not(None)))


async def _take_lock_key(tx: AsyncConnection, lock_key: str) -> bool:
    """Keep others from claiming in this lock key until the end of this transaction. Does not wait; False if it is taken."""
    key = advisory_lock_key(f"lock key {lock_key}")
    return bool((await tx.execute(select(func.pg_try_advisory_xact_lock(key)))).scalar_one())


async def _free_expired_leases(tx: AsyncConnection, now: datetime) -> None:
    expired = select(tasks.c.id).where(tasks.c.claim.is_not(None), tasks.c.lease_until <= now)
    await tx.execute(update(tasks).where(tasks.c.id.in_(expired.with_for_update(skip_locked=True))).values(**FREE))


async def _claim(tx: AsyncConnection, row: RowMapping, worker: str, until: datetime) -> Claim:
    task = serialization.task(row)
    number, attempts = secrets.randbits(CLAIM_BITS), task.attempts + 1
    values = {"claim": number, "worker": worker, "lease_until": until, "attempts": attempts}
    await tx.execute(update(tasks).where(tasks.c.id == task.id).values(**values))
    slot = pools.slot(row)
    return Claim(task=replace(task, attempts=attempts), number=number, worker=worker, until=until, slot=slot)
