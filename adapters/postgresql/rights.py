"""What ``check`` looks at, one right at a time, each with the statement that would mend it. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from adapters.base import AdapterError, Enforced, Finding, Health, Level, Rejected
from adapters.postgresql.connection import Connection, Server, column, identity, quoted, value, version
from adapters.postgresql.levels import danger, exists, expanded, level_database
from adapters.postgresql.revoke import GRAVEYARD

OLDEST = 13
ADMIN_OPTION_SINCE = 16
PUBLIC_CANNOT_CREATE_SINCE = 15


def ok(what: str) -> Finding:
    return Finding(is_ok=True, is_fatal=False, what=what)


def fatal(what: str, mend: str | None = None) -> Finding:
    return Finding(is_ok=False, is_fatal=True, what=what, mend=mend)


def warning(what: str, mend: str | None = None) -> Finding:
    return Finding(is_ok=False, is_fatal=False, what=what, mend=mend)


def check(server: Server, levels: Sequence[Level]) -> Health:
    """Raises Unreachable or Rejected where the server cannot be asked at all."""
    with server.session() as connection:
        findings = [
            *_server(connection),
            *_bot(connection),
            *_graveyard(connection),
            *(finding for level in levels for role in level.roles for finding in _role(connection, level, role)),
        ]
        for database in sorted({level_database(server, level) for level in levels}):
            findings += _public(connection, database)
        found, us = identity(connection), connection.info.parameter_status("server_version") or ""
    for level in levels:
        findings += _in_its_database(server, level)
    return Health(
        version=f"PostgreSQL {us.split(' ')[0]}", identity=found, enforced=Enforced.LOGIN, findings=tuple(findings)
    )


def _server(connection: Connection) -> Iterator[Finding]:
    if version(connection) < OLDEST:
        yield fatal(f"PostgreSQL {version(connection)} is too old; {OLDEST} or later")
    if value(connection, "SELECT pg_is_in_recovery()"):
        yield fatal("this server is a standby; name the primary in admin_url")
    elif value(connection, "SELECT current_setting('transaction_read_only')") == "on":
        yield fatal("this server is read-only for the bot; users cannot be made on it")
    standbys = value(connection, "SELECT count(*) FROM pg_stat_replication")
    if standbys:
        yield warning(
            f"{standbys} standby servers are attached and none is named: sessions there are not ended by dbaccess"
        )


def _bot(connection: Connection) -> Iterator[Finding]:
    us, login = quoted(value(connection, "SELECT current_user")), quoted(value(connection, "SELECT session_user"))
    superuser, createrole = connection.execute(
        "SELECT rolsuper, rolcreaterole FROM pg_roles WHERE rolname = current_user"
    ).fetchone() or (False, False)
    if superuser:
        yield warning(
            f"{us} is a superuser; a role with CREATEROLE is enough",
            f"CREATE ROLE dbaccess_owner NOLOGIN CREATEROLE; GRANT dbaccess_owner TO {login};",
        )
    elif not createrole:
        yield fatal(f"{us} may not make users (CREATEROLE is missing)", f"ALTER ROLE {us} CREATEROLE;")
    else:
        yield ok(f"{us} may make users (CREATEROLE)")
    if not superuser and us == login and version(connection) >= ADMIN_OPTION_SINCE:
        yield warning(
            "without admin_role another login of the bot could not remove what this one made",
            f"CREATE ROLE dbaccess_owner NOLOGIN CREATEROLE; GRANT dbaccess_owner TO {login}; and admin_role: dbaccess_owner in databases.yml",
        )


def _graveyard(connection: Connection) -> Iterator[Finding]:
    us = quoted(value(connection, "SELECT current_user"))
    if not exists(connection, GRAVEYARD):
        yield ok(f"{GRAVEYARD} is not there yet; the bot makes it when it is first needed")
        return
    if not value(connection, "SELECT pg_has_role(%s, 'USAGE')", (GRAVEYARD,)) and not _may_join(connection, GRAVEYARD):
        yield fatal(
            f"the bot is no member of {GRAVEYARD}, so it cannot hand objects over",
            f"GRANT {GRAVEYARD} TO {us} WITH ADMIN OPTION;",
        )
    else:
        yield ok(f"{GRAVEYARD} takes what temporary users leave behind")
    if why := danger(connection, GRAVEYARD):
        yield fatal(why, f"ALTER ROLE {GRAVEYARD} NOSUPERUSER NOCREATEROLE NOREPLICATION NOBYPASSRLS NOLOGIN;")


def _may_join(connection: Connection, role: str) -> bool:
    """Before 16 CREATEROLE may grant any role that is no superuser's; from then on only with ADMIN OPTION."""
    if value(connection, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"):
        return True
    if version(connection) < ADMIN_OPTION_SINCE:
        return bool(value(connection, "SELECT rolcreaterole FROM pg_roles WHERE rolname = current_user"))
    return bool(value(connection, "SELECT pg_has_role(%s, 'USAGE WITH ADMIN OPTION')", (role,)))


def _role(connection: Connection, level: Level, role: str) -> Iterator[Finding]:
    us = quoted(value(connection, "SELECT current_user"))
    if not exists(connection, role):
        yield fatal(f"level {level.name}: the role {role} does not exist", f"CREATE ROLE {quoted(role)} NOLOGIN;")
        return
    if why := danger(connection, role):
        yield fatal(f"level {level.name}: {why}", "name a role without it in databases.yml")
        return
    if not _may_join(connection, role):
        yield fatal(
            f"level {level.name}: the bot may not give the role {role}",
            f"GRANT {quoted(role)} TO {us} WITH ADMIN OPTION;",
        )
        return
    yield ok(f"level {level.name}: the bot may give {role}")


def _public(connection: Connection, database: str) -> Iterator[Finding]:
    """By default every role may connect to every database and make temporary tables in it."""
    if not value(connection, "SELECT 1 FROM pg_database WHERE datname = %s", (database,)):
        yield fatal(f"there is no database {database} on this server")
        return
    everybody = column(
        connection,
        "SELECT a.privilege_type FROM pg_database d, LATERAL aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a"
        " WHERE d.datname = %s AND a.grantee = 0 AND a.privilege_type IN ('CONNECT', 'TEMPORARY')",
        (database,),
    )
    if everybody:
        what = " and ".join(sorted(everybody))
        yield warning(
            f"the database {database} is open to PUBLIC ({what}): every temporary user of this server can connect to it",
            f"REVOKE CONNECT, TEMPORARY ON DATABASE {quoted(database)} FROM PUBLIC;",
        )
    else:
        yield ok(f"the database {database} is closed to PUBLIC")


def _in_its_database(server: Server, level: Level) -> Iterator[Finding]:
    try:
        with server.session(level_database(server, level)) as connection:
            yield from _privileges(connection, level)
            yield from _leaves_behind(connection, level)
            if version(connection) < PUBLIC_CANNOT_CREATE_SINCE and value(
                connection, "SELECT has_schema_privilege('public', 'public', 'CREATE')"
            ):
                yield warning(
                    f"everybody may create in the schema public of {connection.info.dbname}",
                    "REVOKE CREATE ON SCHEMA public FROM PUBLIC;",
                )
    except AdapterError as error:
        yield fatal(f"level {level.name}: its database cannot be looked at: {error}")


def _privileges(connection: Connection, level: Level) -> Iterator[Finding]:
    us = quoted(value(connection, "SELECT current_user"))
    try:
        wanted = expanded(connection, level.grants)
    except Rejected as error:
        yield fatal(f"level {level.name}: {error}")
        return
    for privilege in sorted(wanted, key=str):
        name = (
            quoted(privilege.schema)
            if privilege.table is None
            else f"{quoted(privilege.schema)}.{quoted(privilege.table)}"
        )
        query = (
            "SELECT has_schema_privilege(%s, %s)" if privilege.table is None else "SELECT has_table_privilege(%s, %s)"
        )
        if not value(connection, query, (name, f"{privilege.word} WITH GRANT OPTION")):
            yield fatal(
                f"level {level.name}: the bot cannot give {privilege}", f"GRANT {privilege} TO {us} WITH GRANT OPTION;"
            )
    for role in level.roles:
        if exists(connection, role) and not value(
            connection, "SELECT has_database_privilege(%s, current_database(), 'CONNECT')", (role,)
        ):
            database = quoted(connection.info.dbname)
            yield fatal(
                f"level {level.name}: {role} may not connect to {database}",
                f"GRANT CONNECT ON DATABASE {database} TO {quoted(role)};",
            )


def _leaves_behind(connection: Connection, level: Level) -> Iterator[Finding]:
    """A member of an owner can grant others rights as that owner, and leave functions behind that run as it."""
    for role in level.roles:
        query = (
            "SELECT 1 FROM pg_shdepend s JOIN pg_roles r ON r.oid = s.refobjid"
            " WHERE s.refclassid = 'pg_authid'::regclass AND s.deptype = 'o' AND pg_has_role(%s, r.oid, 'MEMBER') AND NOT r.rolsuper LIMIT 1"
        )
        if exists(connection, role) and value(connection, query, (role,)):
            yield warning(
                f"level {level.name}: {role} owns objects; whoever gets it can leave things behind (rights given to others, functions that run as the owner)"
            )
