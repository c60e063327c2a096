"""Tasks and their claims. One task of a lock key runs at a time, under a lease that expires."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Delete,
    Insert,
    Update,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    literal,
    null,
    or_,
    select,
    update,
)

from storage import claims, serialization
from storage.claims import FREE, Claim, DueTasks, EndsOf, SetAside, Situation, holds, require_claim, require_one_row
from storage.database import Database, advisory_lock_key
from storage.errors import KeyTaken
from storage.gone_workers import LOOK_EVERY, GoneWorkers, marked
from storage.pools import ON_SERVER, Slot, pool_of_request, pool_without_server, priority_of, server_of_request
from storage.records import Json, Task, TaskKind
from storage.schema import requests, tasks
from storage.serialization import UNREADABLE, readable
from storage.transitions import TaskPlan

ONE_PLACE: Callable[[Slot], int] = lambda _slot: 1  # noqa: E731 - a constant of this type


class TaskQueue:
    """The tasks of the ledger: everything that must happen outside it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._gone_workers = GoneWorkers()

    async def add(self, plan: TaskPlan, *, request_id: int | None) -> None:
        """Store one task."""

        def store(tx: Connection) -> None:
            schedule_task(tx, plan, request_id=request_id, now=self._database.now_in(tx))

        await self._database.write(store)

    @property
    def _process(self) -> int | None:
        return self._database.commit_listener.process

    async def claim(self, worker: str, lease: timedelta, *, full: Collection[Slot] = ()) -> Claim | None:
        """Claim the first due task whose lock key is free. None if there is none."""
        found = await self.claim_due(worker, lease, full=full, limit=1)
        return found.claims[0] if found.claims else None

    async def claim_due(
        self,
        worker: str,
        lease: timedelta,
        *,
        room: Callable[[Slot], int] = ONE_PLACE,
        full: Collection[Slot] = (),
        closed: Collection[str] = (),
        limit: int = 32,
    ) -> DueTasks:
        """Claim due tasks whose lock key is free, at most ``limit``, at most one of each lock key, and look when the next is due.

        The order is: priority, then tasks that were never tried, then due time. A task whose slot is in ``full`` is not claimed: it waits
        in the ledger, without a lease. ``room`` is the number of free places of each other kind of slot. Tasks of the server addresses in
        ``closed`` wait, too, apart from those that need no server. A claim number is never used twice. A task that cannot be read is set
        aside, and the result names it.
        """
        situation, process = Situation(full=frozenset(full), closed=frozenset(closed)), self._process

        def transaction(tx: Connection) -> DueTasks:
            now = self._database.now_in(tx)
            claims.free_expired_leases(tx, now)
            if not self._database.is_sqlite:
                self._gone_workers.free_claims(tx, process)
            query = claims.due_query(situation, limit)
            rows, unreadable, count = claims.read_due(tx, query, {"now": now}, is_sqlite=self._database.is_sqlite)
            set_aside = claims.set_aside(tx, unreadable)
            claimed = claims.claim_rows(tx, claims.with_room(rows, room), marked(worker, process), now + lease)
            next_due: datetime | None = now
            if len(claimed) == count < limit:
                next_due, more = _next_due(tx, situation, now)
                set_aside += more
            if self._gone_workers.watches and (next_due is None or next_due > now + LOOK_EVERY):
                next_due = now + LOOK_EVERY
            return DueTasks(claims=tuple(claimed), set_aside=tuple(set_aside), next_due=next_due, now=now)

        return await self._database.write(transaction, announce=False)

    async def claim_ends(
        self,
        worker: str,
        lease: timedelta,
        *,
        server: str,
        limit: int,
        ends_of: EndsOf = EndsOf.NOT_BLOCKED,
        untried: bool,
        but: Collection[int] = (),
    ) -> tuple[Claim, ...]:
        """Claim due revocations of one server address together, in order of due time. ``but``: ids of tasks that are left out.

        ``untried``: only those that were never tried. A user that held a step up is ended by its own task. One that cannot be read is
        left to ``claim_due``, which reports it.
        """

        def transaction(tx: Connection) -> tuple[Claim, ...]:
            now = self._database.now_in(tx)
            query = claims.due_query(claims.ANY, limit, ends_of=ends_of, untried_only=untried, has_but=bool(but))
            at: dict[str, Any] = {"now": now, "server": server, **({"but": list(but)} if but else {})}
            rows, _, _ = claims.read_due(tx, query, at, is_sqlite=self._database.is_sqlite)
            return tuple(claims.claim_rows(tx, rows, marked(worker, self._process), now + lease))

        return await self._database.write(transaction, announce=False)

    async def servers_with_new_ends(self, pool: str) -> tuple[str, ...]:
        """The addresses of one server at which revocations are due, unclaimed and untried."""

        def query(tx: Connection) -> tuple[str, ...]:
            due = (tasks.c.due_at <= self._database.now_in(tx), tasks.c.claim.is_(None), tasks.c.set_aside.is_(None))
            new = (tasks.c.kind == TaskKind.REVOKE, tasks.c.attempts == 0, tasks.c.blocked_at.is_(None))
            found = select(tasks.c.server).where(tasks.c.pool == pool, tasks.c.server.is_not(None), *due, *new)
            return tuple(tx.execute(found.distinct()).scalars())

        return await self._database.read(query)

    async def due_ends(self, server: str) -> tuple[Task, ...]:
        """The due, unclaimed revocations of one server address, the earliest first. Those that cannot be read are left out."""

        def query(tx: Connection) -> tuple[Task, ...]:
            due = (tasks.c.due_at <= self._database.now_in(tx), tasks.c.claim.is_(None), tasks.c.set_aside.is_(None))
            rows = select(tasks).where(tasks.c.kind == TaskKind.REVOKE, tasks.c.server == server, *due)
            return tuple(readable(tx, rows.order_by(tasks.c.due_at), tasks.c.id, serialization.task)[0])

        return await self._database.read(query)

    async def renew(self, claimed: Claim, lease: timedelta) -> Claim:
        """Extend the lease: it ends ``lease`` from now. Raises ClaimLost."""

        def transaction(tx: Connection) -> Claim:
            until = self._database.now_in(tx) + lease
            require_one_row(tx.execute(update(tasks).where(*holds(claimed)).values(lease_until=until)))
            return claimed.renewed(until)

        return await self._database.write(transaction, announce=False)

    async def check_claim(self, claimed: Claim) -> None:
        """Raises ClaimLost if the lease expired or the task is gone. Asks the ledger only where this process cannot know it."""
        now = self._database.local_now()
        if now is not None and self._database.is_sqlite and now < claimed.until:
            return  # one bot runs on SQLite, and it gives up no claim before the lease expires
        await self._database.read(lambda tx: require_claim(tx, claimed, now=self._database.now_in(tx)))

    async def hold(self, claimed: Claim, lock_key: str) -> None:
        """Take a second lock key for a claimed task. Raises KeyTaken if another task has it, and ClaimLost."""

        def transaction(tx: Connection) -> None:
            hold_key(tx, claimed, lock_key, now=self._database.now_in(tx))

        await self._database.write(transaction, announce=False)

    async def let_go(self, claimed: Claim) -> str | None:
        """Give the second lock key back. Does nothing where the claim is lost: the key is free then. Returns the state of the task's request."""

        def transaction(tx: Connection) -> str | None:
            tx.execute(update(tasks).where(*holds(claimed)).values(held_key=None))
            return tx.execute(select(requests.c.state).where(requests.c.id == claimed.task.request_id)).scalar()

        return await self._database.write(transaction)

    async def finish(self, claimed: Claim) -> None:
        """Remove the task: it is done. Raises ClaimLost if another worker has it."""
        await self._database.write(lambda tx: finish_task(tx, claimed), announce=False)

    async def reschedule(
        self, claimed: Claim, *, due_at: datetime, error: str | None = None, is_untried: bool = False
    ) -> None:
        """Free the task until ``due_at``. Raises ClaimLost.

        If the task was moved while it was claimed (an end that was brought forward), the earlier of the two times counts.
        ``is_untried``: the next run counts as the first try.
        """
        await self._database.write(
            lambda tx: free_task(tx, claimed, due_at=due_at, error=error, is_untried=is_untried), announce=False
        )

    async def note(self, claimed: Claim, payload: Json) -> None:
        """Replace the payload of a claimed task, so that its next run knows how far this one came. Raises ClaimLost."""
        query = update(tasks).where(*holds(claimed)).values(payload=dict(payload))
        await self._database.write(lambda tx: require_one_row(tx.execute(query)), announce=False)

    async def put_back(
        self, claimed: Collection[Claim], *, blocked: Collection[Claim], is_untried: bool, note: Json | None = None
    ) -> None:
        """Free these tasks, which were claimed together. The users of ``blocked`` have their login blocked now.

        ``is_untried``: this claim does not count as a try of the others. ``note`` is added to the payload of each.
        """
        numbers = {one.number for one in blocked}

        def transaction(tx: Connection) -> None:
            now = self._database.now_in(tx)
            for one in claimed:
                values: dict[str, Any] = dict(FREE)
                if one.number in numbers:
                    values |= {"blocked_at": now, "attempts": one.task.attempts - 1}
                elif is_untried:
                    values["attempts"] = one.task.attempts - 1
                if note is not None:
                    values["payload"] = {**one.task.payload, **note}
                tx.execute(update(tasks).where(*holds(one)).values(**values))

        await self._database.write(transaction)

    async def free_leases(self) -> None:
        """Free every claimed task. For the start on SQLite, under the run lock: no other bot can hold a lease then."""
        await self._database.write(lambda tx: tx.execute(update(tasks).values(**FREE)))

    async def next_due(self, *, full: Collection[Slot] = ()) -> datetime | None:
        """The earliest time at which a claim may succeed. None if there is no such time."""
        situation = Situation(full=frozenset(full))

        def query(tx: Connection) -> datetime | None:
            now = self._database.now_in(tx)
            is_due = tx.execute(claims.due_query(situation, 1), {"now": now}).first() is not None
            return now if is_due else claims.next_due(tx, situation, now)

        return await self._database.read(query)

    async def time_until_due(self, kind: TaskKind, request_id: int) -> timedelta | None:
        """The time until this request's task of this kind is due; negative if it is late, None if there is no such task."""
        query = select(func.min(tasks.c.due_at)).where(tasks.c.request_id == request_id, tasks.c.kind == kind)

        def time_left(tx: Connection) -> timedelta | None:
            due = tx.execute(query).scalar()
            return None if due is None else due - self._database.now_in(tx)

        return await self._database.read(time_left)

    async def all(self, *, request_id: int | None = None) -> tuple[Task, ...]:
        """Unfinished tasks in order of creation. Those that were set aside or cannot be read are left out."""
        query = select(tasks).where(tasks.c.set_aside.is_(None)).order_by(tasks.c.id)
        if request_id is not None:
            query = query.where(tasks.c.request_id == request_id)
        return await self._database.read(lambda tx: tuple(readable(tx, query, tasks.c.id, serialization.task)[0]))

    async def plan_missing_ends(self) -> tuple[int, ...]:
        """Store a revocation, due now, for every live grant that has none, and return the numbers of these grants.

        The approval stores it; it is missing only where a row was lost, or cannot be read and is set aside.
        """
        live = requests.c.state.in_(["approved", "active", "revoking"])
        has_end = (
            select(tasks.c.id)
            .where(tasks.c.request_id == requests.c.id, tasks.c.kind == TaskKind.REVOKE, tasks.c.set_aside.is_(None))
            .exists()
        )
        query = select(requests.c.id).where(live, ~has_end)
        if not await self._database.read(lambda tx: tx.execute(query.limit(1)).first()):
            return ()

        def transaction(tx: Connection) -> tuple[int, ...]:
            if not self._database.is_sqlite:  # replicas that find it missing at the same time store one
                tx.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (advisory_lock_key("missing ends"),))
            now, found = self._database.now_in(tx), tuple(tx.execute(query).scalars())
            for request_id in found:
                plan = TaskPlan(kind=TaskKind.REVOKE, lock_key=f"user:{request_id}", due_at=now)
                schedule_task(tx, plan, request_id=request_id, now=now)
            return found

        return await self._database.write(transaction)


