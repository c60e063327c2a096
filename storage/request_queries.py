"""Queries about requests inside a transaction. None of them changes anything."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, ScalarSelect, Select, and_, bindparam, func, or_, select, text

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


NEWEST_NUMBER = select(func.coalesce(func.max(requests.c.id), 0))
GIVEN = {
    "sqlite": text("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'requests'"),
    "postgresql": text("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM requests_id_seq"),
}
"""The highest number that the database gave to a request, also to one that was removed or rolled back since."""


def highest_number(tx: Connection) -> int:
    """The highest number that a request ever had in this ledger; 0 before the first request. No number is used twice."""
    return max(int(tx.execute(query).scalar_one()) for query in (NEWEST_NUMBER, GIVEN[tx.dialect.name]))


def load_decisions(tx: Connection, request_id: int) -> tuple[Decision, ...]:
    """The decisions on a request inside a transaction, the oldest first."""
    return tuple(serialization.decision(row) for row in tx.execute(DECISIONS, {"request_id": request_id}).mappings())


REPEATED_WITHIN = timedelta(minutes=5)
"""A request that the policy approves at once, made again within this time with the same reason, is a repetition.

Slack delivers an unanswered event again for about five minutes (docs.slack.dev, Events API, "Retries").
"""

SAME = tuple(requests.c[name] == bindparam(f"same_{name}") for name in ("requester_id", "database", "level", "kind"))
DUPLICATE = (
    select(requests)
    .where(
        *SAME,
        requests.c.requested_duration == bindparam("same_duration", type_=requests.c.requested_duration.type),
        requests.c.parent_id.is_not_distinct_from(bindparam("same_parent", type_=requests.c.parent_id.type)),
        or_(
            requests.c.state == State.PENDING.value,
            and_(
                requests.c.state.in_([state.value for state in (State.APPROVED, State.ACTIVE, State.APPLIED)]),
                requests.c.is_automatic.is_(True),
                requests.c.reason == bindparam("same_reason"),
                requests.c.requested_at > bindparam("since", type_=requests.c.requested_at.type),
            ),
        ),
    )
    .order_by(requests.c.id)
    .limit(1)
)


def find_duplicate(tx: Connection, draft: Draft, now: datetime) -> Request | None:
    """The oldest pending request of this person with the same database, level, kind, duration and parent.

    Without one: the request, approved at once, that this one repeats. A command that is delivered twice, or typed twice, makes one grant.
    """
    same = {
        "same_requester_id": draft.requester_id,
        "same_database": draft.database,
        "same_level": draft.level,
        "same_kind": draft.kind.value,
        "same_duration": draft.terms.duration,
        "same_parent": draft.parent_id,
        "same_reason": draft.reason,
        "since": now - REPEATED_WITHIN,
    }
    found = tx.execute(DUPLICATE, same).mappings().first()
    return None if found is None else serialization.request(found)


OF_PERSON = requests.c.requester_id == bindparam("person")
IS_ACCESS, IS_BREAK_GLASS = (
    requests.c.kind == RequestKind.ACCESS.value,
    requests.c.kind == RequestKind.BREAK_GLASS.value,
)
IS_LIVE = requests.c.state.in_([state.value for state in LIVE])
IS_PENDING = requests.c.state == State.PENDING.value
IS_GIVEN = or_(
    requests.c.state.in_([State.PENDING.value, State.APPROVED.value, State.ACTIVE.value]),
    requests.c.started_at.is_not(None),
)


def _number_of(*conditions: ColumnElement[bool]) -> ScalarSelect[int]:
    return select(func.count()).select_from(requests).where(*conditions).scalar_subquery()


UNREVIEWED = select(requests.c.id).where(OF_PERSON, IS_BREAK_GLASS, requests.c.reviewed_at.is_(None), IS_GIVEN)
COUNTS = select(
    _number_of(OF_PERSON, IS_LIVE, IS_ACCESS).label("live_of_person"),
    _number_of(IS_LIVE, IS_ACCESS, requests.c.database == bindparam("on_database")).label("live_of_database"),
    _number_of(OF_PERSON, IS_PENDING, ~IS_BREAK_GLASS).label("waiting_of_person"),
    UNREVIEWED.order_by(requests.c.id).limit(1).scalar_subquery().label("unreviewed"),
)
AUTOMATIC = (
    select(requests.c.rule, func.count().label("number"))
    .where(
        OF_PERSON,
        ~IS_BREAK_GLASS,
        requests.c.is_automatic.is_(True),
        or_(requests.c.approved_at.is_not(None), IS_PENDING),  # a pending one is about to be approved
        requests.c.requested_at > bindparam("since", type_=requests.c.requested_at.type),
    )
    .group_by(requests.c.rule)
)


def count_usage(tx: Connection, person_id: str, database: str, now: datetime) -> UsageCounts:
    """The usage inside a transaction.

    The transaction that inserts a request counts again, so that two simultaneous requests cannot both take the last place.
    """
    counts = tx.execute(COUNTS, {"person": person_id, "on_database": database}).mappings().one()
    automatic = tx.execute(AUTOMATIC, {"person": person_id, "since": now - DAY})
    return UsageCounts(**counts, automatic={row.rule: row.number for row in automatic if row.rule is not None})
