"""The ledger: dbaccess's own database. ``advance`` and ``submit`` are the only functions that change a request.

State, decision, audit event, messages and follow-up tasks of a transition commit together or not at all. A caller that loses a
race gets ``NotPossible`` with the request as it is instead.
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Any

import fasteners
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from storage import interpreter
from storage.audit_events import AuditEvents
from storage.commands import Command, SubmitRequest
from storage.database import Clock, advisory_lock_key
from storage.errors import ClaimLost, LimitReached, NotPossible
from storage.files import make_private
from storage.messages import RequestMessages
from storage.meta import MetaValues, meta_value
from storage.records import Draft, Request, State, UsageCounts
from storage.requests import (
    Lockdown,
    RequestQueries,
    count_usage,
    load_decisions,
    load_request,
    lockdowns_in_force,
    pending_duplicate,
)
from storage.schema import meta, requests
from storage.serialization import terms_json
from storage.task_queue import Claim, TaskQueue, require_claim
from storage.transitions import GuardInput, Obstacle, Transition

KEY_ALPHABET = string.ascii_lowercase + string.digits
KEY_LENGTH = 16
LEDGER_ID_LENGTH = 12


def random_key(length: int = KEY_LENGTH) -> str:
    """Random letters and digits that nobody can guess (82 bits at 16 characters)."""
    return "".join(secrets.choice(KEY_ALPHABET) for _ in range(length))


class Ledger(RequestQueries, AuditEvents, RequestMessages, MetaValues, TaskQueue):
    """The one class that callers use. Its constructor does no I/O: call ``open`` before use and ``close`` after it.

    ``id`` names this ledger in the mark of every user that it creates on a server.
    """

    def __init__(self, url: str, *, clock: Clock | None = None) -> None:
        super().__init__(url, clock=clock)
        self.id = ""
        self._run_lock: fasteners.InterProcessLock | None = None

    async def open(self, *, create: bool) -> None:
        """Check the schema; with ``create``, create or upgrade it first. Raises SchemaMismatch, LedgerUnavailable."""
        if create:
            await self.upgrade()
        await self.check_schema()
        async with self.reading() as tx:
            self.id = await meta_value(tx, "ledger") or ""

    async def upgrade(self) -> None:
        """Create the tables or bring them up to date. A new ledger gets its id. Raises SchemaMismatch if it is newer."""
        async with self.migrated() as tx:
            if await meta_value(tx, "ledger") is None:
                await tx.execute(insert(meta).values(name="ledger", value=random_key(LEDGER_ID_LENGTH)))

    def acquire_run_lock(self) -> bool:
        """Take the right to run a bot. False if another process has it.

        On SQLite this is a lock of the operating system on the file ``<ledger>.lock``. PostgreSQL takes any number of bots: True.
        """
        if not self.is_sqlite:
            return True
        path = Path(f"{self.path.resolve()}.lock")
        make_private(path)
        self._run_lock = fasteners.InterProcessLock(path)
        if self._run_lock.acquire(blocking=False):
            return True
        self._run_lock.lockfile.close()
        return False

    def release_run_lock(self) -> None:
        """Release the run lock. The operating system also releases it when the process ends."""
        if self._run_lock is not None and self._run_lock.acquired:
            self._run_lock.release()

    async def wait_for_commit(self, seconds: float, *, reader: str = "runner") -> bool:
        """Wait for a commit of any process. True as soon as there was one since this reader's last call.

        False after ``seconds`` without a commit.
        """
        return await self.commit_listener.wait_for_commit(seconds, reader)

    async def submit(
        self,
        draft: Draft,
        *,
        actor: str | None = None,
        is_allowed: Callable[[UsageCounts], bool] = lambda _counts: True,
    ) -> tuple[Request, bool]:
        """Make the transition REQUEST. Returns the new request and True, or an identical pending one and False.

        ``is_allowed`` gets the usage as counted in this transaction. Raises LimitReached if it returns False, and NotPossible if
        the grant to be extended has ended.
        """
        async with self.writing() as tx:
            now = await self.now_in(tx)
            await self._lock_requester_and_database(tx, draft)
            pending = await pending_duplicate(tx, draft)
            if pending is not None:
                return pending, False
            if not is_allowed(await count_usage(tx, draft.requester_id, draft.database, now)):
                raise LimitReached
            request_id = await _insert_request(tx, draft, now, latest=await _end_of_parent(tx, draft, now))
            after = await load_request(tx, request_id)
            command = SubmitRequest(actor=actor or draft.requester_id, text=draft.reason)
            await interpreter.follow_up(tx, after, command, now)
        return after, True

    async def _lock_requester_and_database(self, tx: AsyncConnection, draft: Draft) -> None:
        """Two deliveries of one command create one request, and two requests cannot both take the last place of a limit.

        On SQLite the transaction itself ensures this: there is one writer at a time.
        """
        if not self.is_sqlite:
            for name in (f"asker {draft.requester_id}", f"asked {draft.database}"):
                await tx.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (advisory_lock_key(name),))

    async def advance(self, request_id: int, command: Command, *, claim: Claim | None = None) -> Request:
        """Make the transition of ``command``. Returns the request afterwards.

        One transaction: lock the rows, check the claim and the guards, compare and set, write decision, audit event, messages,
        tasks and cascades. Raises NotPossible (with the request as it is), NoSuchRequest, LedgerUnavailable.
        """
        async with self.writing() as tx:
            parent = await _lock_parent(tx, request_id)
            before = await load_request(tx, request_id, for_update=True)
            now = await self.now_in(tx)  # only after the row is locked: an end may pass while this waits for the lock
            made = await load_decisions(tx, request_id)
            if claim is not None:
                await _check_claim(tx, claim, command, before, now)
            is_locked_down = _is_covered(before, await lockdowns_in_force(tx))
            guard_input = GuardInput(
                now=now, request=before, decisions=made, is_locked_down=is_locked_down, command=command, parent=parent
            )
            if (obstacle := interpreter.find_obstacle(guard_input)) is not None:
                raise NotPossible(command.transition, obstacle, before, made)
            after = await interpreter.apply(tx, before, command, now)
            await interpreter.follow_up(tx, after, command, now)
            await interpreter.cascade(tx, after, command, parent, now)
        return after


async def _insert_request(tx: AsyncConnection, draft: Draft, now: datetime, *, latest: datetime | None) -> int:
    """``latest`` is the latest time until which the request may wait for a decision."""
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
        "lapses_at": lapses_at if latest is None else min(lapses_at, latest),
    }
    return int((await tx.execute(insert(requests).values(**values).returning(requests.c.id))).scalar_one())


# Extensions: the row of the grant is always locked before that of the extension, so that two transitions cannot deadlock.


async def _end_of_parent(tx: AsyncConnection, draft: Draft, now: datetime) -> datetime | None:
    """The end of the grant that an extension extends; None for other requests. Raises NotPossible if it has ended."""
    if draft.parent_id is None:
        return None
    grant = await load_request(tx, draft.parent_id, for_update=True)
    if grant.state is not State.ACTIVE or grant.expires_at is None or now >= grant.expires_at:
        raise NotPossible(Transition.REQUEST, Obstacle.GRANT_ENDED, grant)
    return grant.expires_at


async def _lock_parent(tx: AsyncConnection, request_id: int) -> Request | None:
    parent_id = (await tx.execute(select(requests.c.parent_id).where(requests.c.id == request_id))).scalar_one_or_none()
    return None if parent_id is None else await load_request(tx, parent_id, for_update=True)


async def _check_claim(tx: AsyncConnection, claim: Claim, command: Command, before: Request, now: datetime) -> None:
    try:
        await require_claim(tx, claim, now=now, for_update=True)  # no other worker can claim the task before the commit
    except ClaimLost:
        raise NotPossible(command.transition, Obstacle.CLAIM_LOST, before) from None


def _is_covered(request: Request, lockdowns: tuple[Lockdown, ...]) -> bool:
    return any(
        lockdown.database in (None, request.database) and lockdown.person_id in (None, request.requester_id)
        for lockdown in lockdowns
    )