def _next_due(tx: Connection, situation: Situation, now: datetime) -> tuple[datetime | None, list[SetAside]]:
    """When another claim may succeed. Tasks whose times cannot be read are set aside first."""
    try:
        return claims.next_due(tx, situation, now), []
    except UNREADABLE:
        set_aside = claims.set_aside_unreadable(tx)
    return claims.next_due(tx, situation, now), set_aside


def schedule_task(tx: Connection, plan: TaskPlan, *, request_id: int | None, now: datetime) -> None:
    """Insert the task of ``plan``, or move the unfinished one if the plan is single.

    A claimed task is moved only if it is a REVOKE. A claimed task of another kind may have read the old state already, so
    another one is inserted behind it.
    """
    parameters = {
        "of_kind": plan.kind,
        "with_key": plan.lock_key,
        "for_request": request_id,
        "new_due_at": plan.due_at,
        "new_priority": int(priority_of(plan.kind) if plan.priority is None else plan.priority),
    }
    if plan.is_single and tx.execute(_move_statement(plan.kind, plan.keeps_time), parameters).rowcount > 0:
        return
    values = {"new_payload": dict(plan.payload), "at": now}
    tx.execute(_insert_statement(plan.kind), {**parameters, **values})


# Built once for each kind of task: building a statement costs more than running it.


