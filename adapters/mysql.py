"""MySQL 8.0.22 and later, as target. The server ends login and sessions by itself, by an event of its own per user."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from shlex import quote
from typing import ClassVar

import pymysql

from adapters.base import Enforced, Finding, Level, Target
from adapters.mysql_family import MySQLFamily
from adapters.mysql_family.connection import Connection, Server, account
from adapters.mysql_family.dialect import Dialect
from adapters.mysql_family.errors import NO_RIGHT, code
from adapters.mysql_family.levels import kept_role
from adapters.mysql_family.locks import Holder
from adapters.mysql_family.rights import fatal, has_right, right, warning, whoami

HOLDERS = """SELECT DISTINCT t.processlist_id, t.processlist_user, h.what FROM (
  SELECT owner_thread_id AS thread, IFNULL(CONCAT(object_schema, '.', object_name), CONCAT('the ', LOWER(object_type), ' of the server')) AS what
  FROM performance_schema.metadata_locks WHERE lock_status = 'GRANTED' AND (
    (object_type IN ('GLOBAL', 'COMMIT', 'BACKUP LOCK') AND lock_type = 'SHARED')
    OR (object_type = 'TABLE' AND object_schema = 'mysql' AND lock_type IN ('SHARED_READ_ONLY', 'SHARED_NO_WRITE', 'SHARED_NO_READ_WRITE', 'EXCLUSIVE')))
  UNION ALL
  SELECT thread_id, CONCAT('rows of ', object_schema, '.', object_name)
  FROM performance_schema.data_locks WHERE lock_status = 'GRANTED' AND object_schema = 'mysql' AND lock_mode LIKE 'X%'
) h LEFT JOIN performance_schema.threads t ON t.thread_id = h.thread
WHERE t.processlist_user IS NULL OR t.processlist_user <> SUBSTRING_INDEX(USER(), '@', 1)"""
"""What ALTER USER, DROP USER and events wait for. A lock of no session is that of a prepared XA transaction."""

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
    login_plugin = "caching_sha2_password"
    lock_limits = ("lock_wait_timeout", "innodb_lock_wait_timeout")
    shows_holders = "GRANT SELECT ON performance_schema.* TO the bot"

    def password_clause(self, connection: Connection, password: str) -> str:
        """The server's logs show ``<secret>`` in its place."""
        return f"IDENTIFIED WITH {self.login_plugin} BY {connection.literal(password)}"

    def run_briefly(self, connection: Connection, statement: str, seconds: int) -> None:
        """Locks on tables and on rows."""
        connection.wait_for_locks(seconds)
        connection.run(statement)

    def holders(self, connection: Connection) -> list[Holder] | None:
        """By performance_schema, which the bot may read where it was given SELECT on it."""
        try:
            rows = connection.run(HOLDERS)
        except pymysql.MySQLError as error:
            if code(error) not in NO_RIGHT:
                raise
            return None
        return [Holder(session=session, user=user or "nobody", what=what) for session, user, what in rows]

    def prepared(self, connection: Connection) -> list[str]:
        """With XA_RECOVER_ADMIN."""
        return [_xid(*row) for row in connection.run("XA RECOVER CONVERT XID")]

    def set_default_role(self, connection: Connection, target: Target, username: str, role: str) -> None:  # noqa: ARG002 - MariaDB's needs the target
        """Part of ALTER USER, which CREATE USER gives."""
        connection.run(f"ALTER USER {account(username)} DEFAULT ROLE {self.role(role)}")

    def accounts(
        self, connection: Connection, target: Target, username: str | None
    ) -> list[tuple[str, str, tuple[str, int] | None]]:
        """By information_schema.user_attributes, which has every account. The attribute is the mark that older versions made; MySQL lets a user change its own."""
        length, prefix = len(target.prefix), connection.literal(target.prefix)
        which = f"LEFT(user, {length}) = {prefix}" if username is None else f"user = {connection.literal(username)}"
        rows = connection.run(f"SELECT user, host, attribute FROM information_schema.user_attributes WHERE {which}")
        return [(user, host, _mark(attribute)) for user, host, attribute in rows]

    def unfit(self, connection: Connection) -> tuple[str, str] | None:
        """Every account may give PROXY on itself to every other, the bot: with this on, each login of the bot would become the temporary user."""
        if not connection.value("SELECT @@check_proxy_users"):
            return None
        what = "the server maps proxy users (check_proxy_users): a temporary user could take the place of the bot's own login"
        return what, "SET PERSIST check_proxy_users = OFF;"

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
        """ROLE_ADMIN, where roles are kept; and whether the bot sees what an end should tell."""
        if (why := self.unfit(connection)) is not None:
            yield fatal(*why)
        if not has_right(connection, "XA_RECOVER_ADMIN"):
            remedy = f"GRANT XA_RECOVER_ADMIN ON *.* TO {whoami(connection)};"
            yield warning(
                "the bot cannot see prepared XA transactions, which outlive their user: no receipt names one", remedy
            )
        if self.holders(connection) is None:
            remedy = f"GRANT SELECT ON performance_schema.* TO {whoami(connection)};"
            yield warning(
                "the bot cannot see who holds a lock: an end that waits for one could not name the connection", remedy
            )
        if any(kept_role(server.target, level) for level in levels):
            yield right(
                connection, "ROLE_ADMIN", "give the roles it keeps for levels", has_right(connection, "ROLE_ADMIN")
            )

    def command(self, host: str, port: int, database: str, tls: str) -> str:
        """For the client that comes with MySQL."""
        words = ["mysql", f"--host={quote(host)}", f"--port={port}", "--user={username}", "--password={password}"]
        return " ".join([*words, f"--ssl-mode={SSL_MODES[tls]}", *([quote(database)] if database else [])])


def _xid(number: int, length: int, _: int, data: str) -> str:
    """``X'78',X'',1``: both parts may hold any bytes."""
    digits = data.removeprefix("0x")
    return f"X'{digits[: 2 * length]}',X'{digits[2 * length :]}',{number}"


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
