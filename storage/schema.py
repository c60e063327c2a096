"""The ledger's tables (SQLAlchemy Core), the same on SQLite and PostgreSQL. ``migrations/`` creates them.

``audit_events.sequence`` and ``hash`` are still empty. A later version fills them.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.types import TypeDecorator

NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}


class UTCDateTime(TypeDecorator[datetime]):
    """An aware UTC time with microseconds. SQLite stores it as sortable text without a zone, always in UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without zone cannot be stored")
        utc = value.astimezone(UTC)
        return utc.replace(tzinfo=None) if dialect.name == "sqlite" else utc

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        del dialect
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Duration(TypeDecorator[timedelta]):
    """A duration in whole microseconds."""

    impl = BigInteger
    cache_ok = True

    def process_bind_param(self, value: timedelta | None, dialect: Dialect) -> int | None:
        del dialect
        return None if value is None else value // timedelta(microseconds=1)

    def process_result_value(self, value: Any, dialect: Dialect) -> timedelta | None:
        del dialect
        return None if value is None else timedelta(microseconds=int(value))


KNOWN = text("identity IS NOT NULL")
OPEN = text("resolved_at IS NULL")
EXTENDS = text("parent_id IS NOT NULL")
Id = BigInteger().with_variant(Integer, "sqlite")
metadata = MetaData(naming_convention=NAMES)

requests = Table(
    "requests",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("key", String(32), nullable=False, unique=True),
    Column("kind", String(16), nullable=False),
    Column("state", String(16), nullable=False),
    Column("version", Integer, nullable=False),
    Column("team_id", String(32), nullable=False),
    Column("requester_id", String(64), nullable=False),
    Column("requester_name", Text, nullable=False),
    Column("database", String(64), nullable=False),
    Column("level", String(64), nullable=False),
    Column("reason", Text, nullable=False),
    Column("ticket", Text),
    Column("parent_id", Id, ForeignKey("requests.id")),
    Column("terms", JSON, nullable=False),
    Column("rule", Text),
    Column("requested_duration", Duration),
    Column("is_automatic", Boolean),
    Column("requested_at", UTCDateTime, nullable=False),
    Column("lapses_at", UTCDateTime, nullable=False),
    Column("approved_at", UTCDateTime),
    Column("duration", Duration),
    Column("start_before", UTCDateTime),
    Column("username", String(64)),
    Column("target", JSON),
    Column("server", Text),
    Column("identity", Text),
    Column("level_state", Text),
    Column("started_at", UTCDateTime),
    Column("unsettled_until", UTCDateTime),
    Column("expires_at", UTCDateTime),
    Column("activated_at", UTCDateTime),
    Column("claimed_at", UTCDateTime),
    Column("reviewed_at", UTCDateTime),
    Column("ended_at", UTCDateTime),
    Column("ended_because", String(32)),
    Column("ended_by", String(64)),
    Column("ended_note", Text),
    Column("receipt", JSON),
    Index(None, "state", "database"),
    Index(None, "requester_id", "state"),
    Index("ix_requests_requester_id_requested_at", "requester_id", "requested_at"),
    Index("ix_requests_server_identity", "server", "id", sqlite_where=KNOWN, postgresql_where=KNOWN),
    Index("ix_requests_parent_id", "parent_id", sqlite_where=EXTENDS, postgresql_where=EXTENDS),
    sqlite_autoincrement=True,  # an id is never used twice, even after the newest row was removed
)

decisions = Table(
    "decisions",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("request_id", Id, ForeignKey("requests.id"), nullable=False),
    Column("person_id", String(64), nullable=False),
    Column("person_name", Text, nullable=False),
    Column("verdict", String(16), nullable=False),
    Column("stage", Integer, nullable=False),
    Column("at", UTCDateTime, nullable=False),
    Column("reason", Text),
    Column("duration", Duration),
    UniqueConstraint("request_id", "person_id"),
    sqlite_autoincrement=True,
)

messages = Table(
    "messages",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("request_id", Id, ForeignKey("requests.id"), nullable=False, index=True),
    Column("purpose", String(32), nullable=False),
    Column("channel", String(64), nullable=False),
    Column("ts", String(32)),
    Column("version", Integer, nullable=False),
    sqlite_autoincrement=True,
)

