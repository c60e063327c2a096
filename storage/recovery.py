"""Recovery mode: the ledger is a copy, or turns out not to be the newest. Nothing is granted until an operator returns to normal.

Guards refuse the transitions that grant, inside their transaction. No end is refused. A user on a server that the ledger cannot explain is
the evidence that enters recovery mode: this ledger created it, but does not know it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, insert, select, update

from storage.alerts import AlertDraft, AlertRepository
from storage.audit_kinds import AuditKind
from storage.audit_log import append_event
from storage.database import Database, advisory_lock_key
from storage.keys import is_key_of
from storage.numbers import accept_numbers, known_number, note_number, raise_numbers, seen_number
from storage.records import Request
from storage.schema import recoveries, requests

CAUSE = "recovery"
"""The cause of the alert of recovery mode."""
EVIDENCE_AT_MOST = 20


class RecoveryReason(StrEnum):
    """The reason why a ledger is in recovery mode. The values are stored."""

    RESTORED = "restored"
    UNKNOWN_USER = "unknown user"
    UNKNOWN_REQUEST = "unknown request"


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """A time of recovery mode. ``evidence`` has sentences without a full stop. It is in force while ``ended_at`` is None."""

    id: int
    since: datetime
    reason: str
    evidence: tuple[str, ...]
    ended_at: datetime | None = None
    ended_by: str | None = None


@dataclass(frozen=True, kw_only=True)
class MarkedUser:
    """A user on a server whose mark names this ledger and this request."""

    username: str
    request_id: int


class RecoveryRepository:
    """Recovery mode of the ledger."""

    def __init__(self, database: Database, alerts: AlertRepository) -> None:
        self._database = database
        self._alerts = alerts

    async def current(self) -> Recovery | None:
        """The recovery that is in force; None in normal operation."""
        return await self._database.read(recovery_in_force)

    async def enter(
        self, reason: RecoveryReason, evidence: Sequence[str], alert: AlertDraft, *, number: int = 0
    ) -> bool:
        """Enter recovery mode and raise its alert. False where the ledger is in recovery mode already.

        ``number`` is the highest one of the evidence. It is remembered in both cases: no request gets it, or one below it, after the
        return to normal.
        """

        def transaction(tx: Connection) -> bool:
            is_entered = self.enter_in(tx, reason, evidence, alert)
            note_number(tx, number)
            return is_entered

        return await self._database.write(transaction)

    def enter_in(self, tx: Connection, reason: RecoveryReason, evidence: Sequence[str], alert: AlertDraft) -> bool:
        """``enter`` inside a transaction."""
        self._take_turns(tx)
        if recovery_in_force(tx) is not None:
            return False
        now, shown = self._database.now_in(tx), list(evidence[:EVIDENCE_AT_MOST])
        tx.execute(insert(recoveries).values(since=now, reason=reason, evidence=shown))
        facts = {"reason": reason, "evidence": shown}
        append_event(tx, AuditKind.RECOVERY_ENTERED, actor="bot", request_id=None, facts=facts, text=None, now=now)
        self._alerts.raise_in(tx, alert)
        return True

    async def resume(self, by: str, *, found: int, resolution: str) -> Recovery | None:
        """Return to normal. New requests get numbers above ``found``, the highest number of a user on the servers, and above those that ``enter`` was given.

        Returns the recovery that ended; None where none was in force. Users with numbers up to now are no evidence any more.
        """

        def transaction(tx: Connection) -> Recovery | None:
            self._take_turns(tx)
            current = recovery_in_force(tx)
            if current is None:
                return None
            now = self._database.now_in(tx)
            raise_numbers(tx, max(found, seen_number(tx)))
            accept_numbers(tx)
            tx.execute(update(recoveries).where(recoveries.c.id == current.id).values(ended_at=now, ended_by=by))
            facts = {"since": current.since.isoformat(), "reason": current.reason}
            append_event(tx, AuditKind.RECOVERY_ENDED, actor=by, request_id=None, facts=facts, text=None, now=now)
            self._alerts.resolve_in(tx, CAUSE, resolution)
            return current

        return await self._database.write(transaction)

    async def may_have_started(self, request: Request) -> bool:
        """Whether a grant without a START may have started all the same: the ledger lost what followed its approval."""
        if request.approved_at is None:
            return False
        query = select(recoveries.c.id).where(recoveries.c.since >= request.approved_at).limit(1)
        return await self._database.read(lambda tx: tx.execute(query).first() is not None)

    async def unexplained(self, users: Sequence[MarkedUser]) -> tuple[MarkedUser, ...]:
        """Those of the users that a newer state of this ledger must have created: this one gave no such number, or never started that grant.

        A user is created after its START is stored, so every user that was seen before this call is explained by a ledger that lost nothing.
        """
        if not users:
            return ()

        def read(tx: Connection) -> tuple[MarkedUser, ...]:
            known, accepted = known_number(tx), known_number(tx, is_accepted_only=True)
            columns = (requests.c.id, requests.c.username, requests.c.started_at, requests.c.expires_at)
            query = select(*columns).where(requests.c.id.in_({user.request_id for user in users}))
            rows = {row.id: row for row in tx.execute(query)}
            later = [user for user in users if user.request_id > accepted]
            return tuple(user for user in later if not _is_explained(user, rows.get(user.request_id), known))

        return await self._database.read(read)

    async def is_lost_request(self, request_id: int, key: str, *, ledger: str) -> bool:
        """Whether this ledger once made a request with this number and key, and does not have it any more."""
        if not is_key_of(key, ledger):
            return False

        def read(tx: Connection) -> bool:
            row = tx.execute(select(requests.c.key).where(requests.c.id == request_id)).first()
            accepted, highest = known_number(tx, is_accepted_only=True), known_number(tx)
            return request_id > accepted and (request_id > highest if row is None else row.key != key)

        return await self._database.read(read)

    def _take_turns(self, tx: Connection) -> None:
        """PostgreSQL: one transaction at a time enters or leaves recovery mode. SQLite has one writer at a time."""
        if not self._database.is_sqlite:
            tx.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (advisory_lock_key("recovery"),))


IN_FORCE = select(recoveries).where(recoveries.c.ended_at.is_(None)).order_by(recoveries.c.id).limit(1)


def recovery_in_force(tx: Connection) -> Recovery | None:
    """The recovery that is in force; None in normal operation."""
    row = tx.execute(IN_FORCE).mappings().first()
    return None if row is None else Recovery(**{**row, "evidence": tuple(row["evidence"])})


def _is_explained(user: MarkedUser, row: Any, known: int) -> bool:
    if row is None:
        return user.request_id <= known  # retention removed it
    has_started = row.started_at is not None or row.expires_at is not None
    return row.username == user.username and has_started
