"""The requests of the ledger. ``submit``, ``advance`` and ``advance_many`` are the only functions that change one.

State, decision, audit event, messages and follow-up tasks of a transition commit together or not at all. A caller that loses a
race gets ``NotPossible`` with the request as it is instead.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select

from storage import guards, interpreter, serialization
from storage.claims import Claim, require_claim
from storage.commands import Command, DecisionCommand, SubmitRequest
from storage.database import Database, advisory_lock_key
from storage.errors import (
    ClaimLost,
    ConfigurationOlder,
    InRecovery,
    LedgerError,
    LimitReached,
    LockedDown,
    NotPossible,
    Unreadable,
)
from storage.keys import request_key
from storage.lifecycle import TRANSITIONS
from storage.lockdown_queries import lockdown_of
from storage.records import LIVE, Decision, Draft, Request, State, TaskKind, UsageCounts
from storage.recovery import recovery_in_force
from storage.replicas import time_and_newest
from storage.request_queries import count_usage, find_duplicate, load_decisions, load_request, requests_of
from storage.schema import decisions, requests, tasks
from storage.serialization import terms_json
from storage.task_queue import finish_task, hold_key
from storage.transitions import GuardInput, Obstacle, Transition


class RequestRepository:
    """Requests and grants. Lists of requests have the newest first, lists of decisions the oldest.

    ``ledger_id`` is set when the ledger is opened; the keys of new requests show that this ledger made them.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self.ledger_id = ""

    async def get(self, request_id: int) -> Request:
        """One request by its number. Raises NoSuchRequest."""
        return await self._database.read(lambda tx: load_request(tx, request_id))

    async def get_many(self, request_ids: Collection[int]) -> dict[int, Request]:
        """Requests by their numbers. One that does not exist, or cannot be read, is left out."""
        query = select(requests).where(requests.c.id.in_(list(request_ids)))

        def read(tx: Connection) -> dict[int, Request]:
            found, _ = serialization.readable(tx, query, requests.c.id, serialization.request)
            return {one.id: one for one in found}

        return await self._database.read(read)

    async def find(
        self, *, person_id: str | None = None, database: str | None = None, limit: int | None = None
    ) -> tuple[Request, ...]:
        """All requests of any state, or those of a person or a database. ``limit``: at most this many, the newest."""
        return await self._database.read_all(requests_of(person_id, database).limit(limit), serialization.request)

    async def live_grants(self, *, person_id: str | None = None, database: str | None = None) -> tuple[Request, ...]:
        """Requests whose user exists on a server, or may exist."""
        live = requests.c.state.in_([state.value for state in LIVE])
        return await self._database.read_all(requests_of(person_id, database).where(live), serialization.request)

    async def pending(self, *, person_id: str | None = None, database: str | None = None) -> tuple[Request, ...]:
        """Requests that are not decided yet."""
        pending = requests.c.state == State.PENDING
        return await self._database.read_all(requests_of(person_id, database).where(pending), serialization.request)

    async def usage(self, person_id: str, database: str, *, now: datetime) -> UsageCounts:
        """The grants and requests that count towards the limits of this person and this database."""
        return await self._database.read(lambda tx: count_usage(tx, person_id, database, now))

    async def decisions(self, request_id: int) -> tuple[Decision, ...]:
        """The decisions on a request, the oldest first."""
        return await self._database.read(lambda tx: load_decisions(tx, request_id))

    async def decisions_of(self, request_ids: Collection[int]) -> dict[int, tuple[Decision, ...]]:
        """The decisions on several requests, the oldest first. A request without a decision is left out."""
        query = select(decisions).where(decisions.c.request_id.in_(list(request_ids))).order_by(decisions.c.id)
        found = dict[int, tuple[Decision, ...]]()
        for one in await self._database.read_all(query, serialization.decision):
            found[one.request_id] = (*found.get(one.request_id, ()), one)
        return found

    async def with_decisions(self, request_id: int) -> tuple[Request, tuple[Decision, ...]]:
        """A request and the decisions on it, as one consistent state. Raises NoSuchRequest."""
        return await self._database.read(lambda tx: (load_request(tx, request_id), load_decisions(tx, request_id)))

    async def newest_on(self, server: str) -> Request | None:
        """The newest grant at this server address; None where there is none, or it cannot be read."""
        query = select(requests).where(requests.c.server == server).order_by(requests.c.id.desc()).limit(1)

        def read(tx: Connection) -> Request | None:
            found, _ = serialization.readable(tx, query, requests.c.id, serialization.request)
            return next(iter(found), None)

        return await self._database.read(read)

    async def due_to_end(self, *, server: str, limit: int) -> tuple[Request, ...]:
        """Grants on this server address whose revocation is due and has not begun, the earliest first. Unreadable ones are left out."""

        def query(tx: Connection) -> tuple[Request, ...]:
            is_due = (
                tasks.c.kind == TaskKind.REVOKE,
                tasks.c.due_at <= self._database.now_in(tx),
                tasks.c.claim.is_(None),
                tasks.c.set_aside.is_(None),
            )
            begins = requests.c.state.in_([State.APPROVED.value, State.ACTIVE.value])
            joined = select(requests.c.id).join(tasks, tasks.c.request_id == requests.c.id)
            due = (
                joined.where(tasks.c.server == server, *is_due, begins)
                .order_by(tasks.c.due_at, tasks.c.id)
                .limit(limit)
            )
            numbers = list(tx.execute(due).scalars())  # first the numbers: sorting whole rows takes long
            rows = select(requests).where(requests.c.id.in_(numbers))
            found, _ = serialization.readable(tx, rows, requests.c.id, serialization.request)
            return tuple(sorted(found, key=lambda one: numbers.index(one.id)))

        return await self._database.read(query)

    async def submit(
        self,
        draft: Draft,
        *,
        actor: str | None = None,
        is_allowed: Callable[[UsageCounts], bool] = lambda _counts: True,
    ) -> tuple[Request, bool]:
        """Make the transition REQUEST. Returns the new request and True, or the one that it repeats and False.

        ``is_allowed`` gets the usage as counted in this transaction. Raises LimitReached if it returns False, LockedDown while
        a lockdown matches, InRecovery in recovery mode, ConfigurationOlder if the draft was evaluated under an older configuration than the
        newest, and NotPossible if the grant to be extended has ended.
        """

        def transaction(tx: Connection) -> tuple[Request, bool]:
            self._lock_requester_and_database(tx, draft)
            now, newest = time_and_newest(self._database, tx)
            if newest not in (None, draft.terms.policy_digest):
                raise ConfigurationOlder
            if lockdown_of(tx, draft) is not None:
                raise LockedDown
            duplicate = find_duplicate(tx, draft, now)
            if duplicate is not None:
                return duplicate, False
            if recovery_in_force(tx) is not None:
                raise InRecovery
            if not is_allowed(count_usage(tx, draft.requester_id, draft.database, now)):
                raise LimitReached
            key, latest = request_key(self.ledger_id), _end_of_parent(tx, draft, now)
            after = _insert_request(tx, draft, now, key=key, latest=latest)
            command = SubmitRequest(actor=actor or draft.requester_id, text=draft.reason)
            interpreter.follow_up(tx, after, command, now)
            return after, True

        return await self._database.write(transaction)

    def _lock_requester_and_database(self, tx: Connection, draft: Draft) -> None:
        """Two deliveries of one command create one request, and two requests cannot both take the last place of a limit.

        On SQLite the transaction itself ensures this: there is one writer at a time.
        """
        if not self._database.is_sqlite:
            for name in (f"asks {draft.requester_id}", f"asked {draft.database}"):
                tx.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (advisory_lock_key(name),))

    async def advance(
        self,
        request_id: int,
        command: Command,
        *,
        claim: Claim | None = None,
        finishes: bool = False,
        holds: str | None = None,
    ) -> Request:
        """Make the transition of ``command``. Returns the request afterwards.

        One transaction: lock the rows, check the claim and the guards, compare and set, write decision, audit event, messages,
        tasks and cascades. ``finishes``: the task of the claim is done with it. ``holds``: it takes this second lock key.
        Raises NotPossible (with the request as it is), NoSuchRequest, KeyTaken, ClaimLost, LedgerUnavailable.
        """

        def transaction(tx: Connection) -> Request:
            after = self._advance(tx, request_id, command, claim)
            if claim is not None and holds is not None:
                # After the row of the request, as every transition that clears tasks: two could wait for each other otherwise.
                hold_key(tx, claim, holds, now=self._database.now_in(tx))
            if claim is not None and finishes:
                finish_task(tx, claim)
            return after

        return await self._database.write(transaction)

    async def advance_many(self, commands: Sequence[tuple[int, Command]]) -> tuple[Request | LedgerError, ...]:
        """Make these transitions in one transaction. Returns for each the request afterwards, or its NotPossible or Unreadable.

        One that is not possible changes nothing and does not stop the others. Raises NoSuchRequest, LedgerUnavailable.
        """
        return await self._database.write(lambda tx: self.advance_in(tx, commands))

    async def finish_many(self, commands: Sequence[tuple[Claim, Command]]) -> tuple[Request | LedgerError, ...]:
        """As ``advance_many``, for claimed tasks that are done with it: each transition removes its task. A claim that is lost is a NotPossible."""

        def transaction(tx: Connection) -> tuple[Request | LedgerError, ...]:
            self._lock_in_order(tx, {claim.task.request_id or 0 for claim, _ in commands})
            return tuple(
                self._advance_or_explain(tx, claim.task.request_id or 0, command, claim) for claim, command in commands
            )

        return await self._database.write(transaction)

    def advance_in(self, tx: Connection, commands: Sequence[tuple[int, Command]]) -> tuple[Request | LedgerError, ...]:
        """``advance_many`` inside a transaction.

        All rows are locked first, in one order: each transition also writes rows that every other one writes (the task of the feed), so
        two transactions that locked their requests one by one could wait for each other.
        """
        self._lock_in_order(tx, {request_id for request_id, _ in commands})
        return tuple(self._advance_or_explain(tx, request_id, command) for request_id, command in commands)

    def _lock_in_order(self, tx: Connection, numbers: Collection[int]) -> None:
        rows = select(requests.c.id).where(requests.c.id.in_(sorted(numbers))).order_by(requests.c.id)
        tx.execute(rows.with_for_update())

    def _advance_or_explain(
        self, tx: Connection, request_id: int, command: Command, claim: Claim | None = None
    ) -> Request | LedgerError:
        """The request afterwards, or why not. With ``claim``, the task of the claim is done with it."""
        try:
            with tx.begin_nested():
                after = self._advance(tx, request_id, command, claim)
                if claim is not None:
                    finish_task(tx, claim)
                return after
        except NotPossible as error:
            return error
        except serialization.UNREADABLE:
            return Unreadable(request_id)

    def _advance(self, tx: Connection, request_id: int, command: Command, claim: Claim | None) -> Request:
        rule = TRANSITIONS[command.transition]
        parent = None if rule.sources <= LIVE else _lock_parent(tx, request_id)
        before = load_request(tx, request_id, for_update=True)
        is_granting = guards.configuration_is_newest in rule.guards
        # Both only after the row is locked: an end may pass, or a configuration change, while this waits for the lock.
        now, newest = time_and_newest(self._database, tx) if is_granting else (self._database.now_in(tx), None)
        if claim is not None:
            _check_claim(tx, claim, command, before, now)
        decides = isinstance(command, DecisionCommand) and command.decision is not None
        made = load_decisions(tx, request_id) if decides or not before.is_live else ()
        guard_input = GuardInput(
            now=now,
            request=before,
            decisions=made,
            is_locked_down=guards.not_locked_down in rule.guards and lockdown_of(tx, before) is not None,
            is_in_recovery=guards.not_in_recovery in rule.guards and recovery_in_force(tx) is not None,
            command=command,
            parent=parent,
            newest_configuration=newest,
        )
        if (obstacle := interpreter.find_obstacle(guard_input)) is not None:
            raise NotPossible(command.transition, obstacle, before, made or load_decisions(tx, request_id))
        after = interpreter.apply(tx, before, command, now)
        interpreter.follow_up(tx, after, command, now)
        interpreter.cascade(tx, after, command, parent, now)
        return after


