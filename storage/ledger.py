"""The ledger: what is true, and ``advance``, the only way it changes.

State, decision, audit event, message rows and follow-up tasks commit together or not at all. Whoever loses a
race gets ``NotPossible`` with what is true instead.
"""

from __future__ import annotations

import hashlib
import secrets
import string
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any, TypeAlias

import fasteners
from sqlalchemy import delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from storage import serialization
from storage.audit_log import AuditKind
from storage.commands import Command, DecisionCommand, EndCommand, SubmitRequest
from storage.database import Clock, lock_number
from storage.errors import ClaimLost, LimitReached, NotPossible
from storage.files import make_private
from storage.lifecycle import TRANSITIONS
from storage.records import (
    Claim,
    Draft,
    Json,
    Lockdown,
    Message,
    Purpose,
    Request,
    RequestKind,
    State,
    TaskKind,
    UsageCounts,
)
from storage.requests import (
    RequestQueries,
    all_decisions,
    lockdowns_in_force,
    meta_value,
    one_request,
    pending_like,
    usage_of,
)
from storage.schema import audit_events, audit_texts, decisions, messages, meta, requests
from storage.serialization import terms_json
from storage.task_queue import TaskQueue, clear, held, put
from storage.transitions import GuardInput, Obstacle, Related, TaskPlan, TaskPlanner, Transition

Event: TypeAlias = tuple[AuditKind, str, Json]
"""What happened, who did it, and its facts."""
KEY_ALPHABET = string.ascii_lowercase + string.digits
KEY_LENGTH = 16
FEED_LOCK_KEY = "slack:feed"
SALT_BYTES = 16


def random_key(length: int = KEY_LENGTH) -> str:
    """Letters and digits nobody can guess (82 bits at 16)."""
    return "".join(secrets.choice(KEY_ALPHABET) for _ in range(length))


