"""One server with the bot's administrator login, and its replicas: opens connections and checks that it is the server of the grant."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pymysql

from adapters.base import Level, LoginRefused, Secrets, ServerDown, Target, WrongServer, scrub
from adapters.mysql import identity
from adapters.mysql.connection import LOCK_SECONDS, Address, MySQLConnection, log_in, parse
from adapters.mysql.dialect import Dialect
from adapters.mysql.errors import LOGIN_REFUSED, code, translated


class Server:
    """One server with the bot's administrator login, and its replicas."""

    def __init__(self, target: Target, secrets: Secrets, dialect: Dialect, grace: timedelta) -> None:
        self.target = target
        self.dialect = dialect
        self.grace = grace
        self.address = parse(secrets.admin_url, target.admin_url)
        self.replicas = tuple(zip(target.replicas, secrets.replicas, strict=True))
        self._secrets = (secrets.admin_url, *secrets.replicas)

    @contextmanager
    def session(self, *secrets: str) -> Iterator[MySQLConnection]:
        """A connection to the server on which the grant was made. Raises only AdapterError, without ``secrets``.

        Raises WrongServer for another server, unless it is a promoted replica of that one.
        """
        with self._at(self.address, *secrets) as connection:
            self._require_same(connection)
            yield connection

    @contextmanager
    def replica(self, number: int) -> Iterator[MySQLConnection]:
        """A connection to a replica. Its URL is parsed here, so that an invalid one does not prevent the block of the login on the primary."""
        reference, url = self.replicas[number]
        with self._at(parse(url, reference), where=f"the replica {reference}") as connection:
            yield connection

    @contextmanager
    def _at(self, address: Address, *secrets: str, where: str = "the server") -> Iterator[MySQLConnection]:
        hidden = (address.password, self.address.password, *self._secrets, *secrets)
        with translated(hidden, login=address.user, where=where):
            driver = log_in(address, self.target.tls, address.user, address.password, None)
            connection = MySQLConnection(driver, self.dialect.lock_limits)
            try:
                connection.run("SET SESSION time_zone = '+00:00'")
                connection.set_lock_limit(LOCK_SECONDS)
                yield connection
            finally:
                connection.close()

    def identity(self, connection: MySQLConnection) -> str:
        """The server's UUID or UID. Each replica has another one. Raises Rejected on a server that is too old to have one."""
        return identity.of(connection, self.dialect)

    def _require_same(self, connection: MySQLConnection) -> None:
        expected = self.target.identity
        if expected is None or (found := self.identity(connection)) == expected:
            return
        if not identity.is_heir(connection, self.dialect, self.target, expected, found):
            raise WrongServer(expected=expected, found=found)

    def database_of(self, level: Level) -> str | None:
        """The database that contains the level's objects."""
        return level.database or self.target.connect.database or self.address.database


class MySQLLogin:
    """Implements ``adapters.base.Login``."""

    def __init__(self, driver: pymysql.Connection[Any]) -> None:
        self._connection = MySQLConnection(driver)

    def is_alive(self) -> bool:
        """Whether the server answers. A session whose user is dropped still counts while it does."""
        try:
            self._connection.run("SELECT 1")
        except (pymysql.MySQLError, OSError):
            return False
        return True

    def close(self) -> None:
        """Close the connection. Never raises."""
        self._connection.close()


def log_in_as(server: Server, username: str, password: str, level: Level) -> MySQLLogin:
    """Log in as the temporary user, at the address of the admin URL.

    Raises LoginRefused, or ServerDown where the server did not answer about the password.
    """
    try:
        return MySQLLogin(log_in(server.address, server.target.tls, username, password, server.database_of(level)))
    except (pymysql.MySQLError, OSError) as error:
        message = scrub(" ".join(str(error).split()), password)
        if isinstance(error, pymysql.MySQLError) and code(error) in LOGIN_REFUSED:
            raise LoginRefused(message) from None
        raise ServerDown(f"no login as {username}: {message}") from None
