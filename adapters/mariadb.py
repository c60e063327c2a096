"""MariaDB 10.6 and later, as target. With its event scheduler on, the server ends login and sessions by itself."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from shlex import quote
from typing import ClassVar

import pymysql

from adapters.base import Enforced, Finding, Level, Rejected, Target
from adapters.mysql_family import MySQLFamily
from adapters.mysql_family.connection import Connection, Server, quoted, shown
from adapters.mysql_family.dialect import Dialect
from adapters.mysql_family.errors import NO_RIGHT, code
from adapters.mysql_family.levels import kept_role
from adapters.mysql_family.locks import Holder
from adapters.mysql_family.rights import fatal, ok, whoami

PROCEDURE = "set_default_role"
NO_PROCEDURE = frozenset({1305, 1370, 1142, 1044})
SIGNALLED = 1644

NO_SUCH_TABLE = frozenset({1109, 1146, *NO_RIGHT})
HOLDERS = """SELECT DISTINCT p.id, p.user, IF(l.table_name = '', 'the backup lock', CONCAT(l.table_schema, '.', l.table_name))
FROM information_schema.metadata_lock_info l JOIN information_schema.processlist p ON p.id = l.thread_id
WHERE p.user <> SUBSTRING_INDEX(USER(), '@', 1) AND p.command <> 'Daemon' AND (
  (l.table_schema = 'mysql' AND l.lock_type = 'Table metadata lock')
  OR l.lock_mode LIKE 'MDL_BACKUP_FTWRL%' OR l.lock_mode LIKE 'MDL_BACKUP_WAIT%' OR l.lock_mode LIKE 'MDL_BACKUP_BLOCK%')"""

MAKE_PROCEDURE = """CREATE OR REPLACE PROCEDURE {schema}.set_default_role(u VARCHAR(128), r VARCHAR(128)) SQL SECURITY DEFINER
BEGIN
  IF LEFT(u, {length}) <> '{prefix}' OR (r NOT IN ({roles}) AND LEFT(r, 9) <> 'dbaccess_') THEN
    SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'dbaccess may not set this default role';
  END IF;
  EXECUTE IMMEDIATE CONCAT('SET DEFAULT ROLE ', QUOTE(r), ' FOR ', QUOTE(u), '@''%''');
