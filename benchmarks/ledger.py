"""Reads the ledger from outside, with its tables only: when a grant ends, and what is still to be done."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Engine, create_engine, func, select

from storage.schema import requests, tasks
from tests.servers.postgresql import PostgresServer


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
        url = server.superuser_url(server.new_database("ledger")).replace("postgresql:", "postgresql+psycopg:")
        return cls(url, create_engine(url))

    def close(self) -> None:
        self.engine.dispose()

    def ends(self, ids: Collection[int]) -> dict[int, float]:
        """The end of each grant, in seconds of ``time.time``."""
        query = select(requests.c.id, requests.c.expires_at).where(requests.c.id.in_(ids))
        with self.engine.connect() as connection:
            return {number: at.timestamp() for number, at in connection.execute(query)}

    def username(self, number: int) -> str:
        with self.engine.connect() as connection:
            return str(connection.execute(select(requests.c.username).where(requests.c.id == number)).scalar_one())

    def count(self, state: str, ids: Collection[int]) -> int:
        """How many of these requests are in this state."""
        query = select(func.count()).where(requests.c.state == state, requests.c.id.between(min(ids), max(ids)))
        with self.engine.connect() as connection:
            return int(connection.execute(query).scalar_one())

    def due_tasks(self) -> int:
        """How many tasks should run now, or run now."""
        with self.engine.connect() as connection:
            query = select(func.count()).where(tasks.c.due_at <= datetime.now(UTC))
            return int(connection.execute(query).scalar_one())
