"""MySQL 8.0.22 and later, as target. The server ends login and sessions by itself, by an event of its own per user."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from shlex import quote
from typing import ClassVar

from adapters.base import Enforced, Finding, Level, Target, UserSpec
from adapters.mysql_family import MySQLFamily
from adapters.mysql_family.connection import Connection, Server, account
from adapters.mysql_family.dialect import Dialect
from adapters.mysql_family.levels import kept_role
from adapters.mysql_family.rights import has_right, right

SSL_MODES = {
    "disable": "DISABLED",
    "prefer": "PREFERRED",
    "require": "REQUIRED",
    "verify-ca": "VERIFY_CA",
    "verify-full": "VERIFY_IDENTITY",
}


class MySQLDialect(Dialect):
    """Implements ``adapters.mysql_family.dialect.Dialect``."""

    label = "MySQL"
    identity = "@@server_uuid"
    read_only = ("read_only", "super_read_only")
    further_limits = ()
    rights = (
        ("CREATE USER", "make and drop users"),
        ("PROCESS", "see whose sessions are open"),
        ("CONNECTION_ADMIN", "end sessions"),
    )
    definer_rights = ("ALLOW_NONEXISTENT_DEFINER", "SET_ANY_DEFINER", "SET_USER_ID")
    marks_accounts = True
    login_plugin = "caching_sha2_password"

    def password_clause(self, connection: Connection, password: str) -> str:
        """The server's logs show ``<secret>`` in its place."""
        return f"IDENTIFIED WITH {self.login_plugin} BY {connection.literal(password)}"

    def mark_clause(self, connection: Connection, target: Target, spec: UserSpec) -> str:
        """``ATTRIBUTE``: readable by the bot in information_schema.user_attributes."""
        mark = {"dbaccess": {"ledger": target.ledger, "request": spec.request_id}}
        return f"ATTRIBUTE {connection.literal(json.dumps(mark))}"

    def set_default_role(self, connection: Connection, target: Target, username: str, role: str) -> None:  # noqa: ARG002 - MariaDB's needs the target
        """Part of ALTER USER, which CREATE USER gives."""
        connection.run(f"ALTER USER {account(username)} DEFAULT ROLE {self.role(role)}")

    def accounts(
        self, connection: Connection, target: Target, username: str | None
    ) -> list[tuple[str, str, tuple[str, int] | None]]:
        """By information_schema.user_attributes, which has every account."""
        length, prefix = len(target.prefix), connection.literal(target.prefix)
        which = f"LEFT(user, {length}) = {prefix}" if username is None else f"user = {connection.literal(username)}"
        rows = connection.run(f"SELECT user, host, attribute FROM information_schema.user_attributes WHERE {which}")
        return [(user, host, _mark(attribute)) for user, host, attribute in rows]

    def role(self, name: str) -> str:
        """Roles are accounts of any host."""
        return account(name)

    def is_role(self, connection: Connection, name: str) -> bool:
        """A role is an account that is locked: CREATE ROLE makes it so."""
        query = f"SELECT account_locked FROM mysql.user WHERE user = {connection.literal(name)} AND host = '%'"
        return bool(connection.value(query) == "Y")

    def role_members(self, connection: Connection, role: str) -> list[str]:
        """By mysql.role_edges."""
        return connection.column(f"SELECT to_user FROM mysql.role_edges WHERE from_user = {connection.literal(role)}")

    def roles_below(self, connection: Connection, role: str) -> list[str]:
        """By mysql.role_edges."""
        return connection.column(f"SELECT from_user FROM mysql.role_edges WHERE to_user = {connection.literal(role)}")

    def findings(self, server: Server, connection: Connection, levels: Sequence[Level]) -> Iterator[Finding]:
        """ROLE_ADMIN, where roles are kept."""
        if any(kept_role(server.target, level) for level in levels):
            yield right(
                connection, "ROLE_ADMIN", "give the roles it keeps for levels", has_right(connection, "ROLE_ADMIN")
            )

    def command(self, host: str, port: int, database: str, tls: str) -> str:
        """For the client that comes with MySQL."""
        words = ["mysql", f"--host={quote(host)}", f"--port={port}", "--user={username}", "--password={password}"]
        return " ".join([*words, f"--ssl-mode={SSL_MODES[tls]}", *([quote(database)] if database else [])])


def _mark(attribute: str | None) -> tuple[str, int] | None:
    try:
        mark = json.loads(attribute or "{}").get("dbaccess") or {}
        return str(mark["ledger"]), int(mark["request"])
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


class MySQL(MySQLFamily):
    """Implements ``adapters.base.Adapter``."""

    label: ClassVar[str] = "MySQL"
    enforces: ClassVar[Enforced] = Enforced.SESSIONS
    dialect: ClassVar[Dialect] = MySQLDialect()
