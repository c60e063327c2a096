"""Lockdowns: while one is in force, matching requests are refused, and the matching grants were ended."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, select

from storage.records import Draft
from storage.schema import lockdowns


@dataclass(frozen=True, kw_only=True)
class Lockdown:
    """While it is in force, matching grants are ended and new ones refused. None matches every database or person.

    ``grants`` is the number of grants that it ended. ``channel`` and ``ts`` are the place of its message, None before it is posted.
    """

    id: int
    database: str | None
    person_id: str | None
    locked_by: str
    at: datetime
    locked_by_name: str | None = None
    grants: int = 0
    channel: str | None = None
    ts: str | None = None
    unlocked_by: str | None = None
    unlocked_at: datetime | None = None

    def covers(self, *, database: str, person_id: str) -> bool:
        """Whether it matches grants of this person on this database."""
        return self.database in (None, database) and self.person_id in (None, person_id)


IN_FORCE = select(lockdowns).where(lockdowns.c.unlocked_at.is_(None)).with_for_update(read=True)


def lockdowns_in_force(tx: Connection) -> tuple[Lockdown, ...]:
    """Lockdowns that are not ended. Their rows are locked for reading until the commit."""
    return tuple(Lockdown(**row) for row in tx.execute(IN_FORCE).mappings())


def lockdown_of(tx: Connection, request: Draft) -> Lockdown | None:
    """The first lockdown in force that matches this request."""
    found = lockdowns_in_force(tx)
    return next((one for one in found if one.covers(database=request.database, person_id=request.requester_id)), None)
