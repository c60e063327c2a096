"""The harness of the hostile acts on MySQL and MariaDB."""

from __future__ import annotations

from typing import Any

import pymysql

from adapters.base import LoginRefused
from tests.contract.mysql.harness import EngineHarness
from tests.servers.mysql import MySQLServer

QUERY = 3
"""The driver's number of a command with a statement."""


class RawSession:
    """A session without limits. It is alive as long as the server lists it."""

    def __init__(self, server: MySQLServer, connection: pymysql.Connection[Any]) -> None:
        self.server, self.connection = server, connection
        self.number = connection.thread_id()

    def run(self, *words: str) -> list[tuple[Any, ...]]:
        with self.connection.cursor() as cursor:
            cursor.execute(" ".join(words))
            return list(cursor.fetchall())

    def send(self, *words: str) -> None:
        self.connection._execute_command(QUERY, " ".join(words))

    def is_alive(self) -> bool:
        return bool(self.server.query("SELECT 1 FROM information_schema.processlist WHERE id = %s", self.number))

    def close(self) -> None:
        if self.connection.open:
            self.connection._force_close()


class HostileHarness(EngineHarness):
    """The names are in ``adapters.contract.acts.mysql``."""

    @property
    def address(self) -> tuple[str, int]:
        return self.server.host, self.server.port

    @property
    def names(self) -> dict[str, str]:
        return {"shop": f"`{self.database}`", "ops": self.ops_schema, "bot": f"`{self.bot}`@`%`"}

    def raw_session(self, username: str, password: str) -> RawSession:
        try:
            return RawSession(self.server, self.server.connect(username, password))
        except pymysql.MySQLError as error:
            raise LoginRefused(str(error)) from None

    def administrator(self) -> RawSession:
        return RawSession(self.server, self.server.admin())

    def make_friend(self, username: str, password: str) -> None:
        self.server.run(f"CREATE USER `{username}`@`%` IDENTIFIED BY '{password}'")