tasks = Table(
    "tasks",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("kind", String(32), nullable=False),
    Column("lock_key", String(64), nullable=False),
    Column("request_id", Id, ForeignKey("requests.id"), index=True),
    Column("payload", JSON, nullable=False),
    Column("due_at", UTCDateTime, nullable=False, index=True),
    Column("created_at", UTCDateTime, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("last_error", Text),
    Column("claim", BigInteger),
    Column("worker", String(32)),
    Column("lease_until", UTCDateTime, index=True),
    Column("priority", Integer, nullable=False, server_default="2"),
    Column("pool", Text, nullable=False, server_default="slack"),
    Column("server", Text),
    Column("held_key", String(64)),
    Column("blocked_at", UTCDateTime),
    Column("set_aside", Text),
    Index("ix_tasks_lock_key", "lock_key"),
    Index("uq_tasks_held_key", "held_key", unique=True),
    # One task of a lock key is claimed at a time, however many replicas there are.
    Index(
        "uq_tasks_claimed_lock_key",
        "lock_key",
        unique=True,
        sqlite_where=text("claim IS NOT NULL"),
        postgresql_where=text("claim IS NOT NULL"),
    ),
    sqlite_autoincrement=True,
)

audit_events = Table(
    "audit_events",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("at", UTCDateTime, nullable=False),
    Column("kind", String(48), nullable=False),
    Column("actor", String(64), nullable=False),
    Column("request_id", Id, ForeignKey("requests.id"), index=True),
    Column("facts", JSON, nullable=False),
    Column("text_digest", String(64)),
    Column("sequence", BigInteger, unique=True),
    Column("hash", String(64)),
    sqlite_autoincrement=True,
)

audit_texts = Table(
    "audit_texts",
    metadata,
    Column("event_id", Id, ForeignKey("audit_events.id"), primary_key=True),
    Column("salt", LargeBinary, nullable=False),
    Column("text", Text, nullable=False),
)
"""Personal texts of audit events. The event itself holds only the salted digest, so that the text can be erased."""

lockdowns = Table(
    "lockdowns",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("database", String(64)),
    Column("person_id", String(64)),
    Column("locked_by", String(64), nullable=False),
    Column("locked_by_name", Text),
    Column("person_name", Text),
    Column("grants", Integer, nullable=False, server_default="0"),
    Column("all_ended_at", UTCDateTime),
    Column("at", UTCDateTime, nullable=False),
    Column("unlocked_by", String(64)),
    Column("unlocked_by_name", Text),
    Column("unlocked_at", UTCDateTime),
    sqlite_autoincrement=True,
)

lockdown_messages = Table(
    "lockdown_messages",
    metadata,
    Column("lockdown_id", Id, ForeignKey("lockdowns.id"), primary_key=True),
    Column("place", String(64), primary_key=True),
    Column("channel", String(64), nullable=False),
    Column("ts", String(32), nullable=False),
    Column("shown", Text, nullable=False),
)

meta = Table(
    "meta",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)

alerts = Table(
    "alerts",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("cause", Text, nullable=False),
    Column("request_id", Id, ForeignKey("requests.id"), index=True),
    Column("what", Text, nullable=False),
    Column("enforced", Text),
    Column("steps", JSON, nullable=False),
    Column("statements", JSON, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("since", UTCDateTime, nullable=False),
    Column("next_try_at", UTCDateTime),
    Column("updated_at", UTCDateTime, nullable=False),
    Column("shown_at", UTCDateTime),
    Column("resolved_at", UTCDateTime),
    Column("resolution", Text),
    Column("version", Integer, nullable=False),
    Index("uq_alerts_open_cause", "cause", unique=True, sqlite_where=OPEN, postgresql_where=OPEN),
    sqlite_autoincrement=True,
)

alert_messages = Table(
    "alert_messages",
    metadata,
    Column("alert_id", Id, ForeignKey("alerts.id"), primary_key=True),
    Column("place", String(64), primary_key=True),
    Column("channel", String(64), nullable=False),
    Column("ts", String(32), nullable=False),
    Column("version", Integer, nullable=False),
)

observed_groups = Table(
    "observed_groups",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("members", JSON, nullable=False),
)
"""The members of each group that the policy names, as ``bot.monitors.groups`` saw them last."""

pinned_handles = Table(
    "pinned_handles",
    metadata,
    Column("handle", String(255), primary_key=True),
    Column("group_id", String(64), nullable=False),
)
"""The group that each handle meant when the policy began to name it."""

cursors = Table(
    "cursors",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("value", BigInteger, nullable=False),
)
"""How far a reader of the audit log has come."""

recoveries = Table(
    "recoveries",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("since", UTCDateTime, nullable=False),
    Column("reason", String(32), nullable=False),
    Column("evidence", JSON, nullable=False),
    Column("ended_at", UTCDateTime),
    Column("ended_by", String(64)),
    sqlite_autoincrement=True,
)
"""Times of recovery mode. One without ``ended_at`` is in force. ``evidence`` says why the ledger is not the newest."""

bots = Table(
    "bots",
    metadata,
    Column("worker", String(32), primary_key=True),
    Column("version", String(32), nullable=False),
    Column("started_at", UTCDateTime, nullable=False),
    Column("seen_at", UTCDateTime, nullable=False),
    Column("digest", String(64)),
)
"""The running bots: when each was seen last, and the digest of the configuration that it has loaded."""

configurations = Table(
    "configurations",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("digest", String(64), nullable=False),
    Column("at", UTCDateTime, nullable=False),
    Column("worker", String(32), nullable=False),
    sqlite_autoincrement=True,
)
"""The configurations in the order in which they came into force. The last one is the newest."""
