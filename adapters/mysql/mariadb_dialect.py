"""The differences of MariaDB. The server itself ends logins and sessions only where its event scheduler was switched on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from shlex import quote

import pymysql

from adapters.base import Finding, Level, Rejected, Target
from adapters.mysql.connection import MySQLConnection, literal_list, names_condition, quoted, quoted_if_needed
from adapters.mysql.dialect import Dialect, LockHolder
from adapters.mysql.errors import NO_RIGHT, code
from adapters.mysql.levels import managed_role
from adapters.mysql.rights import fatal, ok, whoami

PROCEDURE = "set_default_role"
PROCEDURE_MISSING = frozenset({1305, 1370, 1142, 1044})
SIGNALLED = 1644

NO_SUCH_TABLE = frozenset({1109, 1146, *NO_RIGHT})
LOCK_HOLDERS = """SELECT DISTINCT p.id, p.user, IF(l.table_name = '', 'the backup lock', CONCAT(l.table_schema, '.', l.table_name))
FROM information_schema.metadata_lock_info l JOIN information_schema.processlist p ON p.id = l.thread_id
WHERE p.user <> SUBSTRING_INDEX(USER(), '@', 1) AND p.command <> 'Daemon' AND (
  (l.table_schema = 'mysql' AND l.lock_type = 'Table metadata lock')
  OR l.lock_mode LIKE 'MDL_BACKUP_FTWRL%' OR l.lock_mode LIKE 'MDL_BACKUP_WAIT%' OR l.lock_mode LIKE 'MDL_BACKUP_BLOCK%')"""

CREATE_PROCEDURE = """CREATE OR REPLACE PROCEDURE {schema}.set_default_role(u VARCHAR(128), r VARCHAR(128)) SQL SECURITY DEFINER
BEGIN
  IF LEFT(u, {length}) <> '{prefix}' OR (r NOT IN ({roles}) AND LEFT(r, 9) <> 'dbaccess_') THEN
    SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'dbaccess may not set this default role';
  END IF;
  EXECUTE IMMEDIATE CONCAT('SET DEFAULT ROLE ', QUOTE(r), ' FOR ', QUOTE(u), '@''%''');
