"""Pools and priorities: which slot of a runner a task takes, as SQL over a row of ``tasks``.

A pool is one target server, or Slack. The server is named by engine and reference of the admin URL, as the request froze them
at approval. All databases of one server therefore share its pool, and no secret is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from sqlalchemy import ColumnElement, RowMapping, String, case, cast, func, literal, select

from storage.records import TaskKind
from storage.schema import requests, tasks


class Priority(IntEnum):
    """The order of claims, lowest number first. SAFETY has the tasks that end access, and alerts."""

    SAFETY = 0
    GRANT = 1
    DECISION = 2
    BACKGROUND = 3


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A place in a runner. ``is_retry``: the task was tried before."""

    pool: str
    priority: Priority
    is_retry: bool

    @property
    def key(self) -> str:
        """The value that ``slot_key`` computes for a row with this slot."""
        return f"{int(self.priority)} {int(self.is_retry)} {self.pool}"


SLACK = "slack"
UNKNOWN = "unknown server"
"""The pool of tasks whose request has no readable target. Such a task fails by itself and delays no other pool."""

ON_SERVER = frozenset(
    {TaskKind.REVOKE, TaskKind.REPAIR, TaskKind.PROVISION, TaskKind.RENEW_PASSWORD, TaskKind.MOVE_EXPIRY}
)
"""Kinds of task that use the pool of the target server. All others use Slack's."""

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
    """Whether the task goes before all other tasks of its lock key."""
    return tasks.c.kind.in_([kind.value for kind, priority in PRIORITIES.items() if priority is Priority.SAFETY])


def priority() -> ColumnElement[int]:
    """The priority of the task."""
    by_kind = {kind.value: literal(int(found)) for kind, found in PRIORITIES.items()}
    return case(by_kind, value=tasks.c.kind, else_=literal(int(Priority.DECISION)))


def pool() -> ColumnElement[str]:
    """The pool of the task."""
    server = select(requests.c.server).where(requests.c.id == tasks.c.request_id).scalar_subquery()
    on_server = tasks.c.kind.in_([kind.value for kind in ON_SERVER])
    return case((on_server, func.coalesce(server, UNKNOWN)), else_=literal(SLACK))


def slot_key() -> ColumnElement[str]:
    """``Slot.key`` of the task."""
    tried = case((tasks.c.attempts > 0, literal("1")), else_=literal("0"))
    return cast(priority(), String) + literal(" ") + tried + literal(" ") + pool()


def slot(row: RowMapping) -> Slot:
    """The slot of a row that was selected with ``priority`` and ``pool``."""
    return Slot(pool=row["pool"], priority=Priority(row["priority"]), is_retry=row["attempts"] > 0)
