"""Tasks know their pool, alerts have a life, and the values of ``meta`` get tables of their own."""

import json
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from alembic import op

from storage.schema import Id, UTCDateTime

revision = "0004"
down_revision = "0003"

ON_SERVER = ("revoke", "mend", "provision", "password", "move_end")
PRIORITIES = {
    0: ("revoke", "mend", "alert"),
    1: ("auto_approve", "grant_break_glass", "provision", "password", "move_end"),
    3: ("feed", "remind"),
}
NAMES = ("id", "kind", "lock_key", "request_id", "pool")
KNOWN, EXTENDS, OPEN = sa.text("identity IS NOT NULL"), sa.text("parent_id IS NOT NULL"), sa.text("resolved_at IS NULL")


def upgrade() -> None:
    _extend_tasks()
    _place_tasks()
    _rename_lock_keys()
    _extend_requests()
    for column in (
        sa.Column("locked_by_name", sa.Text()),
        sa.Column("grants", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("person_name", sa.Text()),
        sa.Column("all_ended_at", UTCDateTime()),
        sa.Column("unlocked_by_name", sa.Text()),
    ):
        op.add_column("lockdowns", column)
    _create_lockdown_messages()
    _create_alerts()
    _convert_alert_tasks()
    _create_observations()


def _extend_tasks() -> None:
    """Columns are added in place. A copy of the table would lose its counter on SQLite, and ids would be used twice."""
    for column in (
        sa.Column("priority", sa.Integer(), nullable=False, server_default="2"),
        sa.Column("pool", sa.Text(), nullable=False, server_default="slack"),
        sa.Column("server", sa.Text()),
        sa.Column("held_key", sa.String(64)),
        sa.Column("blocked_at", UTCDateTime()),
        sa.Column("set_aside", sa.Text()),
    ):
        op.add_column("tasks", column)
    op.create_index("uq_tasks_held_key", "tasks", ["held_key"], unique=True)
    op.create_index("ix_tasks_lock_key", "tasks", ["lock_key"])


def _place_tasks() -> None:
    for priority, kinds in PRIORITIES.items():
        _execute("UPDATE tasks SET priority = :priority WHERE kind IN :kinds", kinds, priority=priority)
    server = "(SELECT server FROM requests WHERE requests.id = tasks.request_id)"
    pool = "(SELECT coalesce(identity, server) FROM requests WHERE requests.id = tasks.request_id)"
    _execute(
        f"UPDATE tasks SET server = {server}, pool = coalesce({pool}, 'unknown server') WHERE kind IN :kinds", ON_SERVER
    )


def _rename_lock_keys() -> None:
    """Two running tasks may get one lock key, so every claim is given up: its worker notices, and the task runs again."""
    op.execute("UPDATE tasks SET claim = NULL, worker = NULL, lease_until = NULL")
    credentials = "'message\\:' || request_id || '\\:credentials'"
    of_message = ("provision", "password", "close_credentials")
    _execute(f"UPDATE tasks SET lock_key = {credentials} WHERE request_id IS NOT NULL AND kind IN :kinds", of_message)
    for old, new in (("db", "user"), ("slack", "message")):
        key = f"'{new}\\:' || substr(lock_key, {len(old) + 2})"
        op.execute(sa.text(f"UPDATE tasks SET lock_key = {key} WHERE lock_key LIKE '{old}\\:%'"))


def _execute(statement: str, kinds: Sequence[str], **values: int) -> None:
    listed = sa.text(statement).bindparams(sa.bindparam("kinds", expanding=True))
    op.get_bind().execute(listed, {"kinds": list(kinds), **values})


def _create_lockdown_messages() -> None:
    op.create_table(
        "lockdown_messages",
        sa.Column(
            "lockdown_id",
            Id,
            sa.ForeignKey("lockdowns.id", name="fk_lockdown_messages_lockdown_id"),
            primary_key=True,
        ),
        sa.Column("place", sa.String(64), primary_key=True),
        sa.Column("channel", sa.String(64), nullable=False),
        sa.Column("ts", sa.String(32), nullable=False),
        sa.Column("shown", sa.Text(), nullable=False),
    )


def _convert_alert_tasks() -> None:
    """Alerts that are not sent yet become alerts of their own. They are over from the beginning: nobody would resolve them."""
    connection = op.get_bind()
    alerts = sa.table(
        "alerts",
        *(sa.column(name, sa.JSON()) for name in ("steps", "statements")),
        *(sa.column(name, UTCDateTime()) for name in ("since", "updated_at", "resolved_at")),
        *map(sa.column, ("id", "cause", "request_id", "what", "tries", "version")),
    )
    tasks = sa.table("tasks", sa.column("payload", sa.JSON()), *map(sa.column, NAMES))
    payload = sa.cast(tasks.c.payload, sa.Text()).label("text")
    waiting = sa.select(tasks.c.id, tasks.c.request_id, payload).where(tasks.c.kind == "alert").order_by(tasks.c.id)
    for task_id, request_id, text in connection.execute(waiting).all():
        if (values := _of_alert(text)) is None:
            continue  # it is set aside when it is claimed
        row = {"cause": f"earlier:{task_id}", "request_id": request_id, "version": 1, **values}
        number = connection.execute(sa.insert(alerts).values(**row).returning(alerts.c.id)).scalar_one()
        change = {"payload": {"alert": number}, "lock_key": f"message:alert:{number}", "pool": "alerts"}
        connection.execute(sa.update(tasks).where(tasks.c.id == task_id).values(**change))


def _of_alert(payload: str) -> dict[str, Any] | None:
    """The columns of an alert, from the payload of its task; None where it cannot be read."""
    try:
        found = json.loads(payload)
        since = datetime.fromisoformat(found["since"]).astimezone(UTC)
        shown = {"what": str(found["what"]), "steps": list(found.get("steps", ())), "tries": int(found.get("tries", 0))}
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return {**shown, "statements": [], "since": since, "updated_at": since, "resolved_at": since}


def _extend_requests() -> None:
    op.create_index("ix_requests_requester_id_requested_at", "requests", ["requester_id", "requested_at"])
    op.create_index(
        "ix_requests_server_identity", "requests", ["server", "id"], sqlite_where=KNOWN, postgresql_where=KNOWN
    )
    op.create_index("ix_requests_parent_id", "requests", ["parent_id"], sqlite_where=EXTENDS, postgresql_where=EXTENDS)


def _create_alerts() -> None:
    op.create_table(
        "alerts",
        sa.Column("id", Id, primary_key=True, autoincrement=True),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("request_id", Id, sa.ForeignKey("requests.id", name="fk_alerts_request_id")),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("enforced", sa.Text()),
        sa.Column("steps", sa.JSON(), nullable=False),
        sa.Column("statements", sa.JSON(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("since", UTCDateTime(), nullable=False),
        sa.Column("next_try_at", UTCDateTime()),
        sa.Column("updated_at", UTCDateTime(), nullable=False),
        sa.Column("shown_at", UTCDateTime()),
        sa.Column("resolved_at", UTCDateTime()),
        sa.Column("resolution", sa.Text()),
        sa.Column("version", sa.Integer(), nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_alerts_request_id", "alerts", ["request_id"])
    op.create_index("uq_alerts_open_cause", "alerts", ["cause"], unique=True, sqlite_where=OPEN, postgresql_where=OPEN)
    op.create_table(
        "alert_messages",
        sa.Column("alert_id", Id, sa.ForeignKey("alerts.id", name="fk_alert_messages_alert_id"), primary_key=True),
        sa.Column("place", sa.String(64), primary_key=True),
        sa.Column("channel", sa.String(64), nullable=False),
        sa.Column("ts", sa.String(32), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
    )


def _create_observations() -> None:
    groups = op.create_table(
        "observed_groups",
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("members", sa.JSON(), nullable=False),
    )
    handles = op.create_table(
        "pinned_handles",
        sa.Column("handle", sa.String(255), primary_key=True),
        sa.Column("group_id", sa.String(64), nullable=False),
    )
    cursors = op.create_table(
        "cursors",
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("value", sa.BigInteger(), nullable=False),
    )
    connection = op.get_bind()
    found: dict[str, str] = {
        row.name: row.value
        for row in connection.execute(sa.text("SELECT name, value FROM meta WHERE name <> 'ledger'"))
    }
    rows = [
        {"name": name, "members": members}
        for name, value in _with(found, "seen:group:")
        if (members := _members(value)) is not None
    ]
    pins = [{"handle": handle, "group_id": value} for handle, value in _with(found, "seen:pin:")]
    read = [
        {"name": name, "value": int(value)}
        for name, value in _with(found, "cursor:")
        if value.isdecimal() and not name.startswith("alerted:")
    ]
    for table, values in ((groups, rows), (handles, pins), (cursors, read)):
        if values:
            op.bulk_insert(table, values)
    connection.execute(sa.text("DELETE FROM meta WHERE name <> 'ledger'"))


def _with(found: dict[str, str], prefix: str) -> list[tuple[str, str]]:
    return [(name.removeprefix(prefix), value) for name, value in found.items() if name.startswith(prefix)]


def _members(value: str) -> list[str] | None:
    """The members of a group; None where they cannot be read: the group is then at first sight again."""
    with suppress(ValueError, TypeError):
        return sorted(map(str, json.loads(value)))
    return None
