"""Checks a server: version, settings, each right of the bot, each level, the replicas. Every finding has the statement that helps, where one exists.

Nothing is changed on the server.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from adapters.base import AdapterError, Enforced, Finding, Health, Level, Rejected
from adapters.mysql import events
from adapters.mysql.connection import MySQLConnection, quoted_if_needed
from adapters.mysql.levels import clauses, lasting_privileges, limits_of, managed_role, require_safe_role
from adapters.mysql.own_session import STRAIGHT
from adapters.mysql.proxies import held_by
from adapters.mysql.revoke import replicas_of
from adapters.mysql.server import Server
from adapters.mysql.users import unsupported_version

NAMED_AT_MOST = 5
CONNECTIONS = 20
"""Eight ends, four grants and four queries at a time, the spare connection, and some for the events."""


def ok(what: str) -> Finding:
    """Nothing to do."""
    return Finding(is_ok=True, is_fatal=False, what=what)


def fatal(what: str, remedy: str | None = None) -> Finding:
    """A problem: no grant can be made or ended as promised."""
    return Finding(is_ok=False, is_fatal=True, what=what, remedy=remedy)


def warning(what: str, remedy: str | None = None) -> Finding:
    """More access is open than necessary, or less is certain."""
    return Finding(is_ok=False, is_fatal=False, what=what, remedy=remedy)


def check(server: Server, levels: Sequence[Level]) -> Health:
    """All findings. A problem does not stop the checks after it, except an unsupported version, on which they may be impossible."""
    with server.session() as connection:
        if (unsupported := unsupported_version(server, connection)) is not None:
            return _health(server, connection, _identity_if_known(server, connection), [fatal(*unsupported)])
        findings = [*_server(server, connection), *_rights(server, connection)]
        can_read = has_right(connection, "SELECT") or _has_schema_right(connection, "SELECT", "mysql")
        findings.append(right(connection, "SELECT", "read accounts and the grants of roles", can_read, "mysql.*"))
        if can_read:
            findings += [*_accounts(connection), *_levels(server, connection, levels)]
        findings += server.dialect.findings(server.target, connection, levels)
        findings += _replicas(server, connection)
        return _health(server, connection, server.identity(connection), findings)


def _health(server: Server, connection: MySQLConnection, identity: str, findings: Sequence[Finding]) -> Health:
    return Health(
        version=f"{server.dialect.label} {connection.server_version}",
        identity=identity,
        enforced=Enforced.SESSIONS if events.is_scheduler_on(connection) else Enforced.NOTHING,
        findings=tuple(findings),
    )


def _identity_if_known(server: Server, connection: MySQLConnection) -> str:
    """The identity, or ``unknown`` on a server that is too old to have one."""
    try:
        return server.identity(connection)
    except Rejected:
        return "unknown"


def _server(server: Server, connection: MySQLConnection) -> Iterator[Finding]:
    for difference in connection.differences:
        yield fatal(f"the bot's connection is not its own: {difference}", STRAIGHT)
    read_only = [name for name in server.dialect.read_only if connection.value(f"SELECT @@{name}")]
    if read_only:
        yield fatal(f"the server is read-only ({read_only[0]}): a replica", "let the admin URL point to the primary")
    if events.scheduler(connection) == "DISABLED" and not events.are_visible(connection):
        remedy = "set event_scheduler = ON in the server's configuration and restart it"
        yield fatal("the event scheduler is disabled: the event that marks and ends a user cannot be created", remedy)
    elif events.is_scheduler_on(connection):
        yield ok("the event scheduler is on: the server ends users by itself, even if dbaccess is down")
    else:
        yield warning(
            "the event scheduler is off: nothing ends a user while dbaccess is down (event_scheduler)",
            "SET GLOBAL event_scheduler = ON; and event_scheduler = ON in the server's configuration",
        )
    yield from _events_of_replica(server, connection)
    limit = int(connection.value("SELECT @@SESSION.max_user_connections"))
    if 0 < limit < CONNECTIONS:
        what = f"the bot may open {limit} connections at a time, and needs up to {CONNECTIONS}: ends could wait"
        yield warning(what, f"ALTER USER {whoami(connection)} WITH MAX_USER_CONNECTIONS {CONNECTIONS};")
    plugin = server.dialect.login_plugin
    query = f"SELECT plugin_status FROM information_schema.plugins WHERE plugin_name = '{plugin}'"
    if connection.value(query) != "ACTIVE":
        yield fatal(f"the server does not support logins by {plugin}", f"activate the plugin {plugin}")


def _events_of_replica(server: Server, connection: MySQLConnection) -> Iterator[Finding]:
    waiting = events.received(connection, server.target)
    if waiting and not server.dialect.is_replica(connection):
        schema = quoted_if_needed(server.target.ops_schema)
        enable = " ".join(f"ALTER EVENT {schema}.{event.username} ENABLE;" for event in waiting[:NAMED_AT_MOST])
        what = f"the server was promoted, and it does not run {len(waiting)} events that end users: they came by replication. The next sweep enables them"
        yield warning(what, enable)


def whoami(connection: MySQLConnection) -> str:
    """The bot's account as GRANT takes it: ``'bot'@'%'``."""
    user, _, host = str(connection.value("SELECT CURRENT_USER()")).rpartition("@")
    return f"'{user}'@'{host}'"


