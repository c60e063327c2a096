"""The engines of SQLAlchemy: how a connection to the ledger is opened and prepared, on SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import URL, Connection, Engine, QueuePool, create_engine, event

BUSY_SECONDS = 30
"""How long a connection waits for SQLite's lock."""

THREADS = 8
"""Transactions at a time: on PostgreSQL all, on SQLite those that only read. SQLite has one more thread, which writes."""

CONNECT_SECONDS = 10
IDLE_LIMIT = "30s"
"""PostgreSQL ends a transaction that is idle for this long, and so frees the locks of a replica that was cut off."""


def with_connect_timeout(url: URL) -> URL:
    """Limit how long connecting takes: the driver alone waits two minutes for a server that drops packets."""
    has_limit = url.get_backend_name() == "sqlite" or "connect_timeout" in url.query
    return url if has_limit else url.update_query_dict({"connect_timeout": str(CONNECT_SECONDS)})


def sqlite_engine(url: URL, check_file: Callable[[], None]) -> Engine:
    """An engine on the standard library's driver. The threads of ``Database`` use its connections by turns."""
    options: dict[str, Any] = {"pool_size": THREADS + 1, "connect_args": {"check_same_thread": False}}
    engine = create_engine(url.set(drivername="sqlite+pysqlite"), poolclass=QueuePool, **options)

    @event.listens_for(engine, "do_connect")
    def check(_dialect: Any, _record: Any, _positional: Any, _options: Any) -> None:
        check_file()

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver must not begin or commit on its own
        cursor = connection.cursor()
        for pragma in (
            f"busy_timeout={BUSY_SECONDS * 1000}",
            "synchronous=FULL",
            "foreign_keys=ON",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        read_only = connection.get_execution_options().get("read_only")
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")

    return engine


def postgresql_engine(url: URL) -> Engine:
    """An engine whose connections are checked before use."""
    engine = create_engine(url, pool_pre_ping=True, pool_size=THREADS)

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        cursor.execute(f"SET idle_in_transaction_session_timeout = '{IDLE_LIMIT}'")
        cursor.close()
        connection.commit()

    return engine
