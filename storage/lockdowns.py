"""Lockdowns: while one is in force, matching requests are refused, and the matching grants are ended.

A lockdown commits before any grant is ended. A grant that is approved at the same moment is refused its START by a guard, so none
slips through. The task ``lockdown`` is stored with it: after a crash it ends the rest, and it shows how many have not ended yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select, update

from storage.alerts import AlertDraft, AlertRepository
from storage.audit_kinds import AuditKind
from storage.audit_log import append_event
from storage.commands import RevokeGrant
from storage.database import Database, advisory_lock_key
from storage.lockdown_queries import count_live, is_matched_by, load_lockdown, lockdowns_in_force
from storage.records import Cause, Lockdown, LockdownMessage, State, TaskKind
from storage.requests import RequestRepository
from storage.schema import lockdown_messages, lockdowns, requests
from storage.task_queue import schedule_task
from storage.transitions import TaskPlan


@dataclass(frozen=True, kw_only=True)
class EndedChunk:
    """Matching grants whose end began together. ``last`` is the highest number that was looked at, None where there are no more."""

    ended: int
    last: int | None


class LockdownRepository:
    """The lockdowns of the ledger."""

    def __init__(self, database: Database, requests: RequestRepository, alerts: AlertRepository) -> None:
        self._database = database
        self._requests = requests
        self._alerts = alerts

    async def get(self, lockdown_id: int) -> Lockdown | None:
        """One lockdown by its number, in force or lifted."""
        return await self._database.read(lambda tx: load_lockdown(tx, lockdown_id))

    async def in_force(self) -> tuple[Lockdown, ...]:
        """Lockdowns that are not lifted, the oldest first."""
        return await self._database.read(lockdowns_in_force)

    async def lock_down(
        self, *, database: str | None, person_id: str | None, person_name: str | None, by: str, by_name: str
    ) -> tuple[Lockdown, bool]:
        """Put a lockdown in force. Returns it and True, or the one of the same database and person that is in force, and False.

        It commits at once. ``end_grants`` ends the grants; a task does the same after a crash.
        """

        def transaction(tx: Connection) -> tuple[Lockdown, bool]:
            self._take_turns(tx)
            now, same = self._database.now_in(tx), (database, person_id)
            found = next((one for one in lockdowns_in_force(tx) if (one.database, one.person_id) == same), None)
            if found is not None:
                _plan_message(tx, found.id, now)
                return found, False
            names = {"locked_by": by, "locked_by_name": by_name, "person_name": person_name}
            made = _insert(tx, now, database=database, person_id=person_id, **names)
            _record(tx, AuditKind.LOCKDOWN_SET, made, by, now)
            return made, True

        return await self._database.write(transaction)

    async def unlock(self, drafts: Mapping[int, AlertDraft | None], *, by: str, by_name: str) -> tuple[Lockdown, ...]:
        """Lift the lockdowns with these numbers, in one transaction. Returns those that were still in force.

        ``drafts`` has the alert that is raised where one of them is lifted.
        """

        def transaction(tx: Connection) -> tuple[Lockdown, ...]:
            self._take_turns(tx)
            now = self._database.now_in(tx)
            values = {"unlocked_by": by, "unlocked_by_name": by_name, "unlocked_at": now}
            lifted = [row for number in sorted(drafts) if (row := _lift(tx, number, values)) is not None]
            for row in lifted:
                _record(tx, AuditKind.LOCKDOWN_LIFTED, row, by, now)
                if (draft := drafts[row.id]) is not None:
                    self._alerts.raise_in(tx, draft)
            return tuple(lifted)

        return await self._database.write(transaction)

    def _take_turns(self, tx: Connection) -> None:
        """PostgreSQL: one lockdown is set or lifted at a time, so that two admins who lock the same thing make one lockdown."""
        if not self._database.is_sqlite:
            tx.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (advisory_lock_key("lockdowns"),))

    # Its grants.

    async def end_grants(self, lockdown_id: int, *, after: int, limit: int) -> EndedChunk:
        """Begin the end of up to ``limit`` matching grants with a number above ``after``, in one transaction.

        Does nothing once the lockdown is lifted: grants that are approved later are not its business.
        """

        def transaction(tx: Connection) -> EndedChunk:
            found = load_lockdown(tx, lockdown_id, for_share=True)
            if found is None or not found.is_in_force:
                return EndedChunk(ended=0, last=None)
            numbers = _not_ending(tx, found, after, limit)
            ended = self._requests.advance_in(tx, [(number, _end_by(found)) for number in numbers])
            return EndedChunk(
                ended=sum(not isinstance(one, Exception) for one in ended), last=max(numbers, default=None)
            )

        return await self._database.write(transaction)

    async def count_live(self, lockdown: Lockdown) -> int:
        """The number of matching grants that have not ended yet."""
        return await self._database.read(lambda tx: count_live(tx, lockdown))

    async def all_ended(self, lockdown_id: int) -> Lockdown | None:
        """Note that no matching grant is live any more. The first time counts. Returns the lockdown afterwards."""

        def transaction(tx: Connection) -> Lockdown | None:
            first = (lockdowns.c.id == lockdown_id, lockdowns.c.all_ended_at.is_(None))
            tx.execute(update(lockdowns).where(*first).values(all_ended_at=self._database.now_in(tx)))
            return load_lockdown(tx, lockdown_id)

        return await self._database.write(transaction, announce=False)

    # Its messages.

    async def messages(self, lockdown_id: int) -> tuple[LockdownMessage, ...]:
        """The messages that show a lockdown."""
        query = select(lockdown_messages).where(lockdown_messages.c.lockdown_id == lockdown_id)
        return await self._database.read_all(query, lambda row: LockdownMessage(**row))

    async def shown(self, message: LockdownMessage) -> None:
        """Note that a message was posted, or says this now."""

        def transaction(tx: Connection) -> None:
            table = lockdown_messages.c
            same = (table.lockdown_id == message.lockdown_id, table.place == message.place)
            values = {"channel": message.channel, "ts": message.ts, "shown": message.shown}
            if tx.execute(update(lockdown_messages).where(*same).values(**values)).rowcount == 0:
                key = {"lockdown_id": message.lockdown_id, "place": message.place}
                tx.execute(insert(lockdown_messages).values(**key, **values))

        await self._database.write(transaction, announce=False)


def _insert(tx: Connection, now: datetime, **values: str | None) -> Lockdown:
    row = tx.execute(insert(lockdowns).values(**values, at=now, grants=0).returning(lockdowns)).mappings().one()
    grants = count_live(tx, Lockdown(**row))
    counted = update(lockdowns).where(lockdowns.c.id == row["id"]).values(grants=grants).returning(lockdowns)
    return Lockdown(**tx.execute(counted).mappings().one())


def _lift(tx: Connection, lockdown_id: int, values: dict[str, Any]) -> Lockdown | None:
    in_force = (lockdowns.c.id == lockdown_id, lockdowns.c.unlocked_at.is_(None))
    row = tx.execute(update(lockdowns).where(*in_force).values(**values).returning(lockdowns)).mappings().first()
    return None if row is None else Lockdown(**row)


def _record(tx: Connection, kind: AuditKind, lockdown: Lockdown, actor: str, now: datetime) -> None:
    """Append the audit event, and plan the task that shows it."""
    facts = {
        "lockdown": lockdown.id,
        "database": lockdown.database,
        "person": lockdown.person_id,
        "grants": lockdown.grants,
    }
    append_event(tx, kind, actor=actor, request_id=None, facts=facts, text=None, now=now)
    _plan_message(tx, lockdown.id, now)


def _plan_message(tx: Connection, lockdown_id: int, now: datetime) -> None:
    key, payload = f"message:lockdown:{lockdown_id}", {"lockdown": lockdown_id}
    plan = TaskPlan(kind=TaskKind.LOCKDOWN, lock_key=key, due_at=now, payload=payload, is_single=True)
    schedule_task(tx, plan, request_id=None, now=now)


def _not_ending(tx: Connection, lockdown: Lockdown, after: int, limit: int) -> list[int]:
    """The numbers of matching grants whose end has not begun, lowest first."""
    begins = requests.c.state.in_([State.APPROVED.value, State.ACTIVE.value])
    query = select(requests.c.id).where(begins, requests.c.id > after, *is_matched_by(lockdown))
    return list(tx.execute(query.order_by(requests.c.id).limit(limit)).scalars())


def _end_by(lockdown: Lockdown) -> RevokeGrant:
    return RevokeGrant(actor=lockdown.locked_by, cause=Cause.LOCKDOWN, facts={"lockdown": lockdown.id})
