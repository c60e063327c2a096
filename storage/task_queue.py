"""Tasks and their claims: one of a lock key at a time, by a lease that runs out."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable
from dataclasses import replace
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

from storage import serialization, slots
from storage.database import Database, lock_number
from storage.errors import ClaimLost
from storage.records import Claim, Slot, Task, TaskKind
from storage.schema import tasks
from storage.transitions import TaskPlan

CLAIM_BITS = 62


class TaskQueue(Database):
    """The part of the ledger that holds what must happen outside."""

    async def add_task(self, plan: TaskPlan, *, request_id: int | None) -> None:
        """Put one task on disk."""
        async with self.writing() as tx:
            await put(tx, plan, request_id=request_id, now=await self.moment(tx))

    async def claim(self, worker: str, lease: timedelta, *, full: Collection[Slot] = ()) -> Claim | None:
        """The due task that goes first among those whose lock key is free, or None. Its number is never given out again.

        What ends access goes before all else, then by priority; a task that was never tried before one that was; then by
        due time. No task is claimed whose slot is among ``full``: it waits on disk, without a lease.
        """
        async with self.writing(wakes=False) as tx:
            now = await self.moment(tx)
            await _free_lapsed(tx, now)
            found = await self._first_due(tx, now, full)
            return None if found is None else await _claim(tx, found, worker, now + lease)

    async def _first_due(self, tx: AsyncConnection, now: datetime, full: Collection[Slot]) -> RowMapping | None:
        """The task to be claimed, its row taken. A lock key in which somebody else is at work this moment is passed over.

        Were only its first row passed over, two workers could take the second and the third, in either order.
        """
        passed: list[str] = []
        while True:
            first = self._heads(now, full, tasks.c.lock_key.not_in(passed)).limit(1)
            row: RowMapping | None = (await tx.execute(self._rows(first))).mappings().first()
            if row is None or self.is_sqlite:
                return row
            passed.append(row["lock_key"])
            if await _take_lock_key(tx, row["lock_key"]):
                again = self._heads(now, full, tasks.c.lock_key == row["lock_key"])
                taken = self._rows(again).where(tasks.c.claim.is_(None)).with_for_update(skip_locked=True, of=tasks)
                mine: RowMapping | None = (await tx.execute(taken)).mappings().first()
                if mine is not None:
                    return mine

    def _heads(self, now: datetime, full: Collection[Slot], where: ColumnElement[bool]) -> Select[tuple[int]]:
        """The ids of the tasks that may be claimed now: of each free lock key what ends access, else what was created first."""
        turn = func.row_number().over(partition_by=tasks.c.lock_key, order_by=(~slots.is_safety(), tasks.c.id))
        due = (tasks.c.due_at <= now, tasks.c.claim.is_(None), ~_lock_key_is_taken())
        first = select(tasks.c.id, turn.label("turn")).where(*due, where).subquery()
        heads = select(tasks.c.id).join(first, and_(first.c.id == tasks.c.id, first.c.turn == 1))
        if full:
            heads = heads.where(slots.key().not_in([slot.key for slot in full]))
        return heads.order_by(slots.priority(), tasks.c.attempts > 0, tasks.c.due_at, tasks.c.id)

    def _rows(self, ids: Select[tuple[int]]) -> Select[Any]:
        """Those tasks, each with the slot it takes."""
        more = (slots.priority().label("priority"), slots.pool().label("pool"))
        return select(tasks, *more).where(tasks.c.id.in_(ids.scalar_subquery()))

    async def renew(self, claim: Claim, lease: timedelta) -> Claim:
        """Hold on for another ``lease``. Raises ClaimLost."""
        async with self.writing(wakes=False) as tx:
            until = await self.moment(tx) + lease
            changed = await tx.execute(update(tasks).where(*_held(claim)).values(lease_until=until))
            _one(changed)
        return replace(claim, until=until)

    async def check_claim(self, claim: Claim) -> None:
        """Raises ClaimLost where the lease ran out or the task is gone."""
        async with self.reading() as tx:
            await held(tx, claim, now=await self.moment(tx))

    async def finish(self, claim: Claim) -> None:
        """The task is done. Raises ClaimLost where another worker has it."""
        async with self.writing() as tx:
            _one(await tx.execute(delete(tasks).where(*_held(claim))))

    async def put_back(self, claim: Claim, *, due_at: datetime, error: str | None, is_untried: bool = False) -> None:
        """The task is to be tried again at ``due_at``, or sooner where a move said so meanwhile. Raises ClaimLost.

        ``is_untried``: this run does not count as a try.
        """
        was, at = claim.task.due_at, literal(due_at, tasks.c.due_at.type)
        moved_ahead = and_(tasks.c.due_at != was, tasks.c.due_at < at)
        due = case((moved_ahead, tasks.c.due_at), else_=at)
        values: dict[str, Any] = {
            "due_at": due,
            "last_error": error,
            "claim": None,
            "worker": None,
            "lease_until": None,
        }
        if is_untried:
            values["attempts"] = 0
        async with self.writing() as tx:
            _one(await tx.execute(update(tasks).where(*_held(claim)).values(**values)))

    async def free_leases(self) -> None:
        """SQLite, at the start under the file lock: whoever held a lease is dead."""
        async with self.writing() as tx:
            await tx.execute(update(tasks).values(claim=None, worker=None, lease_until=None))

    async def next_due(self, *, full: Collection[Slot] = ()) -> datetime | None:
        """The earliest moment at which a claim may succeed: a due task in a free lock key and slot, one that falls due, or a lease that runs out."""
        async with self.reading() as tx:
            now = await self.moment(tx)
            heads = self._heads(now, full, true()).with_only_columns(tasks.c.due_at).limit(1)
            later = select(func.min(tasks.c.due_at)).where(
                tasks.c.claim.is_(None), tasks.c.due_at > now, ~_lock_key_is_taken()
            )
            leases = select(func.min(tasks.c.lease_until)).where(tasks.c.claim.is_not(None))
            found = [(await tx.execute(query)).scalar() for query in (heads, later, leases)]
        return min((moment for moment in found if moment is not None), default=None)

    async def until_due(self, kind: TaskKind, request_id: int) -> timedelta | None:
        """How long until this request's task of this kind is due, negative where it is late; None where there is none."""
        query = select(func.min(tasks.c.due_at)).where(tasks.c.request_id == request_id, tasks.c.kind == kind)
        async with self.reading() as tx:
            due = (await tx.execute(query)).scalar()
            return None if due is None else due - await self.moment(tx)

    async def tasks(self, *, request_id: int | None = None) -> tuple[Task, ...]:
        """Unfinished tasks in order of creation."""
        query = select(tasks).order_by(tasks.c.id)
        if request_id is not None:
            query = query.where(tasks.c.request_id == request_id)
        async with self.reading() as tx:
            return tuple(serialization.task(row) for row in (await tx.execute(query)).mappings())


