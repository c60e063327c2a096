"""Tasks and their claims: one of a lane at a time, by a lease that runs out."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    CursorResult,
    Select,
    and_,
    case,
    delete,
    exists,
    func,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from storage import rows
from storage.errors import ClaimLost
from storage.moves import Plan
from storage.records import Claim, Task, TaskKind
from storage.store import Store, lock_number
from storage.tables import tasks

CLAIM_BITS = 62


class Queue(Store):
    """The part of the ledger that holds what must happen outside."""

    async def add_task(self, plan: Plan, *, request_id: int | None) -> None:
        """Put one task on disk."""
        async with self.writing() as tx:
            await put(tx, plan, request_id=request_id, now=await self.moment(tx))

    async def claim(self, worker: str, lease: timedelta) -> Claim | None:
        """The due task that was created first among those whose lane is free, or None. Its number is never given out again."""
        async with self.writing(wakes=False) as tx:
            now = await self.moment(tx)
            await _free_lapsed(tx, now)
            found = await self._first_due(tx, now)
            return None if found is None else await _claim(tx, found, worker, now + lease)

    async def _first_due(self, tx: AsyncConnection, now: datetime) -> Task | None:
        """The task to be claimed, its row taken. A lane in which somebody else is at work this moment is passed over.

        Were only its first row passed over, two workers could take the second and the third, in either order.
        """
        passed: list[str] = []
        while True:
            free = tasks.c.lane.not_in(passed)
            row = (await tx.execute(_due(now).where(free))).mappings().first()
            if row is None:
                return None
            if self.is_sqlite:
                return rows.task(row)
            passed.append(row["lane"])
            if await _lane_is_ours(tx, row["lane"]):
                first = _due(now).where(tasks.c.lane == row["lane"]).with_only_columns(tasks.c.id).scalar_subquery()
                taken = (
                    select(tasks).where(tasks.c.id == first, tasks.c.claim.is_(None)).with_for_update(skip_locked=True)
                )
                if (mine := (await tx.execute(taken)).mappings().first()) is not None:
                    return rows.task(mine)

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

    async def put_back(self, claim: Claim, *, due_at: datetime, error: str | None) -> None:
        """The task is to be tried again at ``due_at``, or sooner where a move said so meanwhile. Raises ClaimLost."""
        was, at = claim.task.due_at, literal(due_at, tasks.c.due_at.type)
        moved_ahead = and_(tasks.c.due_at != was, tasks.c.due_at < at)
        due = case((moved_ahead, tasks.c.due_at), else_=at)
        values = {"due_at": due, "last_error": error, "claim": None, "worker": None, "lease_until": None}
        async with self.writing() as tx:
            _one(await tx.execute(update(tasks).where(*_held(claim)).values(**values)))

    async def free_leases(self) -> None:
        """SQLite, at the start under the file lock: whoever held a lease is dead."""
        async with self.writing() as tx:
            await tx.execute(update(tasks).values(claim=None, worker=None, lease_until=None))

    async def next_due(self) -> datetime | None:
        """The earliest moment at which a claim may succeed: a due task in a free lane, or a lease that runs out."""
        free = select(func.min(tasks.c.due_at)).where(tasks.c.claim.is_(None), ~_lane_is_taken())
        leases = select(func.min(tasks.c.lease_until)).where(tasks.c.claim.is_not(None))
        async with self.reading() as tx:
            found = [(await tx.execute(query)).scalar_one() for query in (free, leases)]
        return min((moment for moment in found if moment is not None), default=None)

    async def tasks(self, *, request_id: int | None = None) -> tuple[Task, ...]:
        """Unfinished tasks in order of creation."""
        query = select(tasks).order_by(tasks.c.id)
        if request_id is not None:
            query = query.where(tasks.c.request_id == request_id)
        async with self.reading() as tx:
            return tuple(rows.task(row) for row in (await tx.execute(query)).mappings())


async def put(tx: AsyncConnection, plan: Plan, *, request_id: int | None, now: datetime) -> None:
    """Insert, or for a single task move the unfinished one. A claimed one counts only for REVOKE: the others may have drawn an old picture already."""
    if plan.is_single and await _moved(tx, plan, request_id):
        return
    values = {
        "kind": plan.kind,
        "lane": plan.lane,
        "request_id": request_id,
        "payload": dict(plan.payload),
        "due_at": plan.due_at,
        "created_at": now,
        "attempts": 0,
    }
    await tx.execute(insert(tasks).values(**values))


async def _moved(tx: AsyncConnection, plan: Plan, request_id: int | None) -> bool:
    same = [tasks.c.kind == plan.kind, tasks.c.lane == plan.lane, tasks.c.request_id.is_not_distinct_from(request_id)]
    if plan.kind is not TaskKind.REVOKE:
        same.append(tasks.c.claim.is_(None))
    changed = await tx.execute(update(tasks).where(*same).values(due_at=plan.due_at))
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


def _lane_is_taken() -> ColumnElement[bool]:
    other = tasks.alias()
    return exists().where(and_(other.c.lane == tasks.c.lane, other.c.claim.is_not(None)))


def _due(now: datetime) -> Select[Any]:
    """The one to be claimed next: the first created of those that are due in a lane without a claim."""
    due = select(tasks).where(tasks.c.due_at <= now, tasks.c.claim.is_(None), ~_lane_is_taken())
    return due.order_by(tasks.c.id).limit(1)


async def _lane_is_ours(tx: AsyncConnection, lane: str) -> bool:
    """Until the end of this transaction nobody else claims in this lane. Does not wait."""
    return bool((await tx.execute(select(func.pg_try_advisory_xact_lock(lock_number(f"lane {lane}"))))).scalar_one())


async def _free_lapsed(tx: AsyncConnection, now: datetime) -> None:
    lapsed = select(tasks.c.id).where(tasks.c.claim.is_not(None), tasks.c.lease_until <= now)
    free = {"claim": None, "worker": None, "lease_until": None}
    await tx.execute(update(tasks).where(tasks.c.id.in_(lapsed.with_for_update(skip_locked=True))).values(**free))


async def _claim(tx: AsyncConnection, task: Task, worker: str, until: datetime) -> Claim:
    number, tries = secrets.randbits(CLAIM_BITS), task.attempts + 1
    values = {"claim": number, "worker": worker, "lease_until": until, "attempts": tries}
    await tx.execute(update(tasks).where(tasks.c.id == task.id).values(**values))
    return Claim(task=replace(task, attempts=tries), number=number, worker=worker, until=until)