class Ledger(RequestQueries, TaskQueue):
    """Built without I/O; ``open`` before use, ``close`` after it. ``id`` names this ledger in every mark on a server."""

    def __init__(self, url: str, *, clock: Clock | None = None) -> None:
        super().__init__(url, clock=clock)
        self.id = ""
        self._sole: fasteners.InterProcessLock | None = None

    async def open(self, *, create: bool) -> None:
        """Check the schema, or make it with ``create``. Raises SchemaMissing, StoreUnavailable."""
        if create:
            await self.upgrade()
        await self.check_schema()
        async with self.reading() as tx:
            self.id = await meta_value(tx, "ledger") or ""

    async def upgrade(self) -> None:
        """Bring the tables up to date and give a new ledger its id. Raises SchemaMissing where it is newer."""
        async with self.migrated() as tx:
            if await meta_value(tx, "ledger") is None:
                await tx.execute(insert(meta).values(name="ledger", value=random_key(12)))

    def take_sole_run(self) -> bool:
        """On SQLite one bot runs at a time, guarded by the operating system's file lock; PostgreSQL takes any number."""
        if not self.is_sqlite:
            return True
        path = Path(f"{self.path.resolve()}.lock")
        make_private(path)
        self._sole = fasteners.InterProcessLock(path)
        if self._sole.acquire(blocking=False):
            return True
        self._sole.lockfile.close()
        return False

    def release_sole_run(self) -> None:
        """Give the run free; the lock also ends with the process."""
        if self._sole is not None and self._sole.acquired:
            self._sole.release()

    async def changed(self, seconds: float, *, reader: str = "runner") -> bool:
        """True as soon as something was committed, by any process, since this reader was told; False when the time is over."""
        return await self.waker.changed(seconds, reader)

    # Transitions.

    async def submit(
        self,
        draft: Draft,
        *,
        actor: str | None = None,
        is_allowed: Callable[[UsageCounts], bool] = lambda _counts: True,
    ) -> tuple[Request, bool]:
        """Transition.REQUEST. Where the same request is pending already, that one is returned, and False.

        ``is_allowed`` is called with what is counted in this very transaction. Raises LimitReached where it returns False, and
        NotPossible where the grant to be extended has ended.
        """
        async with self.writing() as tx:
            now = await self.moment(tx)
            await self._one_at_a_time(tx, draft)
            pending = await pending_like(tx, draft)
            if pending is not None:
                return pending, False
            if not is_allowed(await usage_of(tx, draft.requester_id, draft.database, now)):
                raise LimitReached
            request_id = await _insert_request(tx, draft, now, until=await _end_of_parent(tx, draft, now))
            after = await one_request(tx, request_id)
            await _follow(tx, after, SubmitRequest(actor=actor or draft.requester_id, text=draft.reason), now)
        return after, True

    async def _one_at_a_time(self, tx: AsyncConnection, draft: Draft) -> None:
        """Two deliveries of one command make one request, and two requests cannot pass one limit. On SQLite the transaction ensures it."""
        if not self.is_sqlite:
            for name in (f"asker {draft.requester_id}", f"asked {draft.database}"):
                await tx.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (lock_number(name),))

    async def advance(self, request_id: int, command: Command, *, claim: Claim | None = None) -> Request:
        """Make the transition of ``command``. The request afterwards.

        One transaction: row locked, claim checked, guards, compare-and-set, decision, audit event, messages, tasks, cascades.
        Raises NotPossible (with the request as it is), NoSuchRequest, StoreUnavailable.
        """
        async with self.writing() as tx:
            parent = await _parent(tx, request_id)
            before = await one_request(tx, request_id, for_update=True)
            now = await self.moment(tx)  # not before the row is locked: waiting for it may take us past an end
            made = await all_decisions(tx, request_id)
            if claim is not None:
                await _claim_held(tx, claim, command, before, now)
            locked = _covers(await lockdowns_in_force(tx), before)
            situation = GuardInput(
                now=now, request=before, decisions=made, is_locked_down=locked, command=command, parent=parent
            )
            if (obstacle := _obstacle(situation)) is not None:
                raise NotPossible(command.transition, obstacle, before, made)
            after = await _apply(tx, before, command, now)
            await _follow(tx, after, command, now)
            await _cascade(tx, after, command, parent, now)
        return after

    # Messages.

    async def add_message(self, request_id: int, purpose: Purpose, channel: str) -> Message:
        """A further message of a request, to be posted."""
        values = {"request_id": request_id, "purpose": purpose, "channel": channel, "ts": None, "version": 0}
        async with self.writing() as tx:
            found = await tx.execute(insert(messages).values(**values).returning(messages.c.id))
        return Message(
            id=found.scalar_one(), request_id=request_id, purpose=purpose, channel=channel, ts=None, version=0
        )

    async def message_posted(self, message_id: int, *, channel: str, ts: str, version: int) -> None:
        """Where it is now, and which version it shows."""
        await self._change_message(message_id, channel=channel, ts=ts, version=version)

    async def message_rendered(self, message_id: int, version: int) -> None:
        """It was redrawn in place."""
        await self._change_message(message_id, version=version)

    async def message_gone(self, message_id: int) -> None:
        """It was deleted: to be posted anew."""
        await self._change_message(message_id, ts=None)

    async def _change_message(self, message_id: int, **values: str | int | None) -> None:
        async with self.writing() as tx:
            await tx.execute(update(messages).where(messages.c.id == message_id).values(**values))

    # The record.

    async def record(
        self,
        kind: AuditKind,
        *,
        actor: str,
        request_id: int | None = None,
        facts: Json | None = None,
        text: str | None = None,
        plan: TaskPlan | None = None,
    ) -> None:
        """An audit event without a transition; ``plan`` is a task that follows from it, put on disk in the same transaction."""
        async with self.writing() as tx:
            now = await self.moment(tx)
            await _audit(tx, kind, actor=actor, request_id=request_id, facts=facts or {}, text=text, now=now)
            if plan is not None:
                await put(tx, plan, request_id=request_id, now=now)

    async def remember(
        self,
        name: str,
        value: str | None,
        *,
        was: str | None,
        events: Sequence[Event] = (),
        plan: TaskPlan | None = None,
    ) -> bool:
        """Write down what was seen, or forget it with None. False, and nothing written, where it no longer is what it ``was``.

        ``events`` go on the record, and the task of ``plan`` on disk, in the same transaction: what was seen and never
        told could not be seen again.
        """
        async with self.writing() as tx:
            if not self.is_sqlite:
                await tx.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (lock_number(f"seen {name}"),))
            if await meta_value(tx, f"seen:{name}") != was:
                return False
            await tx.execute(delete(meta).where(meta.c.name == f"seen:{name}"))
            if value is not None:
                await tx.execute(insert(meta).values(name=f"seen:{name}", value=value))
            now = await self.moment(tx)
            for kind, actor, facts in events:
                await _audit(tx, kind, actor=actor, request_id=None, facts=facts, text=None, now=now)
            if plan is not None:
                await put(tx, plan, request_id=None, now=now)
        return True

    async def set_cursor(self, name: str, value: int) -> None:
        """How far a reader has come."""
        async with self.writing() as tx:
            await tx.execute(delete(meta).where(meta.c.name == f"cursor:{name}"))
            await tx.execute(insert(meta).values(name=f"cursor:{name}", value=str(value)))


