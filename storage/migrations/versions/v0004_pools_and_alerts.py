"""Tasks know their pool, alerts have a life, and the values of ``meta`` get tables of their own."""

import json
from datetime import datetime

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
KNOWN, EXTENDS, OPEN = sa.text("identity IS NOT NULL"), sa.text("parent_id IS NOT NULL"), sa.text("resolved_at IS NULL")


def upgrade() -> None:
    _extend_tasks()
    _extend_requests()
    with op.batch_alter_table("lockdowns") as batch:
        batch.add_column(sa.Column("locked_by_name", sa.Text()))
        batch.add_column(sa.Column("grants", sa.Integer(), nullable=False, server_default="0"))
        batch.add_column(sa.Column("channel", sa.String(64)))
        batch.add_column(sa.Column("ts", sa.String(32)))
    _create_alerts()
    _convert_alert_tasks()
    _create_observations()


def _convert_alert_tasks() -> None:
    """Alerts that are not sent yet become alerts of their own. They are over from the beginning: nobody would resolve them."""
    connection = op.get_bind()
    alerts = sa.table(
        "alerts",
        *(sa.column(name, sa.JSON()) for name in ("steps", "statements")),
        *(sa.column(name, UTCDateTime()) for name in ("since", "updated_at", "resolved_at")),
        *map(sa.column, ("id", "cause", "request_id", "what", "tries", "version")),
    )
    tasks = sa.table("tasks", sa.column("payload", sa.JSON()), *map(sa.column, ("id", "kind", "lock_key", "pool")))
    waiting = connection.execute(sa.select(tasks.c.id, tasks.c.payload).where(tasks.c.kind == "alert")).all()
    for number, (task_id, payload) in enumerate(waiting, 1):
        since = datetime.fromisoformat(payload["since"])
        values = {
            "what": payload["what"],
            "steps": payload.get("steps", []),
            "statements": [],
            "tries": payload.get("tries", 0),
        }
        times = {"since": since, "updated_at": since, "resolved_at": since}
        connection.execute(
            sa.insert(alerts).values(id=number, cause=f"earlier:{task_id}", version=1, **values, **times)
        )
        change = {"payload": {"alert": number}, "lock_key": f"message:alert:{number}", "pool": "alerts"}
        connection.execute(sa.update(tasks).where(tasks.c.id == task_id).values(**change))


def _extend_tasks() -> None:
    connection = op.get_bind()
    with op.batch_alter_table("tasks") as batch:
        batch.add_column(sa.Column("priority", sa.Integer(), nullable=False, server_default="2"))
        batch.add_column(sa.Column("pool", sa.Text(), nullable=False, server_default="slack"))
        batch.add_column(sa.Column("server", sa.Text()))
        batch.add_column(sa.Column("held_key", sa.String(64)))
        batch.add_column(sa.Column("blocked_at", UTCDateTime()))
        batch.add_column(sa.Column("set_aside", sa.Text()))
        batch.create_unique_constraint("uq_tasks_held_key", ["held_key"])
        batch.create_index("ix_tasks_lock_key", ["lock_key"])
    for priority, kinds in PRIORITIES.items():
        change = sa.text("UPDATE tasks SET priority = :priority WHERE kind IN :kinds").bindparams(
            sa.bindparam("kinds", expanding=True)
        )
        connection.execute(change, {"priority": priority, "kinds": list(kinds)})
    server = "(SELECT server FROM requests WHERE requests.id = tasks.request_id)"
    place = sa.text(
        f"UPDATE tasks SET server = {server}, pool = coalesce((SELECT coalesce(identity, server) FROM requests"
        " WHERE requests.id = tasks.request_id), 'unknown server') WHERE kind IN :kinds"
    ).bindparams(sa.bindparam("kinds", expanding=True))
    connection.execute(place, {"kinds": list(ON_SERVER)})
    credentials = sa.text(
        "UPDATE tasks SET lock_key = 'slack\\:' || request_id || '\\:credentials' WHERE kind IN :kinds"
    )
    connection.execute(
        credentials.bindparams(sa.bindparam("kinds", expanding=True)),
        {"kinds": ["provision", "password", "close_credentials"]},
    )
    connection.execute(
        sa.text("UPDATE tasks SET lock_key = 'user\\:' || substr(lock_key, 4) WHERE lock_key LIKE 'db\\:%'")
    )
    connection.execute(
        sa.text("UPDATE tasks SET lock_key = 'message\\:' || substr(lock_key, 7) WHERE lock_key LIKE 'slack\\:%'")
    )


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
    rows = [{"name": n.removeprefix("seen:group:"), "members": json.loads(v)} for n, v in _with(found, "seen:group:")]
    pins = [{"handle": n.removeprefix("seen:pin:"), "group_id": v} for n, v in _with(found, "seen:pin:")]
    read = [
        {"name": n.removeprefix("cursor:"), "value": int(v)}
        for n, v in _with(found, "cursor:")
        if not n.startswith("cursor:alerted:")
    ]
    for table, values in ((groups, rows), (handles, pins), (cursors, read)):
        if values:
            op.bulk_insert(table, values)
    connection.execute(sa.text("DELETE FROM meta WHERE name <> 'ledger'"))


def _with(found: dict[str, str], prefix: str) -> list[tuple[str, str]]:
    return [(name, value) for name, value in found.items() if name.startswith(prefix)]