END"""


class MariaDBDialect(Dialect):
    """Implements ``adapters.mysql.dialect.Dialect`` for MariaDB."""

    label = "MariaDB"
    oldest_version = (10, 11)
    identity = "@@server_uid"
    identity_since = "10.11.9, 11.4.3"  # releases of August 2024; earlier ones of both series lack the variable
    read_only = ("read_only",)
    further_limits = ("max_statement_time",)
    rights = (
        ("CREATE USER", "create and drop users"),
        ("PROCESS", "see whose sessions are open"),
        ("CONNECTION ADMIN", "end sessions"),
    )
    kill_right = "CONNECTION ADMIN"
    definer_rights = ()
    login_plugin = "mysql_native_password"
    way_in = "set extra_port in the server's configuration and that port in the admin URL"
    settings: Mapping[str, str] = {
        "max_statement_time": "0",
        "tx_isolation": "'REPEATABLE-READ'",
        "tx_read_only": "0",
        "sql_if_exists": "0",
    }
    lock_limits = ("lock_wait_timeout",)
    shows_lock_holders = "INSTALL SONAME 'metadata_lock_info'"

    def password_clause(self, connection: MySQLConnection, password: str) -> str:
        """As a hash: MariaDB writes the text of CREATE USER to its logs unchanged."""
        # The scheme is the server's own (double SHA-1).
        digest = hashlib.sha1(hashlib.sha1(password.encode(), usedforsecurity=False).digest(), usedforsecurity=False)
        return f"IDENTIFIED VIA {self.login_plugin} USING {connection.literal('*' + digest.hexdigest().upper())}"

    def run_with_lock_limit(self, connection: MySQLConnection, statement: str, seconds: int) -> None:
        """By max_statement_time too: lock_wait_timeout has no effect on the tables of accounts, whose storage engine is Aria."""
        limits = f"max_statement_time = {seconds}, lock_wait_timeout = {seconds}"
        connection.run(f"SET STATEMENT {limits} FOR {statement}")

    def has_wildcards(self, connection: MySQLConnection) -> bool:  # noqa: ARG002 - MySQL asks the server
        """Always."""
        return True

    def with_time_limit(self, query: str, seconds: int) -> str:
        """By SET STATEMENT."""
        return f"SET STATEMENT max_statement_time = {seconds} FOR {query}"

    def prepare_kills(self, connection: MySQLConnection) -> None:
        """Nothing: KILL does not wait for changes of accounts here."""

    def active_roles(self, connection: MySQLConnection) -> str:
        """A session has one role at most."""
        role = connection.value("SELECT CURRENT_ROLE()")
        return quoted(role) if role else "NONE"

    def transactions_of(self, connection: MySQLConnection, username: str) -> list[str]:  # noqa: ARG002 - MySQL asks the server
        """Empty: the server does not show whose a transaction is."""
        return []

    def lock_holders(self, connection: MySQLConnection) -> list[LockHolder] | None:
        """From the plugin metadata_lock_info, where it is installed."""
        try:
            rows = connection.run(LOCK_HOLDERS)
        except pymysql.MySQLError as error:
            if code(error) not in NO_SUCH_TABLE:
                raise
            return None
        return [LockHolder(session=session, user=user, what=what) for session, user, what in rows]

    def is_replica(self, connection: MySQLConnection) -> bool:
        """By its running threads of replication."""
        threads = "SELECT 1 FROM information_schema.processlist WHERE command IN ('Slave_IO', 'Slave_SQL')"
        return connection.value(threads) is not None

    def prepared_transactions(self, connection: MySQLConnection) -> list[str]:
        """From XA RECOVER, which every account may run."""
        return [str(row[-1]) for row in connection.run("XA RECOVER FORMAT='SQL'")]

    def set_default_role(self, connection: MySQLConnection, target: Target, username: str, role: str) -> None:
        """By the DBA's procedure: without it the bot would need UPDATE on all of ``mysql``."""
        call = (
            f"CALL {quoted(target.ops_schema)}.{PROCEDURE}({connection.literal(username)}, {connection.literal(role)})"
        )
        try:
            connection.run(call)
        except pymysql.MySQLError as error:
            number = error.args[0] if error.args else 0
            name = f"{target.ops_schema}.{PROCEDURE}"
            if number == SIGNALLED:
                remedy = "run dbaccess doctor: it prints the procedure with today's roles"
                raise Rejected(f"{name} does not allow the role {role}", remedy=remedy) from None
            if number in PROCEDURE_MISSING:
                raise Rejected(
                    f"{name} is missing, or the bot may not call it",
                    remedy="run dbaccess doctor: it prints the procedure",
                ) from None
            raise

    def accounts(
        self, connection: MySQLConnection, target: Target, usernames: Sequence[str] | None
    ) -> list[tuple[str, str, tuple[str, int] | None]]:
        """From mysql.user. Accounts carry no mark here; the mark is in the event."""
        which = names_condition(connection, "user", usernames, target.prefix)
        rows = connection.run(f"SELECT user, host FROM mysql.user WHERE {which}")
        return [(user, host, None) for user, host in rows]

    def unlocked(self, connection: MySQLConnection, usernames: Sequence[str]) -> list[str]:
        """From mysql.global_priv: mysql.user does not show it."""
        which = f"user IN ({literal_list(connection, usernames)}) AND host = '%'"
        is_locked = "COALESCE(JSON_VALUE(priv, '$.account_locked'), '0') IN ('1', 'true')"
        return connection.column(f"SELECT user FROM mysql.global_priv WHERE {which} AND NOT {is_locked}")

    def unsafe_setting(self, connection: MySQLConnection) -> tuple[str, str] | None:  # noqa: ARG002 - MySQL asks the server
        """None. PROXY counts here only for logins by a plugin that maps users, and the bot does not log in by one."""
        return None

    def quoted_role(self, name: str) -> str:
        """A role has no host."""
        return quoted(name)

    def is_role(self, connection: MySQLConnection, name: str) -> bool:
        """From mysql.user."""
        query = f"SELECT is_role FROM mysql.user WHERE user = {connection.literal(name)} AND host = ''"
        return bool(connection.value(query) == "Y")

    def roles_named(self, connection: MySQLConnection, prefix: str) -> list[str]:
        """From mysql.user."""
        which = f"LEFT(user, {len(prefix)}) = {connection.literal(prefix)}"
        return connection.column(f"SELECT user FROM mysql.user WHERE {which} AND is_role = 'Y'")

    def role_members(self, connection: MySQLConnection, role: str) -> list[str]:
        """From mysql.roles_mapping, without the creator of the role, who has it with admin option."""
        query = f"SELECT user FROM mysql.roles_mapping WHERE role = {connection.literal(role)} AND admin_option = 'N'"
        return connection.column(query)

    def roles_below(self, connection: MySQLConnection, role: str) -> list[str]:
        """From mysql.roles_mapping."""
        query = f"SELECT role FROM mysql.roles_mapping WHERE user = {connection.literal(role)} AND host = ''"
        return connection.column(query)

    def findings(self, target: Target, connection: MySQLConnection, levels: Sequence[Level]) -> Iterator[Finding]:
        """Whether the server accepts hashes of passwords, and whether the procedure that sets default roles exists and may be called."""
        validating = "SELECT plugin_name FROM information_schema.plugins WHERE plugin_type = 'PASSWORD VALIDATION' AND plugin_status = 'ACTIVE'"
        plugin = connection.value(validating)
        if plugin is not None and connection.value("SELECT @@GLOBAL.strict_password_validation"):
            what = f"the plugin {plugin} refuses the hash of a password (strict_password_validation), and the server receives no password itself"
            yield fatal(what, "SET GLOBAL strict_password_validation = OFF; and the same in the configuration")
        schema = target.ops_schema
        query = (
            "SELECT security_type FROM information_schema.routines"
            f" WHERE routine_schema = {connection.literal(schema)} AND routine_name = '{PROCEDURE}'"
        )
        if connection.value(query) == "DEFINER":
            yield ok(f"{schema}.{PROCEDURE} exists and may be called")
        else:
            what = f"{schema}.{PROCEDURE} is missing, or the bot may not call it (EXECUTE): without it a role is not active after login"
            yield fatal(what, procedure(target, connection, levels))

    def login_command(self, host: str, port: int, database: str, tls: str) -> str:
        """For MariaDB's own client."""
        command = ["mariadb", f"--host={quote(host)}", f"--port={port}", "--user={username}", "--password={password}"]
        further = {"disable": ["--skip-ssl"], "prefer": [], "require": ["--ssl"]}.get(tls, ["--ssl-verify-server-cert"])
        return " ".join([*command, *further, *([quote(database)] if database else [])])


def procedure(target: Target, connection: MySQLConnection, levels: Sequence[Level]) -> str:
    """Statements for a DBA with all rights to paste. The procedure sets a default role, and only for temporary users and these roles."""
    roles = sorted({role for level in levels for role in level.roles if managed_role(target, level) is None})
    allowed = ", ".join(connection.literal(role) for role in roles) or "''"
    body = CREATE_PROCEDURE.format(
        schema=quoted_if_needed(target.ops_schema), length=len(target.prefix), prefix=target.prefix, roles=allowed
    )
    grant = f"GRANT EXECUTE ON PROCEDURE {quoted_if_needed(target.ops_schema)}.{PROCEDURE} TO {whoami(connection)}"
    return f"CREATE DATABASE IF NOT EXISTS {quoted_if_needed(target.ops_schema)};\nDELIMITER //\n{body} //\nDELIMITER ;\n{grant};"