async def _insert_request(tx: AsyncConnection, draft: Draft, now: datetime, *, until: datetime | None) -> int:
    values: dict[str, Any] = {name: value for name, value in asdict(draft).items() if name != "terms"}
    lapses_at = now + draft.terms.request_ttl
    values |= {
        "rule": draft.terms.rule,
        "requested_duration": draft.terms.duration,
        "is_automatic": not draft.terms.stages,
        "key": random_key(),
        "state": State.PENDING,
        "version": 1,
        "terms": terms_json(draft.terms),
        "requested_at": now,
        "lapses_at": lapses_at if until is None else min(lapses_at, until),
    }
    return int((await tx.execute(insert(requests).values(**values).returning(requests.c.id))).scalar_one())


# Extensions: the grant's row is always locked before the extension's, so that two transitions never wait for each other.


async def _end_of_parent(tx: AsyncConnection, draft: Draft, now: datetime) -> datetime | None:
    """The end of the grant that an extension extends; None for other requests. Raises NotPossible where it has ended."""
    if draft.parent_id is None:
        return None
    grant = await one_request(tx, draft.parent_id, for_update=True)
    if grant.state is not State.ACTIVE or grant.expires_at is None or now >= grant.expires_at:
        raise NotPossible(Transition.REQUEST, Obstacle.GRANT_ENDED, grant)
    return grant.expires_at


async def _parent(tx: AsyncConnection, request_id: int) -> Request | None:
    parent_id = (await tx.execute(select(requests.c.parent_id).where(requests.c.id == request_id))).scalar_one_or_none()
    return None if parent_id is None else await one_request(tx, parent_id, for_update=True)


async def _claim_held(tx: AsyncConnection, claim: Claim, command: Command, before: Request, now: datetime) -> None:
    try:
        await held(tx, claim, now=now, for_update=True)  # nobody takes it over before we commit
    except ClaimLost:
        raise NotPossible(command.transition, Obstacle.CLAIM_LOST, before) from None


def _covers(found: tuple[Lockdown, ...], request: Request) -> bool:
    return any(
        lock.database in (None, request.database) and lock.person_id in (None, request.requester_id) for lock in found
    )


def _obstacle(situation: GuardInput) -> Obstacle | None:
    rule = TRANSITIONS[situation.command.transition]
    if situation.request.state not in rule.sources:
        return Obstacle.STATE
    return next((found for found in (guard(situation) for guard in rule.guards) if found is not None), None)


async def _apply(tx: AsyncConnection, before: Request, command: Command, now: datetime) -> Request:
    if isinstance(command, DecisionCommand) and command.decision is not None:
        await tx.execute(insert(decisions).values(**asdict(command.decision)))
    return await _write(tx, before, command, serialization.columns(written(before, command, now)))


def written(before: Request, command: Command, now: datetime) -> dict[str, Any]:
    """Column values of the transition, besides ``version``."""
    rule = TRANSITIONS[command.transition]
    values: dict[str, Any] = {} if rule.target is None else {"state": rule.target}
    for write in rule.writes:
        values |= write(before, command, now)
    return values