def _grantees(connection: MySQLConnection) -> str:
    """The bot's account and its active roles, as literals for IN."""
    found = [whoami(connection)]
    roles = str(connection.value("SELECT CURRENT_ROLE()") or "NONE")
    for role in () if roles.upper() == "NONE" else roles.replace("`", "").split(","):
        name, _, host = role.partition("@")
        found.append(f"'{name}'@'{host}'")
    return ", ".join(connection.literal(grantee) for grantee in found)


def has_right(connection: MySQLConnection, privilege: str) -> bool:
    """Whether the bot has the privilege on the whole server."""
    query = (
        "SELECT 1 FROM information_schema.user_privileges"
        f" WHERE grantee IN ({_grantees(connection)}) AND privilege_type = {connection.literal(privilege)}"
    )
    return connection.value(query) is not None


def right(connection: MySQLConnection, privilege: str, purpose: str, is_held: bool, on: str = "*.*") -> Finding:
    """The finding about one privilege that the bot needs for ``purpose``."""
    if is_held:
        return ok(f"{privilege} on {on}: may {purpose}")
    remedy = f"GRANT {privilege} ON {on} TO {whoami(connection)};"
    return fatal(f"{privilege} on {on} is missing: the bot cannot {purpose}", remedy)


def _rights(server: Server, connection: MySQLConnection) -> Iterator[Finding]:
    for privilege, purpose in server.dialect.rights:
        yield right(connection, privilege, purpose, has_right(connection, privilege))
    schema = server.target.ops_schema
    query = f"SELECT 1 FROM information_schema.schemata WHERE schema_name = {connection.literal(schema)}"
    if connection.value(query) is None:
        remedy = f"CREATE DATABASE {quoted_if_needed(schema)}; GRANT EVENT ON {quoted_if_needed(schema)}.* TO {whoami(connection)};"
        yield fatal(f"there is no schema {schema} for the events, or the bot has no EVENT right on it", remedy)
    else:
        may = has_right(connection, "EVENT") or _has_schema_right(connection, "EVENT", schema)
        purpose, on = "create the events with which the server ends users", f"{quoted_if_needed(schema)}.*"
        yield right(connection, "EVENT", purpose, may, on)
    known = server.dialect.definer_rights
    if known and not any(has_right(connection, privilege) for privilege in known):
        yield warning(
            "a user who created a view or a routine could be locked but not dropped",
            f"GRANT {known[0]} ON *.* TO {whoami(connection)};",
        )


def _has_schema_right(connection: MySQLConnection, privilege: str, schema: str, *, grantable: bool = False) -> bool:
    """Whether the bot has the privilege on a whole database, also by a pattern."""
    query = (
        "SELECT 1 FROM information_schema.schema_privileges"
        f" WHERE grantee IN ({_grantees(connection)}) AND privilege_type = {connection.literal(privilege)}"
        f" AND {connection.literal(schema)} LIKE table_schema"
    )
    if grantable:
        query += " AND is_grantable = 'YES'"
    return connection.value(query) is not None


def _accounts(connection: MySQLConnection) -> Iterator[Finding]:
    for host in connection.column("SELECT host FROM mysql.user WHERE user = '' AND host <> ''"):
        what = f"there is an anonymous account for {host}: logins from there get this account instead of the temporary user's, and fail"
        yield warning(what, f"DROP USER ''@'{host}';")


def _levels(server: Server, connection: MySQLConnection, levels: Sequence[Level]) -> Iterator[Finding]:
    for level in levels:
        try:
            yield from _level(server, connection, level)
        except Rejected as error:
            yield fatal(f"level {level.name}: {error.what}", error.remedy)