async def put(tx: AsyncConnection, plan: TaskPlan, *, request_id: int | None, now: datetime) -> None:
    """Insert, or for a single task move the unfinished one. A claimed one counts only for REVOKE: the others may have drawn an old picture already."""
    if plan.is_single and await _moved(tx, plan, request_id):
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


async def _moved(tx: AsyncConnection, plan: TaskPlan, request_id: int | None) -> bool:
    same = [
        tasks.c.kind == plan.kind,
        tasks.c.lock_key == plan.lock_key,
        tasks.c.request_id.is_not_distinct_from(request_id),
    ]
    values: dict[str, Any] = {"due_at": plan.due_at}
    if plan.kind is TaskKind.REVOKE:
        values["attempts"] = 0  # another end than the one that was tried
    else:
        same.append(tasks.c.claim.is_(None))
    changed = await tx.execute(update(tasks).where(*same).values(**values))
    return changed.rowcount > 0


async def clear(tx: AsyncConnection, request_id: int, kinds: Iterable[TaskKind]) -> None:
    """Remove tasks with nothing left to do, but never a claimed one: its worker finds the state changed."""
    await tx.execute(
        delete(tasks).where(tasks.c.request_id == request_id, tasks.c.kind.in_(list(kinds)), tasks.c.claim.is_(None))
    )


async def held(tx: AsyncConnection, claim: Claim, *, now: datetime, for_update: bool = False) -> None:
    """Raises ClaimLost unless this claim still holds its task."""
    query = select(tasks.c.id).where(*_held(claim), tasks.c.lease_until > now)
    found = await tx.execute(query.with_for_update() if for_update else query)
    if found.first() is None:
        raise ClaimLost(f"the claim on {claim.task.kind} is lost")


def _held(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    return (tasks.c.id == claim.task.id, tasks.c.claim == claim.number)


def _one(changed: CursorResult[object]) -> None:
    if changed.rowcount != 1:
        raise ClaimLost("another worker has the task, or it is finished")


def _lock_key_is_taken() -> ColumnElement[bool]:
    other = tasks.alias()
    return exists().where(and_(other.c.lock_key == tasks.c.lock_key, other.c.claim.is_not(None)))


async def _take_lock_key(tx: AsyncConnection, lock_key: str) -> bool:
    """Until the end of this transaction nobody else claims in this lock key. Does not wait."""
    return bool(
        (await tx.execute(select(func.pg_try_advisory_xact_lock(lock_number(f"lock key {lock_key}"))))).scalar_one()
    )


async def _free_lapsed(tx: AsyncConnection, now: datetime) -> None:
    lapsed = select(tasks.c.id).where(tasks.c.claim.is_not(None), tasks.c.lease_until <= now)
    free = {"claim": None, "worker": None, "lease_until": None}
    await tx.execute(update(tasks).where(tasks.c.id.in_(lapsed.with_for_update(skip_locked=True))).values(**free))


async def _claim(tx: AsyncConnection, row: RowMapping, worker: str, until: datetime) -> Claim:
    task = serialization.task(row)
    number, tries = secrets.randbits(CLAIM_BITS), task.attempts + 1
    values = {"claim": number, "worker": worker, "lease_until": until, "attempts": tries}
    await tx.execute(update(tasks).where(tasks.c.id == task.id).values(**values))
    return Claim(task=replace(task, attempts=tries), number=number, worker=worker, until=until, slot=slots.slot(row))