async def _write(tx: AsyncConnection, before: Request, command: Command, values: Mapping[str, Any]) -> Request:
    same = (requests.c.id == before.id, requests.c.version == before.version)
    changed = await tx.execute(update(requests).where(*same).values(**values, version=before.version + 1))
    if changed.rowcount != 1:
        raise NotPossible(command.transition, Obstacle.STATE, before)
    return await one_request(tx, before.id)


async def _follow(tx: AsyncConnection, after: Request, command: Command, now: datetime) -> None:
    """What commits with the transition: audit event, message rows, tasks cleared and planned."""
    rule = TRANSITIONS[command.transition]
    facts = {**_facts(after, command), **command.facts}
    await _audit(tx, rule.audit, actor=command.actor, request_id=after.id, facts=facts, text=command.text, now=now)
    for purpose in rule.messages:
        channel = after.terms.channel if purpose is Purpose.CARD else after.requester_id
        await tx.execute(insert(messages).values(request_id=after.id, purpose=purpose, channel=channel, version=0))
    await clear(tx, after.id, rule.clears)
    await _plan(tx, after, rule.tasks, now)


async def _plan(tx: AsyncConnection, request: Request, planners: Iterable[TaskPlanner], now: datetime) -> None:
    for plan in (planner(request, now) for planner in planners):
        if plan is not None:
            await put(tx, plan, request_id=request.id, now=now)


async def _cascade(
    tx: AsyncConnection, after: Request, command: Command, parent: Request | None, now: datetime
) -> None:
    """What the transition does to related requests. Their rows are locked, and their guards were checked with this request's."""
    for cascade in TRANSITIONS[command.transition].cascades:
        for related in await _related(tx, cascade.related, after, parent):
            if cascade.command is not None:
                theirs = cascade.command(after, command)
                changed = await _apply(tx, related, theirs, now)
                await _follow(tx, changed, theirs, now)
            await _plan(tx, related, cascade.tasks, now)


async def _related(
    tx: AsyncConnection, related: Related, request: Request, parent: Request | None
) -> tuple[Request, ...]:
    if related is Related.PARENT:
        return (parent,) if parent is not None else ()
    waits = (requests.c.parent_id == request.id, requests.c.state == State.PENDING)
    return tuple(serialization.request(row) for row in (await tx.execute(select(requests).where(*waits))).mappings())


def _facts(after: Request, command: Command) -> dict[str, Any]:
    facts: dict[str, Any] = {"state": after.state, "database": after.database, "level": after.level}
    if after.kind is not RequestKind.ACCESS:
        facts["kind"] = after.kind
    if isinstance(command, DecisionCommand) and command.decision is not None:
        facts |= {"verdict": command.decision.verdict, "stage": command.decision.stage}
    if after.username is not None:
        facts["username"] = after.username
    if after.expires_at is not None:
        facts["expires_at"] = after.expires_at.isoformat()
    if isinstance(command, EndCommand):
        facts["cause"] = command.cause
    facts["duration_seconds"] = after.effective_duration.total_seconds()
    facts["policy"] = after.terms.policy_digest
    return facts


async def _audit(
    tx: AsyncConnection,
    kind: AuditKind,
    *,
    actor: str,
    request_id: int | None,
    facts: Mapping[str, Any],
    text: str | None,
    now: datetime,
) -> None:
    """One event, and the feed's task: the feed is a reader of the record."""
    salt = secrets.token_bytes(SALT_BYTES)
    digest = hashlib.sha256(salt + text.encode()).hexdigest() if text else None
    values = {
        "at": now,
        "kind": kind,
        "actor": actor,
        "request_id": request_id,
        "facts": dict(facts),
        "text_digest": digest,
    }
    event_id = (await tx.execute(insert(audit_events).values(**values).returning(audit_events.c.id))).scalar_one()
    if text:
        await tx.execute(insert(audit_texts).values(event_id=event_id, salt=salt, text=text))
    await put(
        tx,
        TaskPlan(kind=TaskKind.AUDIT_FEED, lock_key=FEED_LOCK_KEY, due_at=now, is_single=True),
        request_id=None,
        now=now,
    )