def _level(server: Server, connection: MySQLConnection, level: Level) -> Iterator[Finding]:
    if level_may_fill(server, connection, level):
        what = f"level {level.name}: one user may open every connection of the server (max_user_connections)"
        yield warning(what, f"set a lower max_user_connections in its settings, and {server.dialect.way_in}")
    for role in level.roles:
        yield from _role(server, connection, level, role)
    missing = [
        (privilege, on)
        for privileges, on in clauses(server, connection, level)
        for privilege in privileges.split(", ")
        if not _may_grant(server, connection, privilege, on)
    ]
    for privilege, on in missing:
        remedy = f"GRANT {privilege} ON {on} TO {whoami(connection)} WITH GRANT OPTION;"
        yield fatal(f"level {level.name}: the bot cannot give {privilege} on {on}", remedy)
    if not missing:
        role = managed_role(server.target, level) or level.roles[0]
        yield ok(f"level {level.name}: role {role}, database {server.database_of(level) or 'none'}")


def level_may_fill(server: Server, connection: MySQLConnection, level: Level) -> bool:
    """Whether one user of the level may open as many connections as the server has. Raises Rejected for a setting that the server does not have."""
    found = re.search(r"MAX_USER_CONNECTIONS ([0-9]+)", limits_of(server, level))
    limit = int(found[1]) if found else 0
    return limit == 0 or limit >= int(connection.value("SELECT @@GLOBAL.max_connections"))


def _role(server: Server, connection: MySQLConnection, level: Level, role: str) -> Iterator[Finding]:
    require_safe_role(server, connection, role)
    if not _may_grant_role(connection, role):
        remedy = f"GRANT {quoted_if_needed(role)} TO {whoami(connection)} WITH ADMIN OPTION;"
        yield fatal(f"level {level.name}: the bot may not give the role {role} (ADMIN OPTION)", remedy)
    for proxy in held_by(connection, role, server.target.prefix):
        what = f"level {level.name}: a temporary user gave {role} PROXY, which has no effect"
        yield warning(what, f"{proxy.revoke};")
    for lasting in lasting_privileges(server, connection, role):
        what = f"level {level.name}: {role} has {lasting}: what is created with it goes on without its creator"
        yield warning(what, f"REVOKE {lasting} FROM {quoted_if_needed(role)};")


def _may_grant_role(connection: MySQLConnection, role: str) -> bool:
    if has_right(connection, "ROLE_ADMIN"):
        return True
    query = (
        "SELECT 1 FROM information_schema.applicable_roles"
        f" WHERE role_name = {connection.literal(role)} AND is_grantable = 'YES'"
    )
    return connection.value(query) is not None


def _may_grant(server: Server, connection: MySQLConnection, privilege: str, on: str) -> bool:
    """Whether the bot has the privilege with grant option on the server, the database, or the table."""
    everywhere = (
        f"SELECT 1 FROM information_schema.user_privileges WHERE grantee IN ({_grantees(connection)})"
        f" AND privilege_type = {connection.literal(privilege)} AND is_grantable = 'YES'"
    )
    schema, _, table = on.partition("`.")
    name = schema.strip("`").replace("``", "`")
    unescaped = re.sub(r"\\(.)", r"\1", name) if table == "*" and server.dialect.has_wildcards(connection) else name
    if connection.value(everywhere) is not None:
        return True
    if _has_schema_right(connection, privilege, unescaped, grantable=True):
        return True
    on_table = (
        f"SELECT 1 FROM information_schema.table_privileges WHERE grantee IN ({_grantees(connection)}) AND is_grantable = 'YES'"
        f" AND privilege_type = {connection.literal(privilege)} AND table_schema = {connection.literal(name)}"
        f" AND table_name = {connection.literal(table.strip('`'))}"
    )
    return connection.value(on_table) is not None


def _replicas(server: Server, connection: MySQLConnection) -> Iterator[Finding]:
    count = replicas_of(connection)
    if count > len(server.replicas):
        what = f"{count} replicas read from this server and {len(server.replicas)} are named: sessions on the others would not be ended"
        yield warning(what, "name them under replicas in databases.yml")
    kill_right = server.dialect.kill_right
    for number, (reference, _) in enumerate(server.replicas):
        try:
            with server.replica(number) as replica:
                may = has_right(replica, kill_right)
                yield right(replica, kill_right, f"end sessions on the replica {reference}", may)
        except AdapterError as error:
            yield fatal(f"the replica {reference} cannot be checked: {error}")
