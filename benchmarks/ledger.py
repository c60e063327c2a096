"""Reads the ledger from outside, with its tables only: when a grant ends, and what is still to be done."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import Engine, create_engine, func, select

from storage.schema import requests, tasks
from tests.servers.postgresql import PostgresServer

READER = "figures"
"""The application name of this reader, whose own statements are not counted."""


@dataclass(frozen=True)
class LedgerReader:
    """``store_url`` is the value of DBACCESS_STORE_URL, ``engine`` a synchronous way to the same database."""

    store_url: str
    engine: Engine

    @classmethod
    def sqlite(cls, path: Path) -> LedgerReader:
        return cls(f"sqlite+aiosqlite:///{path}", create_engine(f"sqlite:///{path}"))

    @classmethod
    def postgresql(cls, server: PostgresServer) -> LedgerReader:
        name = server.new_database("ledger")
        with server.admin() as connection:
            connection.execute(f"ALTER DATABASE {name} SET log_statement = 'all'")
        url = server.superuser_url(name).replace("postgresql:", "postgresql+psycopg:")
        return cls(url, create_engine(f"{url}?application_name={READER}"))

    def close(self) -> None:
        self.engine.dispose()

    def count(self, state: str, ids: Collection[int]) -> int:
        """How many of these requests are in this state."""
        query = select(func.count()).where(requests.c.state == state, requests.c.id.between(min(ids), max(ids)))
        with self.engine.connect() as connection:
            return int(connection.execute(query).scalar_one())

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    def newest_request(self) -> int:
        with self.engine.connect() as connection:
            return int(connection.execute(select(func.coalesce(func.max(requests.c.id), 0))).scalar_one())

    def logged_statements(self, server: PostgresServer) -> list[str]:
        """The first words of the statements on this ledger, from the log of its PostgreSQL server."""
        pattern = re.compile(
            rf"^\d+ {self.engine.url.database} (?!{READER})[^\n]*? LOG:  (?:statement|execute [^:]*): ([^;].{{0,99}})",
            re.MULTILINE,
        )
        return pattern.findall(server.log_text())

    def due_tasks(self, ahead: float = 0.0) -> int:
        """How many tasks run now, or are due in the next ``ahead`` seconds."""
        with self.engine.connect() as connection:
            query = select(func.count()).where(tasks.c.due_at <= datetime.now(UTC) + timedelta(seconds=ahead))
            return int(connection.execute(query).scalar_one())
