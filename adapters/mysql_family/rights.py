"""What the bot's account may do, right by right, each with the statement that gives it; what each level needs; what the server itself enforces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from adapters.base import AdapterError, Enforced, Finding, Health, Level, Rejected
from adapters.mysql_family import events
from adapters.mysql_family.connection import Connection, Server, shown
from adapters.mysql_family.levels import clauses, kept_role, level_database, limits_of, lingering, refuse_dangerous
from adapters.mysql_family.proxies import held_by
from adapters.mysql_family.revoke import replicas_of


def ok(what: str) -> Finding:
    return Finding(is_ok=True, is_fatal=False, what=what)


def fatal(what: str, remedy: str | None = None) -> Finding:
    """No grant can be given, or ended, as promised."""
    return Finding(is_ok=False, is_fatal=True, what=what, remedy=remedy)


def warning(what: str, remedy: str | None = None) -> Finding:
    """More is open than should be, or less is sure."""
    return Finding(is_ok=False, is_fatal=False, what=what, remedy=remedy)


def check(server: Server, levels: Sequence[Level]) -> Health:
    """Everything is looked at, also where something before it is not well."""
    with server.session() as connection:
        findings = [*_server(server, connection), *_rights(server, connection)]
        can_read = _reads_accounts(connection)
        findings.append(_reading(connection, is_so=can_read))
        if can_read:
            findings += [*_accounts(connection), *_levels(server, connection, levels)]
        findings += server.dialect.findings(server, connection, levels)
        return Health(
            version=f"{server.dialect.label} {connection.server_version}",
            identity=server.identity(connection),
            enforced=Enforced.SESSIONS if events.scheduler_is_on(connection) else Enforced.NOTHING,
            findings=(*findings, *_replicas(server, connection)),
        )


def _server(server: Server, connection: Connection) -> Iterator[Finding]:
    read_only = [name for name in server.dialect.read_only if connection.value(f"SELECT @@{name}")]
    if read_only:
        yield fatal(f"the server is read-only ({read_only[0]}): a replica", "let the admin URL point to the primary")
    if events.scheduler(connection) == "DISABLED" and not events.can_be_seen(connection):
        remedy = "set event_scheduler = ON in the server's configuration and restart it"
        yield fatal("the event scheduler is disabled: no event can be made, which marks a user and ends it", remedy)
    elif events.scheduler_is_on(connection):
        yield ok("the event scheduler is on: the server ends users by itself, also without dbaccess")
    else:
        yield warning(
            "the event scheduler is off: without dbaccess nothing ends a user (event_scheduler)",
            "SET GLOBAL event_scheduler = ON; and event_scheduler = ON in the server's configuration",
        )
    plugin = server.dialect.login_plugin
    query = f"SELECT plugin_status FROM information_schema.plugins WHERE plugin_name = '{plugin}'"
    if connection.value(query) != "ACTIVE":
        yield fatal(f"the server does not log in by {plugin}", f"activate the plugin {plugin}")


def whoami(connection: Connection) -> str:
    """The bot as GRANT names it: ``'bot'@'%'``."""
    user, _, host = str(connection.value("SELECT CURRENT_USER()")).rpartition("@")
    return f"'{user}'@'{host}'"


def _grantees(connection: Connection) -> str:
    """The bot and its active roles, for IN."""
    found = [whoami(connection)]
    roles = str(connection.value("SELECT CURRENT_ROLE()") or "NONE")
    for role in () if roles.upper() == "NONE" else roles.replace("`", "").split(","):
        name, _, host = role.partition("@")
        found.append(f"'{name}'@'{host}'")
    return ", ".join(connection.literal(grantee) for grantee in found)


def has_right(connection: Connection, word: str) -> bool:
    """On the whole server."""
    query = (
        "SELECT 1 FROM information_schema.user_privileges"
        f" WHERE grantee IN ({_grantees(connection)}) AND privilege_type = {connection.literal(word)}"
    )
    return connection.value(query) is not None


def right(connection: Connection, word: str, purpose: str, is_held: bool, on: str = "*.*") -> Finding:
    """One right of the bot."""
    if is_held:
        return ok(f"{word} on {on}: may {purpose}")
    remedy = f"GRANT {word} ON {on} TO {whoami(connection)};"
    return fatal(f"{word} on {on} is missing: the bot cannot {purpose}", remedy)


def _rights(server: Server, connection: Connection) -> Iterator[Finding]:
    for word, purpose in server.dialect.rights:
        yield right(connection, word, purpose, has_right(connection, word))
    schema = server.target.ops_schema
    if (
        connection.value(f"SELECT 1 FROM information_schema.schemata WHERE schema_name = {connection.literal(schema)}")
        is None
    ):
        remedy = f"CREATE DATABASE {shown(schema)}; GRANT EVENT ON {shown(schema)}.* TO {whoami(connection)};"
        yield fatal(f"there is no schema {schema} for the events, or the bot has no EVENT right on it", remedy)
    else:
        may = has_right(connection, "EVENT") or _on_schema(connection, "EVENT", schema)
        yield right(connection, "EVENT", "let the server itself end users", may, f"{shown(schema)}.*")
    known = server.dialect.definer_rights
    if known and not any(has_right(connection, word) for word in known):
        yield warning(
            "a user who made a view or a routine could be locked but not dropped",
            f"GRANT {known[0]} ON *.* TO {whoami(connection)};",
        )


def _on_schema(connection: Connection, word: str, schema: str, *, grantable: bool = False) -> bool:
    """On a whole database, by whatever spelling it was granted."""
    query = (
        "SELECT 1 FROM information_schema.schema_privileges"
        f" WHERE grantee IN ({_grantees(connection)}) AND privilege_type = {connection.literal(word)}"
        f" AND {connection.literal(schema)} LIKE table_schema {'AND is_grantable = ' + repr('YES') if grantable else ''}"
    )
    return connection.value(query) is not None


def _reads_accounts(connection: Connection) -> bool:
    may = has_right(connection, "SELECT")
    return may or _on_schema(connection, "SELECT", "mysql")


def _reading(connection: Connection, *, is_so: bool) -> Finding:
    return right(connection, "SELECT", "see accounts and what roles give", is_so, "mysql.*")


def _accounts(connection: Connection) -> Iterator[Finding]:
    for host in connection.column("SELECT host FROM mysql.user WHERE user = ''  AND host <> ''"):
        yield warning(
            f"there is an anonymous account for {host}: from there it takes the place of every user of any host, who then cannot log in",
            f"DROP USER ''@'{host}';",
        )


def _levels(server: Server, connection: Connection, levels: Sequence[Level]) -> Iterator[Finding]:
    for level in levels:
        try:
            yield from _level(server, connection, level)
        except Rejected as no:
            yield fatal(f"level {level.name}: {no.what}", no.remedy)


def _level(server: Server, connection: Connection, level: Level) -> Iterator[Finding]:
    limits_of(server, level)
    database = level_database(server, level)
    for role in level.roles:
        refuse_dangerous(server, connection, role)
        if not _may_give(connection, role):
            remedy = f"GRANT {shown(role)} TO {whoami(connection)} WITH ADMIN OPTION;"
            yield fatal(f"level {level.name}: the bot may not give the role {role} (ADMIN OPTION)", remedy)
        for proxy in held_by(connection, role, server.target.prefix):
            yield warning(
                f"level {level.name}: a temporary user gave {role} PROXY, which reaches nobody", f"{proxy.revoke};"
            )
        for left in lingering(server, connection, role):
            yield warning(
                f"level {level.name}: {role} has {left}: what is made with it goes on without its maker",
                f"REVOKE {left} FROM {shown(role)};",
            )
    lacking = [
        (word, place)
        for words, place in clauses(server, level)
        for word in words.split(", ")
        if not _may_grant(connection, word, place)
    ]
    for word, place in lacking:
        remedy = f"GRANT {word} ON {place} TO {whoami(connection)} WITH GRANT OPTION;"
        yield fatal(f"level {level.name}: the bot cannot give {word} on {place}", remedy)
    if not lacking:
        role_words = f"role {kept_role(server.target, level) or level.roles[0]}"
        yield ok(f"level {level.name}: {role_words}, database {database or 'none'}")


def _may_give(connection: Connection, role: str) -> bool:
    if has_right(connection, "ROLE_ADMIN"):
        return True
    query = (
        "SELECT 1 FROM information_schema.applicable_roles"
        f" WHERE role_name = {connection.literal(role)} AND is_grantable = 'YES'"
    )
    return connection.value(query) is not None


def _may_grant(connection: Connection, word: str, place: str) -> bool:
    """With grant option on the server, the database, or the table."""
    everywhere = (
        f"SELECT 1 FROM information_schema.user_privileges WHERE grantee IN ({_grantees(connection)})"
        f" AND privilege_type = {connection.literal(word)} AND is_grantable = 'YES'"
    )
    schema, _, table = place.partition("`.")
    name = schema.strip("`").replace("``", "`")
    plain = name.replace("\\", "") if table == "*" else name
    if connection.value(everywhere) is not None or _on_schema(connection, word, plain, grantable=True):
        return True
    on_table = (
        f"SELECT 1 FROM information_schema.table_privileges WHERE grantee IN ({_grantees(connection)}) AND is_grantable = 'YES'"
        f" AND privilege_type = {connection.literal(word)} AND table_schema = {connection.literal(name)}"
        f" AND table_name = {connection.literal(table.strip('`'))}"
    )
    return connection.value(on_table) is not None


def _replicas(server: Server, connection: Connection) -> Iterator[Finding]:
    count = replicas_of(connection)
    if count > len(server.replicas):
        yield warning(
            f"{count} replicas read from this server and {len(server.replicas)} are named: sessions on the others would not be ended",
            "name them under replicas in databases.yml",
        )
    for number, (reference, _) in enumerate(server.replicas):
        try:
            with server.replica(number) as replica:
                may = has_right(replica, server.dialect.rights[2][0])
                yield right(replica, server.dialect.rights[2][0], f"end sessions on the replica {reference}", may)
        except AdapterError as error:
            yield fatal(f"the replica {reference} cannot be asked: {error}")
