"""Pools and priorities: where a task runs, and which task goes first.

A pool is one target server, or Slack. A server's pool is named by the identity that START read from it, so that all databases and
addresses of one server share its pool; until then by its address, which is engine and reference of the admin URL. No secret is read.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import ColumnElement, ScalarSelect, and_, func, literal, select

from storage.records import Priority, TaskKind
from storage.schema import requests, tasks


@dataclass(frozen=True, kw_only=True)
class Slot:
    """A place in a runner: in a pool, and there for one address of the server (None: for any).

    ``is_retry``: the task was tried before. ``is_blocked``: it is the first try of an end whose user was blocked together with others.
    """

    pool: str
    server: str | None = None
    priority: Priority
    is_retry: bool
    is_blocked: bool = False


SLACK = "slack"
ALERTS = "alerts"
"""Alerts are posted to Slack, too, and wait for no other message."""

LOCKDOWNS = "lockdowns"
"""A lockdown ends what is left to end, and then shows it in Slack. It waits for no message, and no alert waits for it."""

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
    TaskKind.LOCKDOWN: Priority.SAFETY,
    TaskKind.AUTO_APPROVE: Priority.GRANT,
    TaskKind.GRANT_BREAK_GLASS: Priority.GRANT,
    TaskKind.PROVISION: Priority.GRANT,
    TaskKind.RENEW_PASSWORD: Priority.GRANT,
    TaskKind.MOVE_EXPIRY: Priority.GRANT,
    TaskKind.AUDIT_FEED: Priority.BACKGROUND,
    TaskKind.REMIND: Priority.BACKGROUND,
}
"""The usual priority of each kind; every other kind is DECISION. A task plan may set another one."""


def priority_of(kind: TaskKind) -> Priority:
    """The usual priority of a kind of task."""
    return PRIORITIES.get(kind, Priority.DECISION)


def pool_without_server(kind: TaskKind) -> str:
    """The pool of a task that talks to no target server."""
    return {TaskKind.ALERT: ALERTS, TaskKind.LOCKDOWN: LOCKDOWNS}.get(kind, SLACK)


def server_of_request(request_id: ColumnElement[int]) -> ScalarSelect[str]:
    """The address of the server of a request; SQL NULL before its approval."""
    return select(requests.c.server).where(requests.c.id == request_id).scalar_subquery()


def pool_of_request(request_id: ColumnElement[int]) -> ColumnElement[str]:
    """The pool of the server of a request: by the newest identity that START read at this address, else by the address."""
    newest = requests.alias()
    engine_and_identity = (newest.c.server == server_of_request(request_id), newest.c.identity.is_not(None))
    identity = select(newest.c.identity).where(and_(*engine_and_identity)).order_by(newest.c.id.desc()).limit(1)
    return func.coalesce(identity.scalar_subquery(), server_of_request(request_id), literal(UNKNOWN))


def is_of(slot: Slot) -> ColumnElement[bool]:
    """Whether the task takes a slot of this kind."""
    tried = tasks.c.attempts > 0 if slot.is_retry else tasks.c.attempts == 0
    if not slot.is_retry and slot.priority is Priority.SAFETY:
        tried = and_(tried, tasks.c.blocked_at.is_not(None) if slot.is_blocked else tasks.c.blocked_at.is_(None))
    # A task without a server is of no address. "=" would give NULL for it, and so hide it from every query for other tasks.
    of_address = tasks.c.server.is_not_distinct_from(slot.server)
    where = tasks.c.pool == slot.pool if slot.server is None else of_address
    return and_(where, tasks.c.priority == int(slot.priority), tried)