INSERT = insert(requests).returning(requests)


def _insert_request(tx: Connection, draft: Draft, now: datetime, *, key: str, latest: datetime | None) -> Request:
    """``latest`` is the latest time until which the request may wait for a decision."""
    values: dict[str, Any] = {name: value for name, value in asdict(draft).items() if name != "terms"}
    lapses_at = now + draft.terms.request_ttl
    values |= {
        "rule": draft.terms.rule,
        "requested_duration": draft.terms.duration,
        "is_automatic": not draft.terms.stages,
        "key": key,
        "state": State.PENDING,
        "version": 1,
        "terms": terms_json(draft.terms),
        "requested_at": now,
        "lapses_at": lapses_at if latest is None else min(lapses_at, latest),
    }
    return serialization.request(tx.execute(INSERT, values).mappings().one())


# Extensions: the row of the grant is always locked before that of the extension, so that two transitions cannot deadlock.


def _end_of_parent(tx: Connection, draft: Draft, now: datetime) -> datetime | None:
    """The end of the grant that an extension extends; None for other requests. Raises NotPossible if it has ended."""
    if draft.parent_id is None:
        return None
    grant = load_request(tx, draft.parent_id, for_update=True)
    if grant.state is not State.ACTIVE or grant.expires_at is None or now >= grant.expires_at:
        raise NotPossible(Transition.REQUEST, Obstacle.GRANT_ENDED, grant)
    return grant.expires_at


def _lock_parent(tx: Connection, request_id: int) -> Request | None:
    parent_id = (tx.execute(select(requests.c.parent_id).where(requests.c.id == request_id))).scalar_one_or_none()
    return None if parent_id is None else load_request(tx, parent_id, for_update=True)


def _check_claim(tx: Connection, claim: Claim, command: Command, before: Request, now: datetime) -> None:
    try:
        require_claim(tx, claim, now=now, for_update=True)  # no other worker can claim the task before the commit
    except ClaimLost:
        raise NotPossible(command.transition, Obstacle.CLAIM_LOST, before) from None
