"""Taking a user away: login blocked, sessions to zero, prepared transactions, objects handed over, role dropped, read back.

Each step is its own statement and may be repeated: after a crash anywhere the next run finishes. Nothing here runs
what a temporary user made.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from datetime import UTC

import psycopg
from psycopg import sql

from adapters.base import Level, Receipt, Rejected, Unreachable
from adapters.postgresql.connection import REVOKE_LIMIT_SECONDS, Connection, Server, column, quoted, run, value
from adapters.postgresql.levels import drop_unused, exists, roles_of
from adapters.postgresql.users import become_member, find

GRAVEYARD = "dbaccess_graveyard"
SESSIONS_WITHIN = 8.0
FIRST_PAUSE, LONGEST_PAUSE = 0.01, 0.2


@dataclass
class Tally:
    """What was seen and done on the way, for the receipt."""

    sessions: set[tuple[int, object]] = field(default_factory=set)
    kept: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def drop(server: Server, username: str, level: Level) -> Receipt:
    """The whole way. Raises NotOurs, Unreachable (come back), Rejected (with what would help)."""
    tally = Tally()
    with server.session(limit=REVOKE_LIMIT_SECONDS) as connection:
        found = find(connection, server.target, username)
        if found is not None:
            block_login(connection, username)
            end_sessions(connection, found.oid, tally)
            become_member(connection, username)
            roll_back_prepared(server, connection, username)
            hand_over(server, connection, username, oid=found.oid, level=level, tally=tally)
            run(connection, "DROP ROLE IF EXISTS {}", username)
            end_sessions(connection, found.oid, tally)
        _note_kept_role(server, connection, level, tally)
        _note_standbys(connection, tally)
        return _receipt(connection, username, tally, was_absent=found is None)


def _receipt(connection: Connection, username: str, tally: Tally, *, was_absent: bool) -> Receipt:
    if exists(connection, username):
        raise Unreachable(f"the user {username} is still there after it was dropped")
    return Receipt(
        was_absent=was_absent,
        sessions_ended=len(tally.sessions),
        kept=tuple(tally.kept),
        kept_by=GRAVEYARD if tally.kept else None,
        read_back_at=value(connection, "SELECT clock_timestamp()").astimezone(UTC),
        notes=tuple(tally.notes),
    )


def block_login(connection: Connection, username: str) -> None:
    """Must be committed before sessions are counted, or a new one slips in between. Live sessions are not touched by it."""
    run(connection, "ALTER ROLE {} NOLOGIN PASSWORD NULL CONNECTION LIMIT 0 VALID UNTIL '-infinity'", username)


def end_sessions(connection: Connection, oid: int, tally: Tally) -> None:
    """By the user's oid, since its name is gone after the drop; until none is left. Raises Unreachable when some do not end in time."""
    deadline, pause = time.monotonic() + SESSIONS_WITHIN, FIRST_PAUSE
    while True:
        rows = connection.execute(
            "SELECT pid, backend_start, pg_terminate_backend(pid) FROM pg_stat_activity WHERE usesysid = %s::oid",
            (oid,),
        ).fetchall()
        if not rows:
            return
        tally.sessions |= {(pid, began) for pid, began, _ in rows}
        if time.monotonic() > deadline:
            raise Unreachable(f"{len(rows)} sessions do not end")
        time.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE)


def roll_back_prepared(server: Server, connection: Connection, username: str) -> None:
    """Prepared transactions survive kills and restarts, hold locks, and only their owner may roll them back, in their database."""
    rows = connection.execute("SELECT gid, database FROM pg_prepared_xacts WHERE owner = %s", (username,)).fetchall()
    for gid, database in rows:
        with server.session(database, limit=REVOKE_LIMIT_SECONDS) as there:
            become_member(there, username)
            run(there, "SET ROLE {}", username)
            run(there, "ROLLBACK PREPARED {gid}", gid=gid)


# Objects.


def hand_over(server: Server, connection: Connection, username: str, *, oid: int, level: Level, tally: Tally) -> None:
    """Everything the user owns goes to the graveyard, in each database it has something in; what it was given is taken."""
    databases = column(
        connection,
        "SELECT DISTINCT d.datname FROM pg_shdepend s LEFT JOIN pg_database d ON d.oid = s.dbid"
        " WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = %s::oid",
        (oid,),
    )
    if not databases:
        return
    _graveyard(connection)
    for database in {name or server.database for name in databases}:
        with server.session(database, limit=REVOKE_LIMIT_SECONDS) as there:
            owned = _owned(there, oid)
            if owned:
                _reassign(server, there, username, oid, level)
            run(there, "DROP OWNED BY {}", username)
            tally.kept += owned
    _nothing_left(connection, username, oid)


def _graveyard(connection: Connection) -> None:
    """A role nobody can log in as; made where it is missing. The bot must be a member to give it things."""
    if not exists(connection, GRAVEYARD):
        run(connection, "CREATE ROLE {} NOLOGIN", GRAVEYARD)
    if not value(connection, "SELECT pg_has_role(%s, 'USAGE')", (GRAVEYARD,)):
        try:
            become_member(connection, GRAVEYARD)
        except psycopg.errors.InsufficientPrivilege:
            us = value(connection, "SELECT current_user")
            raise Rejected(
                f"the bot is no member of {GRAVEYARD}", mend=f"GRANT {GRAVEYARD} TO {quoted(us)} WITH ADMIN OPTION;"
            ) from None