@cache
def _insert_statement(kind: TaskKind) -> Insert:
    values = {
        "kind": bindparam("of_kind"),
        "lock_key": bindparam("with_key"),
        "request_id": bindparam("for_request", type_=tasks.c.request_id.type),
        "payload": bindparam("new_payload", type_=tasks.c.payload.type),
        "due_at": bindparam("new_due_at", type_=tasks.c.due_at.type),
        "created_at": bindparam("at", type_=tasks.c.created_at.type),
        "attempts": 0,
        "priority": bindparam("new_priority", type_=tasks.c.priority.type),
        **_place(kind),
    }
    return insert(tasks).values(values)


@cache
def _move_statement(kind: TaskKind, keeps_time: bool) -> Update:
    """The attempts of a REVOKE count for one end: they begin again where the end is moved."""
    same = [
        tasks.c.kind == bindparam("of_kind"),
        tasks.c.lock_key == bindparam("with_key"),
        tasks.c.request_id.is_not_distinct_from(bindparam("for_request", type_=tasks.c.request_id.type)),
        tasks.c.set_aside.is_(None),
    ]
    values: dict[str, Any] = {"priority": bindparam("new_priority", type_=tasks.c.priority.type), **_place(kind)}
    if not keeps_time:
        values["due_at"] = bindparam("new_due_at", type_=tasks.c.due_at.type)
    if kind is TaskKind.REVOKE:
        values["attempts"] = 0
    else:
        same.append(tasks.c.claim.is_(None))
    return update(tasks).where(*same).values(values)


