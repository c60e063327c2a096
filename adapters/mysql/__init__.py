"""Adapters for MySQL 8.4 and later and for MariaDB 10.11 and later.

Both servers share one implementation: each temporary user has an event that ends the user on the server itself, and a
revocation kills every session. ``mysql_dialect`` and ``mariadb_dialect`` hold the differences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import ClassVar

from adapters.base import (
    Activity,
    Endpoint,
    Enforced,
    Health,
    Level,
    ManagedUser,
    Removal,
    Secrets,
    Target,
    UserSpec,
    UserToDrop,
)
from adapters.level_state import LevelState
from adapters.mysql import (
    blocking,
    comparing,
    identity,
    leftovers,
    level_facts,
    refreshing,
    revoke,
    rights,
    sessions,
    users,
)
from adapters.mysql.connection import account
from adapters.mysql.dialect import Dialect
from adapters.mysql.mariadb_dialect import MariaDBDialect
from adapters.mysql.mysql_dialect import MySQLDialect
from adapters.mysql.server import MySQLLogin, Server, log_in_as
from adapters.usernames import username_pattern

__all__ = ["MariaDB", "MySQL", "MySQLFamily"]


class MySQLFamily:
    """Implements ``adapters.base.Adapter`` for both servers, on top of ``dialect``."""

    label: ClassVar[str]
    enforces: ClassVar[Enforced]
    dialect: ClassVar[Dialect]
    grace: ClassVar[timedelta] = timedelta(seconds=60)
    """The server's own event fires this long after the end of the grant, so that dbaccess acts first."""

    def __init__(self, target: Target, secrets: Secrets) -> None:
        self.target = target
        self.server = Server(target, secrets, self.dialect, self.grace)

    def check(self, levels: Sequence[Level] = ()) -> Health:
        """The version, each right of the bot with the statement that grants it, and each level."""
        return rights.check(self.server, levels)

    def identity(self) -> str:
        """The server's UUID (MySQL) or UID (MariaDB). A record of it in ``ops_schema`` lets dbaccess recognise a promoted replica."""
        with self.server.session() as connection:
            found = self.server.identity(connection)
            identity.remember(connection, self.dialect, self.target, found)
            return found

    def level_state(self, level: Level) -> LevelState:
        """See ``level_facts``."""
        with self.server.session() as connection:
            return level_facts.describe(self.server, connection, level)

    def create_user(self, spec: UserSpec) -> None:
        """Create the account locked; unlock it in the last step."""
        users.create(self.server, spec)
        self.server.keep_spare()

    def set_password(self, username: str, password: str) -> None:
        """``Dialect.password_clause`` decides in which form the server receives the password."""
        users.set_password(self.server, username, password)

    def set_expiry(self, username: str, remaining: float) -> None:
        """Move the event to ``remaining`` seconds from now, by the server's clock."""
        users.set_expiry(self.server, username, remaining)

    def drop_user(self, username: str, level: Level, before: LevelState | None = None) -> Removal:
        """See ``revoke``. The server's version is not looked at."""
        return revoke.drop(self.server, username, level, before)

    def block_users(self, usernames: Sequence[str]) -> frozenset[str]:
        """See ``blocking``."""
        return blocking.block(self.server, usernames)

    def drop_blocked_users(self, users: Sequence[UserToDrop]) -> Mapping[str, Removal]:
        """There is no quick way: ``drop_user`` drops each."""
        del users
        return {}

    def end_by_hand(self, username: str) -> tuple[str, ...]:
        """The second statement prints the KILL statements. The event stays: it does nothing once the user is gone."""
        users.require_username(self.server, username)
        kills = f"SELECT CONCAT('KILL ', id, ';') AS 'run these' FROM information_schema.processlist WHERE user = '{username}';"
        on_replicas = (f"-- and on each replica: {kills}",) if self.server.replicas else ()
        lock, drop = f"ALTER USER {account(username)} ACCOUNT LOCK;", f"DROP USER IF EXISTS {account(username)};"
        return lock, kills, drop, *on_replicas

    def compare_users(self, levels: Mapping[str, Level]) -> dict[str, tuple[str, ...]]:
        """See ``comparing``."""
        return comparing.compare(self.server, levels)

    def refresh_levels(self, levels: Sequence[Level]) -> list[str]:
        """See ``refreshing``."""
        return refreshing.refresh(self.server, levels)

    def drop_leftovers(self) -> list[str]:
        """See ``leftovers``."""
        return leftovers.drop_leftovers(self.server)

    def list_users(self) -> list[ManagedUser]:
        """All users whose name matches the pattern; the caller compares ``ledger``. The server's version is not looked at."""
        with self.server.session() as connection:
            pattern = username_pattern(self.target.prefix)
            found = [
                ManagedUser(username=f.username, ledger=f.ledger, request_id=f.request_id, expires_at=f.expires_at)
                for f in users.find_accounts(self.server, connection)
                if pattern.fullmatch(f.username)
            ]
        self.server.keep_spare(of_replicas=True)
        return found

    def activity(self, usernames: Sequence[str]) -> list[Activity]:
        """Sessions now; counts of statements where the bot may read performance_schema."""
        return sessions.activity(self.server, usernames)

    def endpoint(self, level: Level) -> Endpoint:
        """The address where the requester logs in. The command contains the password, as users of these clients expect."""
        configured, address = self.target.connect, self.server.address
        host, port = configured.host or address.host, configured.port or address.port
        database = self.server.database_of(level) or ""
        tls = configured.tls or self.target.tls.mode
        command = self.dialect.login_command(host, port, database, tls)
        return Endpoint(
            host=host, port=port, database=database, tls=tls, note=configured.note, engine=self.label, command=command
        )

    def login(self, username: str, password: str, level: Level) -> MySQLLogin:
        """See ``connection.log_in_as``."""
        return log_in_as(self.server, username, password, level)


class MySQL(MySQLFamily):
    """Implements ``adapters.base.Adapter`` for MySQL. Its event scheduler is on by default."""

    label: ClassVar[str] = "MySQL"
    enforces: ClassVar[Enforced] = Enforced.SESSIONS
    dialect: ClassVar[Dialect] = MySQLDialect()


class MariaDB(MySQLFamily):
    """Implements ``adapters.base.Adapter`` for MariaDB. Its event scheduler is off by default."""

    label: ClassVar[str] = "MariaDB"
    enforces: ClassVar[Enforced] = Enforced.NOTHING
    dialect: ClassVar[Dialect] = MariaDBDialect()
