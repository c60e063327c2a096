"""Columns get the names that the code uses; what queries filter on becomes a column; receipts get their outcome.

Automatic approval and break-glass access become tasks of their own: a pending request that waits for one gets its task.
A row that cannot be read keeps NULL in the new columns: it must not keep the bot from starting, since other grants have to end.
"""

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

RENAMED = (
    ("tasks", "lane", "lock_key"),
    ("requests", "asked_at", "requested_at"),
    ("requests", "ended_words", "ended_note"),
)
ADDED: tuple[sa.Column[Any], ...] = (
    sa.Column("rule", sa.Text(), nullable=True),
    sa.Column("requested_duration", sa.BigInteger(), nullable=True),
    sa.Column("is_automatic", sa.Boolean(), nullable=True),
    sa.Column("server", sa.Text(), nullable=True),
)
MICROSECONDS = 1_000_000


def upgrade() -> None:
    for table, old, new in RENAMED:
        op.execute(f"ALTER TABLE {table} RENAME COLUMN {old} TO {new}")
    op.execute("DROP INDEX uq_tasks_claimed_lane")
    op.execute("CREATE UNIQUE INDEX uq_tasks_claimed_lock_key ON tasks (lock_key) WHERE claim IS NOT NULL")
    op.execute("ALTER TABLE requests DROP COLUMN first_login_at")
    for column in ADDED:
        op.add_column("requests", column)
    _fill()
    _plan_grants()


def _plan_grants() -> None:
    requests = sa.table(
        "requests", sa.column("id"), sa.column("kind"), sa.column("requested_at"), sa.column("state"),
        sa.column("is_automatic", sa.Boolean()),
    )  # fmt: skip
    tasks = sa.table(
        "tasks", sa.column("payload", sa.JSON()),
        *map(sa.column, ("kind", "lock_key", "request_id", "due_at", "created_at", "attempts")),
    )  # fmt: skip
    waits = sa.or_(requests.c.kind == "break-glass", requests.c.is_automatic)
    connection = op.get_bind()
    found = connection.execute(sa.select(requests).where(requests.c.state == "pending", waits)).mappings().all()
    for row in found:
        kind = "grant_break_glass" if row["kind"] == "break-glass" else "auto_approve"
        at = row["requested_at"]  # past, so due at once
        values = {"kind": kind, "lock_key": f"slack:{row['id']}", "request_id": row["id"], "payload": {}}
        connection.execute(sa.insert(tasks).values(**values, due_at=at, created_at=at, attempts=0))


def _fill() -> None:
    requests = sa.table(
        "requests", sa.column("id"), sa.column("terms"), sa.column("target"), sa.column("receipt", sa.JSON()),
        *(sa.column(column.name) for column in ADDED),
    )  # fmt: skip
    texts = [sa.cast(requests.c[name], sa.Text()).label(name) for name in ("terms", "target", "receipt")]
    connection = op.get_bind()
    for row in connection.execute(sa.select(requests.c.id, *texts)).mappings().all():
        values = {
            **_of_terms(_read(row["terms"])),
            **_of_target(_read(row["target"])),
            **_of_receipt(_read(row["receipt"])),
        }
        if values:
            connection.execute(sa.update(requests).where(requests.c.id == row["id"]).values(**values))


def _read(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _of_terms(terms: dict[str, Any]) -> dict[str, Any]:
    try:
        duration = round(terms["duration"] * MICROSECONDS)
        return {"rule": terms["rule"], "requested_duration": duration, "is_automatic": not terms["stages"]}
    except (KeyError, TypeError):
        return {}


def _of_target(target: dict[str, Any]) -> dict[str, Any]:
    known = "engine" in target and "admin_url" in target
    return {"server": f"{target['engine']} {target['admin_url']}"} if known else {}


def _of_receipt(receipt: dict[str, Any]) -> dict[str, Any]:
    if not receipt:
        return {}
    outcome = (
        "declared gone" if receipt.get("gone") else "nothing created" if receipt.get("nothing_made") else "verified"
    )
    return {"receipt": {"outcome": outcome, **receipt}}