def _place(kind: TaskKind) -> dict[str, Any]:
    """The columns that say where a task of this kind runs."""
    if kind not in ON_SERVER:
        return {"pool": pool_without_server(kind), "server": null()}
    request_id = bindparam("for_request", type_=tasks.c.request_id.type)
    return {"pool": pool_of_request(request_id), "server": server_of_request(request_id)}


@cache
def _clear_statement(kinds: tuple[TaskKind, ...]) -> Delete:
    of_request = tasks.c.request_id == bindparam("for_request")
    of_kind = or_(*(tasks.c.kind == kind.value for kind in kinds))  # an IN list would be compiled at each execution
    return delete(tasks).where(of_request, of_kind, tasks.c.claim.is_(None))


def clear_tasks(tx: Connection, request_id: int, kinds: Iterable[TaskKind]) -> None:
    """Remove the request's tasks of these kinds, but never a claimed one: its worker finds the state changed."""
    if listed := tuple(kinds):
        tx.execute(_clear_statement(listed), {"for_request": request_id})


def hold_key(tx: Connection, claimed: Claim, lock_key: str, *, now: datetime) -> None:
    """``TaskQueue.hold`` inside a transaction."""
    if tx.dialect.name != "sqlite" and not claims.try_lock_keys(tx, [lock_key]):
        raise KeyTaken(lock_key)
    require_claim(tx, claimed, now=now, for_update=True)
    if tx.execute(select(literal(1)).where(claims.is_taken(literal(lock_key)))).first() is not None:
        raise KeyTaken(lock_key)
    tx.execute(update(tasks).where(*holds(claimed)).values(held_key=lock_key))


def finish_task(tx: Connection, claimed: Claim) -> None:
    """Remove a claimed task inside a transaction. Raises ClaimLost if another worker has it."""
    require_one_row(tx.execute(delete(tasks).where(*holds(claimed))))


def free_task(tx: Connection, claimed: Claim, *, due_at: datetime, error: str | None, is_untried: bool) -> None:
    """``TaskQueue.reschedule`` inside a transaction."""
    was, at = claimed.task.due_at, literal(due_at, tasks.c.due_at.type)
    was_moved_ahead: ColumnElement[bool] = and_(tasks.c.due_at != was, tasks.c.due_at < at)
    due = case((was_moved_ahead, tasks.c.due_at), else_=at)
    values: dict[str, Any] = {**FREE, "due_at": due, "last_error": error}
    if is_untried:
        values["attempts"] = case((tasks.c.attempts > 0, tasks.c.attempts - 1), else_=0)
    require_one_row(tx.execute(update(tasks).where(*holds(claimed)).values(**values)))
