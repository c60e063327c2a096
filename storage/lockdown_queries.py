"""Queries about lockdowns inside a transaction. None of them changes anything."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Connection, func, select

from storage.records import LIVE, Draft, Lockdown
from storage.schema import lockdowns, requests

IN_FORCE = (
    select(lockdowns).where(lockdowns.c.unlocked_at.is_(None)).order_by(lockdowns.c.id).with_for_update(read=True)
)


def lockdowns_in_force(tx: Connection) -> tuple[Lockdown, ...]:
    """Lockdowns that are not lifted, the oldest first. Their rows are locked for reading until the commit."""
    return tuple(Lockdown(**row) for row in tx.execute(IN_FORCE).mappings())


def lockdown_of(tx: Connection, request: Draft) -> Lockdown | None:
    """The first lockdown in force that matches this request."""
    found = lockdowns_in_force(tx)
    return next((one for one in found if one.covers(database=request.database, person_id=request.requester_id)), None)


def load_lockdown(tx: Connection, lockdown_id: int, *, for_share: bool = False) -> Lockdown | None:
    """One lockdown by its number. ``for_share`` locks its row for reading until the commit."""
    query = select(lockdowns).where(lockdowns.c.id == lockdown_id)
    row = tx.execute(query.with_for_update(read=True) if for_share else query).mappings().first()
    return None if row is None else Lockdown(**row)


def is_matched_by(lockdown: Lockdown) -> tuple[ColumnElement[bool], ...]:
    """The conditions on a row of ``requests`` under which the lockdown matches it."""
    database, person_id = lockdown.database, lockdown.person_id
    of_database = () if database is None else (requests.c.database == database,)
    return (*of_database, *(() if person_id is None else (requests.c.requester_id == person_id,)))


def count_live(tx: Connection, lockdown: Lockdown) -> int:
    """The number of matching grants that have not ended yet."""
    is_live = requests.c.state.in_([state.value for state in LIVE])
    return int(
        tx.execute(select(func.count()).select_from(requests).where(is_live, *is_matched_by(lockdown))).scalar_one()
    )