def _owned(connection: Connection, oid: int) -> list[str]:
    """What the user owns in this database and on the whole server, in words."""
    return column(
        connection,
        "SELECT i.identity || ' (' || i.type || ')' FROM pg_shdepend s, LATERAL pg_identify_object(s.classid, s.objid, s.objsubid) i"
        " WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = %s::oid AND s.deptype = 'o' AND i.identity IS NOT NULL"
        " AND i.type <> 'default acl' AND s.dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database())) ORDER BY 1",
        (oid,),
    )


def _reassign(server: Server, connection: Connection, username: str, oid: int, level: Level) -> None:
    """One transaction: the graveyard is lent what a new owner needs, gets the objects, and gives back what it was lent.

    A new owner of a function or operator needs CREATE on its schema. The level's roles had it, or everybody has, or the
    schema is the user's own; outside this transaction nobody ever sees the graveyard with any of it.
    """
    with connection.transaction():
        lent = [role for role in roles_of(server.target, level) if _lend(connection, role)]
        opened = [schema for schema in _schemas(connection, oid) if _open(connection, schema)]
        run(connection, "REASSIGN OWNED BY {} TO {}", username, GRAVEYARD)
        for schema in opened:
            run(connection, "REVOKE CREATE ON SCHEMA {} FROM {}", schema, GRAVEYARD)
        for role in lent:
            run(connection, "REVOKE {} FROM {}", role, GRAVEYARD)


def _lend(connection: Connection, role: str) -> bool:
    if not exists(connection, role) or value(connection, "SELECT pg_has_role(%s, %s, 'MEMBER')", (GRAVEYARD, role)):
        return False
    return _tried(connection, "GRANT {} TO {}", role, GRAVEYARD)


def _schemas(connection: Connection, oid: int) -> list[str]:
    """Schemas in which the user owns what needs CREATE of its new owner, and which the graveyard cannot write."""
    return column(
        connection,
        "SELECT n.nspname FROM pg_namespace n WHERE NOT has_schema_privilege(%s, n.oid, 'CREATE') AND n.oid IN ("
        " SELECT pronamespace FROM pg_proc WHERE proowner = %s::oid UNION SELECT oprnamespace FROM pg_operator WHERE oprowner = %s::oid"
        " UNION SELECT opcnamespace FROM pg_opclass WHERE opcowner = %s::oid UNION SELECT opfnamespace FROM pg_opfamily WHERE opfowner = %s::oid"
        " UNION SELECT collnamespace FROM pg_collation WHERE collowner = %s::oid UNION SELECT connamespace FROM pg_conversion WHERE conowner = %s::oid"
        " UNION SELECT typnamespace FROM pg_type WHERE typowner = %s::oid UNION SELECT relnamespace FROM pg_class WHERE relowner = %s::oid"
        " UNION SELECT cfgnamespace FROM pg_ts_config WHERE cfgowner = %s::oid UNION SELECT dictnamespace FROM pg_ts_dict WHERE dictowner = %s::oid"
        " UNION SELECT stxnamespace FROM pg_statistic_ext WHERE stxowner = %s::oid) AND n.nspname NOT LIKE 'pg\\_temp%%' AND n.nspname NOT LIKE 'pg\\_toast%%'",
        (GRAVEYARD, *(oid,) * 11),
    )


def _open(connection: Connection, schema: str) -> bool:
    granted = _tried(connection, "GRANT CREATE ON SCHEMA {} TO {}", schema, GRAVEYARD)
    return granted and bool(value(connection, "SELECT has_schema_privilege(%s, %s, 'CREATE')", (GRAVEYARD, schema)))


def _tried(connection: Connection, statement: str, *names: str) -> bool:
    """A right the bot may not have to give: where it has not, the step after it says what is missing."""
    try:
        with connection.transaction():
            connection.execute(sql.SQL(statement).format(*(sql.Identifier(n) for n in names)))
    except psycopg.errors.InsufficientPrivilege:
        return False
    return True


def _nothing_left(connection: Connection, username: str, oid: int) -> None:
    """DROP OWNED says yes also where it could not take away what others gave: ask the server what still hangs on the user."""
    left = column(
        connection,
        "SELECT DISTINCT coalesce(d.datname, 'the server itself') FROM pg_shdepend s LEFT JOIN pg_database d ON d.oid = s.dbid"
        " WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = %s::oid",
        (oid,),
    )
    if left:
        mend = f"as a superuser, in {left[0]}: REASSIGN OWNED BY {quoted(username)} TO {GRAVEYARD}; DROP OWNED BY {quoted(username)};"
        raise Rejected(f"others gave {username} rights in {', '.join(left)} that the bot cannot take away", mend=mend)


# Notes for the receipt.


def _note_kept_role(server: Server, connection: Connection, level: Level, tally: Tally) -> None:
    try:
        note = drop_unused(server, connection, level)
    except (psycopg.Error, Rejected, Unreachable) as error:
        note = f"The level's kept role could not be looked at ({type(error).__name__}); it gives nobody anything"
    if note:
        tally.notes.append(note)


def _note_standbys(connection: Connection, tally: Tally) -> None:
    """Sessions on a standby are invisible here and survive the drop."""
    standbys = value(connection, "SELECT count(*) FROM pg_stat_replication")
    if standbys:
        tally.notes.append(
            f"{standbys} standby servers are attached and none is named in databases.yml: sessions there were not looked at"
        )
