"""Which slot of a runner a task takes: its pool, its priority, and whether it was tried before.

A pool is one target server, or Slack. The server is told by engine and reference of the admin URL as they are frozen
in the request, so that the databases of one server share its pool and no secret is read.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, RowMapping, String, case, cast, func, literal, select

from storage.records import Priority, Slot, TaskKind
from storage.schema import requests, tasks

SLACK = "slack"
UNKNOWN = "unknown server"
"""The pool of what has no readable target; its task fails by itself and holds up nobody else's."""

ON_SERVER = frozenset(
    {TaskKind.REVOKE, TaskKind.REPAIR, TaskKind.PROVISION, TaskKind.RENEW_PASSWORD, TaskKind.MOVE_EXPIRY}
)
PRIORITIES: dict[TaskKind, Priority] = {
    TaskKind.REVOKE: Priority.SAFETY,
    TaskKind.REPAIR: Priority.SAFETY,
    TaskKind.ALERT: Priority.SAFETY,
    TaskKind.AUTO_APPROVE: Priority.GRANT,
    TaskKind.GRANT_BREAK_GLASS: Priority.GRANT,
    TaskKind.PROVISION: Priority.GRANT,
    TaskKind.RENEW_PASSWORD: Priority.GRANT,
    TaskKind.MOVE_EXPIRY: Priority.GRANT,
    TaskKind.CLOSE_CREDENTIALS: Priority.GRANT,
    TaskKind.AUDIT_FEED: Priority.BACKGROUND,
    TaskKind.REMIND: Priority.BACKGROUND,
}
"""Every other kind is DECISION."""


def is_safety() -> ColumnElement[bool]:
    """The task goes before everything else of its lock key."""
    return tasks.c.kind.in_([kind.value for kind, priority in PRIORITIES.items() if priority is Priority.SAFETY])


def priority() -> ColumnElement[int]:
    """The priority of a row of ``tasks``."""
    by_kind = {kind.value: literal(int(found)) for kind, found in PRIORITIES.items()}
    return case(by_kind, value=tasks.c.kind, else_=literal(int(Priority.DECISION)))


def pool() -> ColumnElement[str]:
    """The pool of a row of ``tasks``."""
    server = select(requests.c.server).where(requests.c.id == tasks.c.request_id).scalar_subquery()
    on_server = tasks.c.kind.in_([kind.value for kind in ON_SERVER])
    return case((on_server, func.coalesce(server, UNKNOWN)), else_=literal(SLACK))


def key() -> ColumnElement[str]:
    """``Slot.key`` of a row of ``tasks``."""
    tried = case((tasks.c.attempts > 0, literal("1")), else_=literal("0"))
    return cast(priority(), String) + literal(" ") + tried + literal(" ") + pool()


def slot(row: RowMapping) -> Slot:
    """The slot that a claimed row takes."""
    return Slot(pool=row["pool"], priority=Priority(row["priority"]), is_retry=row["attempts"] > 0)
