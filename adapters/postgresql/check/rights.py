"""``check``: each right that the bot needs, one by one, with the statement that would give it. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from adapters.base import AdapterError, Finding, Health, Level
from adapters.postgresql import standbys
from adapters.postgresql.check import reaper
from adapters.postgresql.check.rights_of_levels import check_database, check_roles
from adapters.postgresql.connection import (
    NO_POOLER,
    STATEMENT_SECONDS,
    UPGRADE,
    PostgreSQLConnection,
    PostgreSQLServer,
    identity,
    pooled_finding,
    unsupported_version,
)
from adapters.postgresql.errors import fatal, fatal_error, ok, warning
from adapters.postgresql.left_behind import left_roles
from adapters.postgresql.level.grants import level_database
from adapters.postgresql.roles import QUARANTINE_ROLE, SETS_MEMBERSHIP_OPTIONS
from adapters.postgresql.statements import column, major_version, quoted, quoted_acting_role, value

FREE_CONNECTIONS = 10
RESERVED_SINCE = 16
"""The first version where connections can be reserved for a role that is no superuser."""
LEFT_ROLES_AT_MOST = 20
"""Roles of ended users that ``check`` names."""
CLOCK_OFF_SECONDS = 30.0


def check(server: PostgreSQLServer, levels: Sequence[Level]) -> Health:
    """Examine the server, the bot's rights, the levels and the standbys.

    Raises ServerDown or Rejected where the bot cannot connect to the server.
    """
    databases = sorted({level_database(server, level) for level in levels})
    with server.session() as connection:
        findings = [
            *_server(server, connection),
            *_bot(connection),
            *_left_roles(connection),
            *(finding for level in levels for finding in check_roles(connection, level)),
            *(finding for database in databases for finding in _open_to_public(connection, database)),
            *_others_open_to_public(connection, databases),
        ]
        findings += standbys.check_standbys(server, connection)
        has_standbys = bool(server.target.replicas or value(connection, standbys.ATTACHED))
        found, version = identity(connection), connection.info.parameter_status("server_version") or ""
    for level in levels:
        findings += check_database(server, level)
    enforced, seen = reaper.enforced(server, databases, has_standbys=has_standbys)
    return Health(
        version=f"PostgreSQL {version.split(' ')[0]}",
        identity=found,
        enforced=enforced,
        findings=tuple(dict.fromkeys([*findings, *seen])),
    )


def _server(server: PostgreSQLServer, connection: PostgreSQLConnection) -> Iterator[Finding]:
    if (what := unsupported_version(connection)) is not None:
        yield fatal(what, UPGRADE)
    if (what := pooled_finding(connection)) is not None:
        yield fatal(what, NO_POOLER)
    if connection.info.dbname != server.database:
        yield from _closed_database(server)
    if value(connection, "SELECT pg_is_in_recovery()"):
        yield fatal("this server is a standby, and users cannot be created on it", "name the primary in admin_url")
    if unnamed := standbys.unnamed_standbys(server, value(connection, standbys.ATTACHED)):
        what = f"{unnamed}: sessions on the others are not ended by dbaccess"
        yield warning(what, "name each under replicas in databases.yml")
    yield from _free_connections(connection)
    yield from _clock(connection)


def _closed_database(server: PostgreSQLServer) -> Iterator[Finding]:
    """The reason why the database of the admin URL does not let the bot in. Another database of the server served instead."""
    try:
        server.open(server.database, STATEMENT_SECONDS).close()
    except AdapterError as error:
        yield fatal_error(error)


def _free_connections(connection: PostgreSQLConnection) -> Iterator[Finding]:
    """Whether connections are free: without one the bot cannot end access."""
    free = value(
        connection,
        "SELECT current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int"
        " - (SELECT count(*) FROM pg_stat_activity WHERE datid IS NOT NULL)",
    )
    yield from _reserved_connections(connection)
    limit = value(connection, "SELECT rolconnlimit FROM pg_roles WHERE rolname = session_user")
    if free < FREE_CONNECTIONS:
        yield warning(f"only {free} connections of the server are free, and the bot needs some to end access")
    if 0 <= limit < FREE_CONNECTIONS:
        login = quoted(connection.info.user)
        remedy = f"ALTER ROLE {login} CONNECTION LIMIT -1;"
        yield warning(f"{login} may have {limit} connections at a time, and ends access slowly with that few", remedy)


def _reserved_connections(connection: PostgreSQLConnection) -> Iterator[Finding]:
    """Whether connections are reserved for the bot, so that it gets in while users fill the others (PostgreSQL 16 and later)."""
    if major_version(connection) < RESERVED_SINCE:
        return
    login = quoted(connection.info.user)
    is_reserved = value(connection, "SELECT current_setting('reserved_connections')::int > 0")
    may_use = value(connection, "SELECT pg_has_role(session_user, 'pg_use_reserved_connections', 'USAGE')")
    if not (is_reserved and may_use):
        remedy = (
            f"reserved_connections = 5 in postgresql.conf, a restart, and GRANT pg_use_reserved_connections TO {login};"
        )
        yield warning(
            "no connections are reserved for the bot: users who fill the server delay the end of access", remedy
        )


def _clock(connection: PostgreSQLConnection) -> Iterator[Finding]:
    off = (value(connection, "SELECT clock_timestamp()") - datetime.now(UTC)).total_seconds()
    if abs(off) > CLOCK_OFF_SECONDS:
        which = "ahead of" if off > 0 else "behind"
        yield warning(
            f"the server's clock is {abs(off):.0f} s {which} the bot's; the server ends logins by its own clock"
        )


def _bot(connection: PostgreSQLConnection) -> Iterator[Finding]:
    current, login = quoted_acting_role(connection), quoted(connection.info.user)
    superuser, createrole, inherit = connection.execute(
        "SELECT rolsuper, rolcreaterole, rolinherit FROM pg_roles WHERE rolname = current_user"
    ).fetchone() or (False, False, False)
    owner = f"CREATE ROLE dbaccess_owner NOLOGIN CREATEROLE; GRANT dbaccess_owner TO {login};"
    if superuser:
        yield warning(f"{current} is a superuser; a role with CREATEROLE is enough", owner)
        return
    if createrole:
        yield ok(f"{current} may create users (CREATEROLE)")
    else:
        yield fatal(f"{current} may not create users (CREATEROLE is missing)", f"ALTER ROLE {current} CREATEROLE;")
    if major_version(connection) < SETS_MEMBERSHIP_OPTIONS and not inherit:
        remedy = f"ALTER ROLE {current} INHERIT;"
        yield fatal(f"{current} is NOINHERIT, so it cannot end the sessions of the users that it creates", remedy)
    if current == login and major_version(connection) >= SETS_MEMBERSHIP_OPTIONS:
        remedy = f"{owner} and admin_role: dbaccess_owner in databases.yml"
        yield warning(
            "without admin_role another login of the bot could not remove the users that this one creates", remedy
        )


def _left_roles(connection: PostgreSQLConnection) -> Iterator[Finding]:
    """The roles of ended users that own what they left behind, and the role that owned it before each kept its own."""
    found = [role for role in left_roles(connection) if role.objects]
    for role in found[:LEFT_ROLES_AT_MOST]:
        yield ok(f"{role.name} of #{role.request_id}, ended {role.ended}, owns {role.objects} objects")
    if len(found) > LEFT_ROLES_AT_MOST:
        yield ok(f"{len(found) - LEFT_ROLES_AT_MOST} more roles of ended users own objects")
    oid = value(connection, "SELECT oid FROM pg_roles WHERE rolname = %s", (QUARANTINE_ROLE,))
    if oid is not None:
        query = "SELECT count(*) FROM pg_shdepend WHERE refclassid = 'pg_authid'::regclass AND refobjid = %s::oid AND deptype = 'o'"
        count, of = value(connection, query, (oid,)), QUARANTINE_ROLE
        give = f"in each database: REASSIGN OWNED BY {of} TO a_role_of_your_team; DROP OWNED BY {of}; then "
        remedy = f"{give if count else ''}DROP ROLE {of};"
        yield warning(
            f"{of} owns {count} objects of users that an earlier version ended; nothing is given to it any more", remedy
        )


def _open_to_public(connection: PostgreSQLConnection, database: str) -> Iterator[Finding]:
    """Whether PUBLIC may use the database. By default every role may connect to every database and create temporary tables in it."""
    if not value(connection, "SELECT 1 FROM pg_database WHERE datname = %s", (database,)):
        yield fatal(f"there is no database {database} on this server")
        return
    everybody = column(
        connection,
        "SELECT a.privilege_type FROM pg_database d, LATERAL aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a"
        " WHERE d.datname = %s AND a.grantee = 0 AND a.privilege_type IN ('CONNECT', 'TEMPORARY') ORDER BY 1",
        (database,),
    )
    if everybody:
        what = " and ".join(everybody)
        yield warning(
            f"the database {database} is open to PUBLIC ({what}): every temporary user of this server can use it",
            f"REVOKE CONNECT, TEMPORARY ON DATABASE {quoted(database)} FROM PUBLIC;",
        )
    else:
        yield ok(f"the database {database} is closed to PUBLIC")


def _others_open_to_public(connection: PostgreSQLConnection, databases: Sequence[str]) -> Iterator[Finding]:
    """Other databases of the server that PUBLIC may connect to: temporary users can use them too."""
    names = column(
        connection,
        "SELECT DISTINCT d.datname FROM pg_database d, LATERAL aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a"
        " WHERE d.datallowconn AND NOT d.datistemplate AND a.grantee = 0 AND a.privilege_type = 'CONNECT' AND d.datname <> ALL(%s) ORDER BY 1",
        (list(databases),),
    )
    if names:
        remedy = " ".join(f"REVOKE CONNECT, TEMPORARY ON DATABASE {quoted(n)} FROM PUBLIC;" for n in names)
        yield warning(
            f"temporary users can also connect to {', '.join(names)}, open to PUBLIC on the same server", remedy
        )
