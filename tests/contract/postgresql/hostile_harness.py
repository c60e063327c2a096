"""The harness of the hostile acts on PostgreSQL. Each test has databases of its own, which are dropped afterwards."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import psycopg
from psycopg import sql

from adapters.base import LoginRefused
from tests.contract.postgresql.harness import ContractHarness, EngineHarness
from tests.servers.postgresql import PostgresServer


class RawSession:
    """A session without limits. It is alive as long as the server lists its process."""

    def __init__(self, server: PostgresServer, connection: psycopg.Connection[Any]) -> None:
        self.server, self.connection = server, connection
        self.pid = connection.info.backend_pid

    def run(self, *words: str) -> list[tuple[Any, ...]]:
        cursor = self.connection.execute(" ".join(words).encode())
        return cursor.fetchall() if cursor.description else []

    def send(self, *words: str) -> None:
        self.connection.pgconn.send_query(" ".join(words).encode())

    def is_alive(self) -> bool:
        with self.server.admin() as c:
            return c.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", (self.pid,)).fetchone() is not None

    def close(self) -> None:
        self.connection.close()


class HostileHarness(ContractHarness):
    def __init__(self, harness: EngineHarness) -> None:
        super().__init__(harness)
        self.address = (harness.server.host, harness.server.port)
        self.names = {
            "database": harness.database,
            "schema": "shop",
            "customers": "shop.customers",
            "orders": "shop.orders",
            "owner": "shop_owner",
            "bot": harness.bot,
            "granter": harness.owner or harness.bot,
        }

    def raw_session(self, username: str, password: str) -> RawSession:
        server = self.harness.server
        url = server.url(username, quote(password, safe=""), self.harness.database)
        try:
            return RawSession(server, psycopg.connect(url, autocommit=True, connect_timeout=60))
        except psycopg.OperationalError as error:
            raise LoginRefused(str(error)) from None

    def administrator(self) -> RawSession:
        return RawSession(self.harness.server, self.harness.superuser())

    def make_friend(self, username: str, password: str) -> None:
        names = {"name": sql.Identifier(username), "database": sql.Identifier(self.harness.database)}
        with self.harness.superuser() as c:
            c.execute(sql.SQL("CREATE ROLE {name} LOGIN PASSWORD {}").format(sql.Literal(password), **names))
            c.execute(sql.SQL("GRANT CONNECT ON DATABASE {database} TO {name}").format(**names))
            c.execute(sql.SQL("GRANT USAGE ON SCHEMA shop TO {name}").format(**names))

    def remove(self) -> None:
        """Drop the databases with everything that the acts left in them."""
        with self.harness.superuser() as c:
            gids = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"
            for (gid,) in c.execute(gids).fetchall():
                c.execute(sql.SQL("ROLLBACK PREPARED {}").format(sql.Literal(gid)))
        with self.harness.superuser("postgres") as c:
            for name in (self.harness.database, self.harness.other):
                c.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
