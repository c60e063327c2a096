"""Queries about requests inside a transaction. None of them changes anything."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, bindparam, func, or_, select

from storage import serialization
from storage.errors import NoSuchRequest
from storage.records import LIVE, Decision, Draft, Request, RequestKind, State, UsageCounts
from storage.schema import decisions, requests

DAY = timedelta(hours=24)

# Statements of every transition are built once: building one costs more than running it.
ONE_REQUEST = select(requests).where(requests.c.id == bindparam("request_id"))
DECISIONS = select(decisions).where(decisions.c.request_id == bindparam("request_id")).order_by(decisions.c.id)


def requests_of(person_id: str | None, database: str | None) -> Select[Any]:
    query = select(requests).order_by(requests.c.id.desc())
    if person_id is not None:
        query = query.where(requests.c.requester_id == person_id)
    return query if database is None else query.where(requests.c.database == database)


def load_request(tx: Connection, request_id: int, *, for_update: bool = False) -> Request:
    """One request inside a transaction. ``for_update`` locks its row until the commit. Raises NoSuchRequest."""
    query = ONE_REQUEST.with_for_update() if for_update and tx.dialect.name != "sqlite" else ONE_REQUEST
    found = tx.execute(query, {"request_id": request_id}).mappings().first()
    if found is None:
        raise NoSuchRequest(request_id)
    return serialization.request(found)


def load_decisions(tx: Connection, request_id: int) -> tuple[Decision, ...]:
    """The decisions on a request inside a transaction, the oldest first."""
    return tuple(serialization.decision(row) for row in tx.execute(DECISIONS, {"request_id": request_id}).mappings())


def pending_duplicate(tx: Connection, draft: Draft) -> Request | None:
    """The oldest pending request of this person with the same database, level, kind, duration and parent."""
    same = {
        "requester_id": draft.requester_id,
        "database": draft.database,
        "level": draft.level,
        "kind": draft.kind.value,
        "state": State.PENDING.value,
    }
    more = (
        requests.c.requested_duration == draft.terms.duration,
        requests.c.parent_id.is_not_distinct_from(draft.parent_id),
    )
    query = select(requests).filter_by(**same).where(*more).order_by(requests.c.id).limit(1)
    found = (tx.execute(query)).mappings().first()
    return None if found is None else serialization.request(found)


def count_usage(tx: Connection, person_id: str, database: str, now: datetime) -> UsageCounts:
    """The usage inside a transaction.

    The transaction that inserts a request counts again, so that two simultaneous requests cannot both take the last place.
    """
    of_person = requests.c.requester_id == person_id
    is_live = requests.c.state.in_([state.value for state in LIVE])
    is_access, is_break_glass = requests.c.kind == RequestKind.ACCESS, requests.c.kind == RequestKind.BREAK_GLASS
    is_pending = requests.c.state == State.PENDING
    was_automatic = (
        ~is_break_glass,
        requests.c.is_automatic.is_(True),
        or_(requests.c.approved_at.is_not(None), is_pending),  # a pending one is about to be approved
        requests.c.requested_at > now - DAY,
    )
    is_given = or_(
        requests.c.state.in_([State.PENDING, State.APPROVED, State.ACTIVE]), requests.c.started_at.is_not(None)
    )
    unreviewed = select(requests.c.id).where(of_person, is_break_glass, requests.c.reviewed_at.is_(None), is_given)
    by_rule = select(requests.c.rule, func.count()).where(of_person, *was_automatic).group_by(requests.c.rule)
    return UsageCounts(
        live_of_person=_count(tx, of_person, is_live, is_access),
        live_of_database=_count(tx, is_live, is_access, requests.c.database == database),
        waiting_of_person=_count(tx, of_person, is_pending, ~is_break_glass),
        automatic={rule: number for rule, number in (tx.execute(by_rule)).all() if rule is not None},
        unreviewed=(tx.execute(unreviewed.order_by(requests.c.id).limit(1))).scalar_one_or_none(),
    )


def _count(tx: Connection, *conditions: ColumnElement[bool]) -> int:
    return int((tx.execute(select(func.count()).select_from(requests).where(*conditions))).scalar_one())
