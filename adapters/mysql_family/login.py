"""Logging in as the temporary user, by the address of the admin URL: how a team proves its own server."""

from __future__ import annotations

from typing import Any

import pymysql

from adapters.base import Level, LoginRefused, ServerDown, scrub
from adapters.mysql_family.connection import Connection, Server, log_in
from adapters.mysql_family.errors import LOGIN_REFUSED, code
from adapters.mysql_family.levels import level_database


class Login:
    """Implements ``adapters.base.Login``."""

    def __init__(self, driver: pymysql.Connection[Any]) -> None:
        self._connection = Connection(driver)

    def is_alive(self) -> bool:
        """Also a session whose user is gone counts as alive while the server answers on it."""
        try:
            self._connection.run("SELECT 1")
        except (pymysql.MySQLError, OSError):
            return False
        return True

    def close(self) -> None:
        self._connection.close()


def as_user(server: Server, username: str, password: str, level: Level) -> Login:
    """Raises LoginRefused, and Unreachable where there was no answer about the password."""
    try:
        return Login(log_in(server.address, server.target.tls, username, password, level_database(server, level)))
    except (pymysql.MySQLError, OSError) as error:
        words = scrub(" ".join(str(error).split()), password)
        if isinstance(error, pymysql.MySQLError) and code(error) in LOGIN_REFUSED:
            raise LoginRefused(words) from None
        raise ServerDown(f"no login as {username}: {words}") from None
