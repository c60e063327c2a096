"""One server with the bot's administrator login, and its replicas: opens connections and checks that it is the server of the grant."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import Any

import pymysql

from adapters.base import Level, LoginRefused, Rejected, Secrets, ServerDown, Target, WrongServer
from adapters.mysql import identity, own_session, spares
from adapters.mysql.connection import END_LOCK_SECONDS, LOCK_SECONDS, Address, MySQLConnection, log_in, parse
from adapters.mysql.dialect import Dialect
from adapters.mysql.errors import DRIVER_FAULTS, LOGIN_REFUSED, code, translated
from adapters.usernames import scrub


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
    def session(self, *secrets: str, for_end: bool = False) -> Iterator[MySQLConnection]:
        """A connection to the server on which the grant was made. Raises only AdapterError, without ``secrets``.

        ``for_end``: where no new connection is possible, the spare one is used. Raises WrongServer for another server, unless it is a
        promoted replica of that one.
        """
        with self._at(self.address, *secrets, for_end=for_end) as connection:
            self._require_same(connection)
            yield connection

    @contextmanager
    def replica(self, number: int, *, for_end: bool = False) -> Iterator[MySQLConnection]:
        """A connection to a replica. Its URL is parsed here, so that an invalid one does not prevent the block of the login on the primary."""
        reference, url = self.replicas[number]
        with self._at(parse(url, reference), where=f"the replica {reference}", for_end=for_end) as connection:
            yield connection

    @contextmanager
    def _at(
        self, address: Address, *secrets: str, where: str = "the server", for_end: bool
    ) -> Iterator[MySQLConnection]:
        hidden = (address.password, self.address.password, *self._secrets, *secrets)
        with translated(hidden, login=address.user, where=where), self._driver(address, for_end=for_end) as driver:
            connection = MySQLConnection(driver, self.dialect.lock_limits)
            own_session.pin(connection, self.dialect)
            connection.set_lock_limit(END_LOCK_SECONDS if for_end else LOCK_SECONDS)
            if for_end:
                self.dialect.prepare_kills(connection)
            yield connection

    @contextmanager
    def _driver(self, address: Address, *, for_end: bool) -> Iterator[pymysql.Connection[Any]]:
        try:
            driver = self._connect(address)
        except (pymysql.MySQLError, OSError):
            spare = spares.take(address) if for_end else None
            if spare is None:
                raise
        else:
            with closing(MySQLConnection(driver)):
                yield driver
            return
        try:
            yield spare
        finally:
            spares.give_back(address)

    def _connect(self, address: Address) -> pymysql.Connection[Any]:
        return log_in(address, self.target.tls, address.user, address.password, None)

    def keep_spare(self, *, of_replicas: bool = False) -> None:
        """Hold a spare connection to the server, and to each replica whose URL can be read."""
        spares.keep(self.address, lambda: self._connect(self.address))
        for reference, url in self.replicas if of_replicas else ():
            with suppress(Rejected):
                address = parse(url, reference)
                spares.keep(address, partial(self._connect, address))

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
    except (pymysql.MySQLError, OSError, *DRIVER_FAULTS) as error:
        message = scrub(" ".join(str(error).split()), password)
        if isinstance(error, pymysql.MySQLError) and code(error) in LOGIN_REFUSED:
            raise LoginRefused(message) from None
        raise ServerDown(f"no login as {username}: {message}") from None
