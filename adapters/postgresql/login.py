"""Logging in as the temporary user, by the address of the admin URL: how a team proves its own server."""

from __future__ import annotations

from contextlib import suppress

import psycopg

from adapters.base import Level, LoginRefused, ServerDown, scrub
from adapters.postgresql.connection import CONNECT_SECONDS, Server
from adapters.postgresql.errors import LOGIN_REFUSED
from adapters.postgresql.levels import level_database

OF_THE_BOT = ("user", "password", "passfile", "options")


class Login:
    """Implements ``adapters.base.Login``."""

    def __init__(self, connection: psycopg.Connection[tuple[object, ...]]) -> None:
        self._connection = connection

    def is_alive(self) -> bool:
        """Also a session whose user is gone counts as alive while the server answers on it."""
        try:
            self._connection.execute("SELECT 1")
        except psycopg.Error:
            return False
        return True

    def close(self) -> None:
        with suppress(psycopg.Error):
            self._connection.close()


def log_in(server: Server, username: str, password: str, level: Level) -> Login:
    """Raises LoginRefused, and Unreachable where there was no answer about the password."""
    known = {key: value for key, value in server.conninfo.items() if key not in OF_THE_BOT}
    own = {"user": username, "password": password, "dbname": level_database(server, level)}
    try:
        connection = psycopg.connect(**{**known, **own, "connect_timeout": CONNECT_SECONDS}, autocommit=True)
    except psycopg.OperationalError as error:
        words = scrub(" ".join(str(error).split()), password)
        if LOGIN_REFUSED.search(words):
            raise LoginRefused(words) from None
        raise ServerDown(f"no login as {username}: {words}") from None
    return Login(connection)