END"""


class MariaDBDialect(Dialect):
    """Implements ``adapters.mysql_family.dialect.Dialect``."""

    label = "MariaDB"
    identity = "@@server_uid"
    read_only = ("read_only",)
    further_limits = ("max_statement_time",)
    rights = (
        ("CREATE USER", "make and drop users"),
        ("PROCESS", "see whose sessions are open"),
        ("CONNECTION ADMIN", "end sessions"),
    )
    definer_rights = ()
    login_plugin = "mysql_native_password"
    lock_limits = ("lock_wait_timeout",)
    shows_holders = "INSTALL SONAME 'metadata_lock_info'"

    def password_clause(self, connection: Connection, password: str) -> str:
        """Hashed by us: MariaDB writes CREATE USER to its logs as it came."""
        # The server's own scheme (double SHA-1), no choice of ours.
        digest = hashlib.sha1(hashlib.sha1(password.encode(), usedforsecurity=False).digest(), usedforsecurity=False)
        return f"IDENTIFIED VIA {self.login_plugin} USING {connection.literal('*' + digest.hexdigest().upper())}"

    def run_briefly(self, connection: Connection, statement: str, seconds: int) -> None:
        """By max_statement_time: lock_wait_timeout does not count for the tables of accounts, which are Aria's."""
        limits = f"max_statement_time = {seconds}, lock_wait_timeout = {seconds}"
        connection.run(f"SET STATEMENT {limits} FOR {statement}")

    def holders(self, connection: Connection) -> list[Holder] | None:
        """By the plugin metadata_lock_info, where somebody installed it."""
        try:
            rows = connection.run(HOLDERS)
        except pymysql.MySQLError as error:
            if code(error) not in NO_SUCH_TABLE:
                raise
            return None
        return [Holder(session=session, user=user, what=what) for session, user, what in rows]

    def prepared(self, connection: Connection) -> list[str]:
        """Everybody sees them."""
        return [str(row[-1]) for row in connection.run("XA RECOVER FORMAT='SQL'")]

    def set_default_role(self, connection: Connection, target: Target, username: str, role: str) -> None:
        """By the DBA's procedure: the bot itself would need UPDATE on all of ``mysql``."""
        call = (
            f"CALL {quoted(target.ops_schema)}.{PROCEDURE}({connection.literal(username)}, {connection.literal(role)})"
        )
        try:
            connection.run(call)
        except pymysql.MySQLError as error:
            number = error.args[0] if error.args else 0
            name = f"{target.ops_schema}.{PROCEDURE}"
            if number == SIGNALLED:
                raise Rejected(
                    f"{name} does not allow the role {role}", remedy="run dbaccess doctor: it prints the procedure anew"
                ) from None
            if number in NO_PROCEDURE:
                raise Rejected(
                    f"{name} is missing, or the bot may not call it",
                    remedy="run dbaccess doctor: it prints the procedure",
                ) from None
            raise

    def accounts(
        self, connection: Connection, target: Target, username: str | None
    ) -> list[tuple[str, str, tuple[str, int] | None]]:
        """By mysql.user; the mark comes from the event."""
        length, prefix = len(target.prefix), connection.literal(target.prefix)
        which = f"LEFT(user, {length}) = {prefix}" if username is None else f"user = {connection.literal(username)}"
        rows = connection.run(f"SELECT user, host FROM mysql.user WHERE {which}")
        return [(user, host, None) for user, host in rows]

    def unfit(self, connection: Connection) -> tuple[str, str] | None:  # noqa: ARG002 - MySQL's asks the server
        """PROXY counts here for logins by a plugin that maps users, which the bot's is not."""
        return None

    def role(self, name: str) -> str:
        """Roles have no host."""
        return quoted(name)

    def is_role(self, connection: Connection, name: str) -> bool:
        """By mysql.user."""
        query = f"SELECT is_role FROM mysql.user WHERE user = {connection.literal(name)} AND host = ''"
        return bool(connection.value(query) == "Y")

    def role_members(self, connection: Connection, role: str) -> list[str]:
        """By mysql.roles_mapping; who made a role has it with admin option."""
        query = f"SELECT user FROM mysql.roles_mapping WHERE role = {connection.literal(role)} AND admin_option = 'N'"
        return connection.column(query)

    def roles_below(self, connection: Connection, role: str) -> list[str]:
        """By mysql.roles_mapping."""
        query = f"SELECT role FROM mysql.roles_mapping WHERE user = {connection.literal(role)} AND host = ''"
        return connection.column(query)

    def findings(self, server: Server, connection: Connection, levels: Sequence[Level]) -> Iterator[Finding]:
        """The procedure that sets default roles."""
        schema = server.target.ops_schema
        query = (
            "SELECT security_type FROM information_schema.routines"
            f" WHERE routine_schema = {connection.literal(schema)} AND routine_name = '{PROCEDURE}'"
        )
        if connection.value(query) == "DEFINER":
            yield ok(f"{schema}.{PROCEDURE} is there and may be called")
        else:
            yield fatal(
                f"{schema}.{PROCEDURE} is missing, or the bot may not call it (EXECUTE): without it a role does not count from login on",
                procedure(server, connection, levels),
            )

    def command(self, host: str, port: int, database: str, tls: str) -> str:
        """For the client that comes with MariaDB."""
        words = ["mariadb", f"--host={quote(host)}", f"--port={port}", "--user={username}", "--password={password}"]
        further = {"disable": ["--skip-ssl"], "prefer": [], "require": ["--ssl"]}.get(tls, ["--ssl-verify-server-cert"])
        return " ".join([*words, *further, *([quote(database)] if database else [])])


def procedure(server: Server, connection: Connection, levels: Sequence[Level]) -> str:
    """Ready to paste by a DBA with all rights: it can do one thing, for our users and these roles."""
    target = server.target
    roles = sorted({role for level in levels for role in level.roles if kept_role(target, level) is None})
    listed = ", ".join(connection.literal(role) for role in roles) or "''"
    made = MAKE_PROCEDURE.format(
        schema=shown(target.ops_schema), length=len(target.prefix), prefix=target.prefix, roles=listed
    )
    grant = f"GRANT EXECUTE ON PROCEDURE {shown(target.ops_schema)}.{PROCEDURE} TO {whoami(connection)}"
    return f"CREATE DATABASE IF NOT EXISTS {shown(target.ops_schema)};\nDELIMITER //\n{made} //\nDELIMITER ;\n{grant};"


class MariaDB(MySQLFamily):
    """Implements ``adapters.base.Adapter``."""

    label: ClassVar[str] = "MariaDB"
    enforces: ClassVar[Enforced] = Enforced.NOTHING
    dialect: ClassVar[Dialect] = MariaDBDialect()
