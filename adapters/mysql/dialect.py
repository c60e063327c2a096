"""The differences between MySQL and MariaDB, as one protocol that each of the two implements."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from adapters.base import Finding, Level, Target
from adapters.mysql.connection import MySQLConnection


@dataclass(frozen=True, kw_only=True)
class LockHolder:
    """A connection that holds a lock on ``what``. ``session`` is None for a prepared XA transaction whose connection is gone."""

    session: int | None
    user: str
    what: str


class Dialect(Protocol):
    """One of the two servers.

    ``oldest_version``: major and minor number of the oldest supported version. ``identity``: the variable that identifies the server;
    ``identity_since``: the releases that introduced it.
    ``read_only``: the variables that say whether it refuses changes. ``further_limits``: per-user limits that only this server has.
    ``rights``: what the bot needs on the whole server, each with its purpose; ``kill_right`` is the one of them that ends sessions.
    ``definer_rights``: any of these lets the bot drop a user who is the definer of an object. ``shows_lock_holders``: the statement
    that lets the bot see who holds a lock. ``lock_limits``: the variables that limit, in seconds, how long a statement waits for a lock.
    ``settings``: see ``own_session``. ``way_in``: how the bot gets in where all connections are taken.
    """

    label: str
    oldest_version: tuple[int, int]
    identity: str
    identity_since: str
    read_only: tuple[str, ...]
    further_limits: tuple[str, ...]
    rights: tuple[tuple[str, str], ...]
    kill_right: str
    definer_rights: tuple[str, ...]
    login_plugin: str
    shows_lock_holders: str
    lock_limits: tuple[str, ...]
    way_in: str
    settings: Mapping[str, str]

    def password_clause(self, connection: MySQLConnection, password: str) -> str:
        """``IDENTIFIED …``, with the form of the password that the server receives."""

    def run_with_lock_limit(self, connection: MySQLConnection, statement: str, seconds: int) -> None:
        """Run a statement that waits at most so many seconds for a lock."""

    def has_wildcards(self, connection: MySQLConnection) -> bool:
        """Whether ``_`` and ``%`` are wildcards in the name of a whole database in GRANT."""

    def with_time_limit(self, query: str, seconds: int) -> str:
        """A SELECT that the server gives up after so many seconds."""

    def prepare_kills(self, connection: MySQLConnection) -> None:
        """Prepare the connection so that no user can hold up its KILL statements. Does not raise."""

    def active_roles(self, connection: MySQLConnection) -> str:
        """The roles of this session, in the form that SET ROLE takes."""

    def transactions_of(self, connection: MySQLConnection, username: str) -> list[str]:
        """XA transactions of the user's open sessions, in the form that XA ROLLBACK takes. Empty where the server does not show them."""

    def lock_holders(self, connection: MySQLConnection) -> list[LockHolder] | None:
        """Connections other than the bot's that hold what ALTER USER, DROP USER or ALTER EVENT waits for. None: the bot cannot see locks."""

    def is_replica(self, connection: MySQLConnection) -> bool:
        """Whether this server receives the changes of another one, so that it may not be changed by itself."""

    def prepared_transactions(self, connection: MySQLConnection) -> list[str]:
        """XA transactions that wait to be committed, in the form that XA ROLLBACK takes. Raises the driver's error where the bot may not see them."""

    def set_default_role(self, connection: MySQLConnection, target: Target, username: str, role: str) -> None:
        """Activate the role from login on. Raises Rejected with what is missing."""

    def accounts(
        self, connection: MySQLConnection, target: Target, usernames: Sequence[str] | None
    ) -> list[tuple[str, str, tuple[str, int] | None]]:
        """(user, host, mark) for these names, or for all names with the prefix.

        The mark is (ledger, request). It is None unless the account itself carries one. The user can change that mark, so it
        counts only where the user has no event.
        """

    def unlocked(self, connection: MySQLConnection, usernames: Sequence[str]) -> list[str]:
        """Those of these users that exist and are not locked."""

    def unsafe_setting(self, connection: MySQLConnection) -> tuple[str, str] | None:
        """A setting of the server that makes new users unsafe, and the statement that changes it; or None."""

    def quoted_role(self, name: str) -> str:
        """A role in the form that statements take."""

    def is_role(self, connection: MySQLConnection, name: str) -> bool:
        """Whether the role exists and is not an account that can log in."""

    def roles_named(self, connection: MySQLConnection, prefix: str) -> list[str]:
        """Roles whose names begin with ``prefix``."""

    def role_members(self, connection: MySQLConnection, role: str) -> list[str]:
        """Accounts and roles that were granted the role, without its creator."""

    def roles_below(self, connection: MySQLConnection, role: str) -> list[str]:
        """Roles that were granted to this role."""

    def findings(self, target: Target, connection: MySQLConnection, levels: Sequence[Level]) -> Iterator[Finding]:
        """Findings of ``check`` that exist on this server only."""

    def login_command(self, host: str, port: int, database: str, tls: str) -> str:
        """A command to paste, with the placeholders {username} and {password}."""
