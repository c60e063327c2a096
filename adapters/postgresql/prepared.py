"""Prepared transactions survive kills and restarts, hold locks, and may be rolled back by their owner alone, in their database."""

from __future__ import annotations

from collections.abc import Sequence

import psycopg

from adapters.base import Rejected
from adapters.postgresql.connection import (
    REVOKE_LIMIT_SECONDS,
    PostgreSQLConnection,
    Server,
    column,
    quoted,
    quoted_acting_role,
    run,
    value,
)
from adapters.postgresql.members import become_member

PREPARED_BY_USER = """
SELECT replace(p.gid, chr(92), repeat(chr(92), 2))::bytea, p.database, p.owner FROM pg_prepared_xacts p
 WHERE p.owner = %(name)s OR (EXISTS (
   SELECT 1 FROM pg_roles r WHERE r.rolname = ANY(%(roles)s) AND pg_has_role(r.oid, p.owner, 'MEMBER')) AND EXISTS (
   SELECT 1 FROM pg_locks x JOIN pg_locks l ON l.virtualtransaction = x.virtualtransaction AND l.pid IS NULL
    WHERE x.pid IS NULL AND x.locktype = 'transactionid' AND x.transactionid = p.transaction
      AND l.locktype = 'object' AND l.classid = 'pg_authid'::regclass AND l.objid = %(oid)s::oid))
"""
PREPARED_BY_ROLES = """
SELECT replace(gid, chr(92), repeat(chr(92), 2))::bytea FROM pg_prepared_xacts WHERE owner = ANY(%s) ORDER BY prepared
"""
"""The user's own, and those it prepared after SET ROLE: they belong to another role and still hold the user's role locked.

A name is read as it is stored, unconverted and unchecked: it may have been given in another database's encoding.
"""


NAMED_AT_MOST = 5


def roll_back(
    server: Server, connection: PostgreSQLConnection, username: str, oid: int, roles: Sequence[str]
) -> list[str]:
    """All that the user left prepared and that would keep its role from being dropped. ``roles`` are those it had, for it may have lost them by now.

    Returns a note for each that belonged to another role: somebody else may have prepared it.
    """
    rows = connection.execute(PREPARED_BY_USER, {"oid": oid, "name": username, "roles": [username, *roles]}).fetchall()
    for gid, database, owner in rows:
        roll_back_one(server, database=database, owner=owner, gid=bytes(gid), is_own=owner == username)
    others = [f"{display_name(bytes(gid))} of {owner} in {database}" for gid, database, owner in rows if owner != username]
    if not others:
        return []
    further = f" and {len(others) - NAMED_AT_MOST} more" if len(others) > NAMED_AT_MOST else ""
    named = ", ".join(others[:NAMED_AT_MOST])
    return [f"Rolled back, for it held the user's role locked: the prepared transaction {named}{further}."]


def display_name(gid: bytes) -> str:
    """As a receipt and an alert name it."""
    return ascii(gid.decode(errors="replace"))


def roll_back_one(server: Server, *, database: str, owner: str, gid: bytes, is_own: bool = False) -> None:
    """One of them, in its database. ``is_own``: it belongs to the user that ends, of whom the bot stays a member. Raises Rejected."""
    with server.session(database, limit=REVOKE_LIMIT_SECONDS) as there:
        if is_own:
            become_member(there, owner)
            _roll_back_as(there, owner, gid)
        else:
            _roll_back_as_temporary_member(there, owner, gid)


def _roll_back_as(connection: PostgreSQLConnection, owner: str, gid: bytes) -> None:
    """The name is sent byte by byte."""
    if not value(connection, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"):
        run(connection, "SET ROLE {}", owner)
    escaped = "".join(f"\\{byte:03o}" for byte in gid)
    connection.execute(f"ROLLBACK PREPARED E'{escaped}'".encode())


def _roll_back_as_temporary_member(connection: PostgreSQLConnection, owner: str, gid: bytes) -> None:
    """One of another role. Membership is taken for this alone; ROLLBACK PREPARED runs in no transaction, so it is given back after."""
    was_member = value(connection, "SELECT pg_has_role(%s, 'MEMBER')", (owner,))
    admin = connection.acting_role
    try:
        become_member(connection, owner)
        _roll_back_as(connection, owner, gid)
        run(connection, "RESET ROLE")
        if admin != value(connection, "SELECT current_user"):
            run(connection, "SET ROLE {}", admin)
    except psycopg.errors.InsufficientPrivilege:
        remedy = f"GRANT {quoted(owner)} TO {quoted_acting_role(connection)} WITH ADMIN OPTION;"
        raise Rejected(f"a prepared transaction of {owner} cannot be rolled back", remedy=remedy) from None
    if not was_member:
        run(connection, "REVOKE {} FROM {}", owner, admin)


def note_left_transactions(connection: PostgreSQLConnection, roles: Sequence[str]) -> list[str]:
    """What somebody prepared as one of these roles cannot be told apart from what others did, so it is named and left."""
    names = column(connection, PREPARED_BY_ROLES, (list(roles),))
    if not names:
        return []
    named = ", ".join(display_name(bytes(name)) for name in names[:NAMED_AT_MOST])
    return [f"{len(names)} prepared transactions of the level's own roles were left as they are: {named}."]
