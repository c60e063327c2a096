"""The differences of MySQL. Its event scheduler is on by default, so the server itself ends logins and sessions."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from shlex import quote

import pymysql

from adapters.base import Finding, Level, Target
from adapters.mysql.connection import MySQLConnection, account, literal_list, names_condition
from adapters.mysql.dialect import Dialect, LockHolder
from adapters.mysql.errors import NO_RIGHT, code
from adapters.mysql.levels import managed_role
from adapters.mysql.rights import fatal, has_right, right, warning, whoami

LOCK_HOLDERS = """SELECT DISTINCT t.processlist_id, t.processlist_user, h.what FROM (
  SELECT owner_thread_id AS thread, IFNULL(CONCAT(object_schema, '.', object_name), CONCAT('the ', LOWER(object_type), ' of the server')) AS what
  FROM performance_schema.metadata_locks WHERE lock_status = 'GRANTED' AND (
    (object_type IN ('GLOBAL', 'COMMIT', 'BACKUP LOCK') AND lock_type = 'SHARED')
    OR (object_type = 'TABLE' AND object_schema = 'mysql' AND lock_type IN ('SHARED_READ_ONLY', 'SHARED_NO_WRITE', 'SHARED_NO_READ_WRITE', 'EXCLUSIVE')))
  UNION ALL
  SELECT thread_id, CONCAT('rows of ', object_schema, '.', object_name)
  FROM performance_schema.data_locks WHERE lock_status = 'GRANTED' AND object_schema = 'mysql' AND lock_mode NOT LIKE 'I%'
) h LEFT JOIN performance_schema.threads t ON t.thread_id = h.thread
WHERE t.processlist_user IS NULL OR t.processlist_user <> SUBSTRING_INDEX(USER(), '@', 1)"""
"""Holders of the locks that ALTER USER, DROP USER and changes of events wait for. A lock without a session belongs to a prepared XA transaction."""

SSL_MODES = {
    "disable": "DISABLED",
    "prefer": "PREFERRED",
    "require": "REQUIRED",
    "verify-ca": "VERIFY_CA",
    "verify-full": "VERIFY_IDENTITY",
}


class MySQLDialect(Dialect):
    """Implements ``adapters.mysql.dialect.Dialect`` for MySQL."""

    label = "MySQL"
    oldest_version = (8, 4)
    identity = "@@server_uuid"
    identity_since = "5.6"
    read_only = ("read_only", "super_read_only")
    further_limits = ()
    rights = (
        ("CREATE USER", "create and drop users"),
        ("PROCESS", "see whose sessions are open"),
        ("CONNECTION_ADMIN", "end sessions"),
    )
    kill_right = "CONNECTION_ADMIN"
    definer_rights = ("ALLOW_NONEXISTENT_DEFINER", "SET_ANY_DEFINER")
    login_plugin = "caching_sha2_password"
    way_in = "set admin_address in the server's configuration and its port (admin_port) in the admin URL"
    settings: Mapping[str, str] = {
        "max_execution_time": "0",
        "transaction_isolation": "'REPEATABLE-READ'",
        "transaction_read_only": "0",
    }
    lock_limits = ("lock_wait_timeout", "innodb_lock_wait_timeout")
    shows_lock_holders = "GRANT SELECT ON performance_schema.* TO the bot"

    def password_clause(self, connection: MySQLConnection, password: str) -> str:
        """In clear: the server's logs show ``<secret>`` instead."""
        return f"IDENTIFIED WITH {self.login_plugin} BY {connection.literal(password)}"

    def run_with_lock_limit(self, connection: MySQLConnection, statement: str, seconds: int) -> None:
        """The limit counts for locks on tables and on rows."""
        connection.set_lock_limit(seconds)
        connection.run(statement)

    def has_wildcards(self, connection: MySQLConnection) -> bool:
        """Not with partial_revokes."""
        return not connection.value("SELECT @@partial_revokes")

    def with_time_limit(self, query: str, seconds: int) -> str:
        """By a hint. The server counts it for SELECT alone."""
        return query.replace("SELECT ", f"SELECT /*+ MAX_EXECUTION_TIME({seconds * 1000}) */ ", 1)

    def prepare_kills(self, connection: MySQLConnection) -> None:
        """Activate all roles of the bot. A session with a role has its own copy of its rights.

        Without one, KILL reads the cache of accounts while it holds a lock of the session that it kills, and a session that changes its
        password again and again holds the cache: both wait for ever (measured on MySQL 9.7: the 11th KILL, against none of 390).
        """
        with suppress(pymysql.MySQLError):
            connection.run("SET ROLE ALL")

    def active_roles(self, connection: MySQLConnection) -> str:
        """As CURRENT_ROLE() lists them."""
        return str(connection.value("SELECT CURRENT_ROLE()"))

    def transactions_of(self, connection: MySQLConnection, username: str) -> list[str]:
        """From performance_schema. Names that are not printable are left out: the server shows them as text that another name may have."""
        query = (
            "SELECT e.xid_gtrid, e.xid_bqual, e.xid_format_id FROM performance_schema.events_transactions_current e"
            " JOIN performance_schema.threads t USING (thread_id) WHERE e.xa_state <> 'COMMITTED'"
            f" AND t.processlist_user = {connection.literal(username)}"
        )
        rows = [row for row in connection.run(query) if not any(part.startswith("0x") for part in row[:2] if part)]
        return [f"{connection.literal(g)},{connection.literal(b or '')},{number}" for g, b, number in rows]

    def lock_holders(self, connection: MySQLConnection) -> list[LockHolder] | None:
        """From performance_schema, on which the bot needs SELECT."""
        try:
            rows = connection.run(LOCK_HOLDERS)
        except pymysql.MySQLError as error:
            if code(error) not in NO_RIGHT:
                raise
            return None
        return [LockHolder(session=session, user=user or "nobody", what=what) for session, user, what in rows]

    def is_replica(self, connection: MySQLConnection) -> bool:
        """By its replication channels, or by its running threads where the bot may not see these. Members of a replication group are no replicas."""
        channels = "SELECT channel_name FROM performance_schema.replication_connection_configuration"
        try:
            return any(not name.startswith("group_replication_") for name in connection.column(channels))
        except pymysql.MySQLError as error:
            if code(error) not in NO_RIGHT:
                raise
        threads = "SELECT 1 FROM information_schema.processlist WHERE user = 'system user' AND command <> 'Daemon'"
        return connection.value(threads) is not None

    def prepared_transactions(self, connection: MySQLConnection) -> list[str]:
        """From XA RECOVER, for which the bot needs XA_RECOVER_ADMIN."""
        return [_xid(*row) for row in connection.run("XA RECOVER CONVERT XID")]

    def set_default_role(self, connection: MySQLConnection, target: Target, username: str, role: str) -> None:  # noqa: ARG002 - MariaDB needs the target
        """By ALTER USER. The right CREATE USER is enough for it."""
        connection.run(f"ALTER USER {account(username)} DEFAULT ROLE {self.quoted_role(role)}")

    def accounts(
        self, connection: MySQLConnection, target: Target, usernames: Sequence[str] | None
    ) -> list[tuple[str, str, tuple[str, int] | None]]:
        """From information_schema.user_attributes, which lists every account.

        Older versions of dbaccess kept the mark in the attribute. MySQL lets a user change its own attribute.
        """
        which = names_condition(connection, "user", usernames, target.prefix)
        rows = connection.run(f"SELECT user, host, attribute FROM information_schema.user_attributes WHERE {which}")
        return [(user, host, _mark(attribute)) for user, host, attribute in rows]

    def unlocked(self, connection: MySQLConnection, usernames: Sequence[str]) -> list[str]:
        """From mysql.user."""
        which = f"user IN ({literal_list(connection, usernames)}) AND host = '%'"
        return connection.column(f"SELECT user FROM mysql.user WHERE {which} AND account_locked <> 'Y'")

    def unsafe_setting(self, connection: MySQLConnection) -> tuple[str, str] | None:
        """check_proxy_users. Every account may grant PROXY on itself to the bot; with this setting each login of the bot would then become the temporary user."""
        if not connection.value("SELECT @@check_proxy_users"):
            return None
        reason = "the server maps proxy users (check_proxy_users): a temporary user could take the place of the bot's own login"
        return reason, "SET PERSIST check_proxy_users = OFF;"

    def quoted_role(self, name: str) -> str:
        """A role is an account with the host ``%``."""
        return account(name)

    def is_role(self, connection: MySQLConnection, name: str) -> bool:
        """From mysql.user. CREATE ROLE creates a locked account."""
        query = f"SELECT account_locked FROM mysql.user WHERE user = {connection.literal(name)} AND host = '%'"
        return bool(connection.value(query) == "Y")

    def roles_named(self, connection: MySQLConnection, prefix: str) -> list[str]:
        """From mysql.user: accounts that are locked and have no password."""
        which = f"LEFT(user, {len(prefix)}) = {connection.literal(prefix)} AND host = '%'"
        return connection.column(
            f"SELECT user FROM mysql.user WHERE {which} AND account_locked = 'Y' AND authentication_string = ''"
        )

    def role_members(self, connection: MySQLConnection, role: str) -> list[str]:
        """From mysql.role_edges."""
        return connection.column(f"SELECT to_user FROM mysql.role_edges WHERE from_user = {connection.literal(role)}")

    def roles_below(self, connection: MySQLConnection, role: str) -> list[str]:
        """From mysql.role_edges."""
        return connection.column(f"SELECT from_user FROM mysql.role_edges WHERE to_user = {connection.literal(role)}")

    def findings(self, target: Target, connection: MySQLConnection, levels: Sequence[Level]) -> Iterator[Finding]:
        """Unsafe settings, ROLE_ADMIN for managed roles, and whether the bot sees prepared transactions and holders of locks."""
        if (unsafe := self.unsafe_setting(connection)) is not None:
            yield fatal(*unsafe)
        if not connection.run("SELECT 1 FROM information_schema.applicable_roles LIMIT 1"):
            what = "the bot has no role: a user that changes its password without pause can hold up the end of its sessions"
            yield warning(what, f"CREATE ROLE dbaccess_ends; GRANT dbaccess_ends TO {whoami(connection)};")
        if not has_right(connection, "XA_RECOVER_ADMIN"):
            remedy = f"GRANT XA_RECOVER_ADMIN ON *.* TO {whoami(connection)};"
            what = "the bot cannot see prepared XA transactions: they outlive their user, and no receipt names them"
            yield warning(what, remedy)
        if self.lock_holders(connection) is None:
            remedy = f"GRANT SELECT ON performance_schema.* TO {whoami(connection)};"
            what = (
                "the bot cannot see who holds a lock: if a revocation waits for a lock, it cannot name the connection"
            )
            yield warning(what, remedy)
        if any(managed_role(target, level) for level in levels):
            is_held = has_right(connection, "ROLE_ADMIN")
            yield right(connection, "ROLE_ADMIN", "grant the roles that it manages for levels", is_held)

    def login_command(self, host: str, port: int, database: str, tls: str) -> str:
        """For MySQL's own client."""
        command = ["mysql", f"--host={quote(host)}", f"--port={port}", "--user={username}", "--password={password}"]
        return " ".join([*command, f"--ssl-mode={SSL_MODES[tls]}", *([quote(database)] if database else [])])


def _xid(number: int, length: int, _: int, data: str) -> str:
    """``X'78',X'',1``: global part, branch and format. Both parts may contain any bytes, so they are written in hex."""
    digits = data.removeprefix("0x")
    return f"X'{digits[: 2 * length]}',X'{digits[2 * length :]}',{number}"


def _mark(attribute: str | None) -> tuple[str, int] | None:
    try:
        mark = json.loads(attribute or "{}").get("dbaccess") or {}
        return str(mark["ledger"]), int(mark["request"])
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
