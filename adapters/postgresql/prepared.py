"""Rollback of the prepared transactions that a user left.

A prepared transaction survives its session and a restart, and keeps its locks. Only its owner may roll it back, in its database.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from itertools import groupby

import psycopg

from adapters.base import AdapterError, Rejected
from adapters.postgresql.connection import REVOKE_LIMIT_SECONDS, PostgreSQLConnection, PostgreSQLServer
from adapters.postgresql.roles import become_member
from adapters.postgresql.statements import bounded, column, quoted, quoted_acting_role, run, value

PREPARED_BY_USER = """
SELECT replace(p.gid, chr(92), repeat(chr(92), 2))::bytea, p.database, p.owner FROM pg_prepared_xacts p
 WHERE p.owner = %(name)s OR (EXISTS (
   SELECT 1 FROM pg_roles r WHERE r.rolname = ANY(%(roles)s) AND pg_has_role(r.oid, p.owner, 'MEMBER')) AND EXISTS (
   SELECT 1 FROM pg_locks x JOIN pg_locks l ON l.virtualtransaction = x.virtualtransaction AND l.pid IS NULL
    WHERE x.pid IS NULL AND x.locktype = 'transactionid' AND x.transactionid = p.transaction
      AND l.locktype = 'object' AND l.classid = 'pg_authid'::regclass AND l.objid = %(oid)s::oid)) ORDER BY p.database, p.owner
"""
"""The user's own transactions, and those that it prepared after SET ROLE: they belong to another role and lock the user's role.

The name is read as bytes, without conversion: it may be in the encoding of another database.
"""
PREPARED_BY_ROLES = """
SELECT replace(gid, chr(92), repeat(chr(92), 2))::bytea FROM pg_prepared_xacts WHERE owner = ANY(%s) ORDER BY prepared
"""


def roll_back(
    server: PostgreSQLServer, connection: PostgreSQLConnection, username: str, oid: int, roles: Sequence[str]
) -> list[str]:
    """Roll back the prepared transactions of the user, and those of its roles that lock the user's role.

    ``roles`` are the roles that the user had before its memberships were revoked. Returns a note on the transactions that belonged
    to another role, because somebody else may have prepared them.
    """
    rows = connection.execute(PREPARED_BY_USER, {"oid": oid, "name": username, "roles": [username, *roles]}).fetchall()
    others, left = list[str](), list[str]()
    for (database, owner), group in groupby(rows, key=lambda row: (row[1], row[2])):
        gids = [bytes(gid) for gid, _, _ in group]
        names = [f"{display_name(gid)} of {owner} in {database}" for gid in gids]
        try:
            _roll_back_in(server, database, owner, gids, is_own=owner == username)
        except AdapterError:
            left += names
        else:
            others += names if owner != username else []
    notes = (
        [f"Rolled back because it locked the user's role: the prepared transaction {bounded(others)}."]
        if others
        else []
    )
    if left:
        notes.append(
            f"Could not be rolled back, for example because nobody can connect to the database: the prepared transaction {bounded(left)}."
        )
    return notes


def _roll_back_in(server: PostgreSQLServer, database: str, owner: str, gids: Sequence[bytes], *, is_own: bool) -> None:
    """Roll back all these transactions of one owner in one database: own ones over one connection, because there may be hundreds."""
    if not is_own:
        for gid in gids:
            roll_back_one(server, database=database, owner=owner, gid=gid)
        return
    with server.session(database, limit=REVOKE_LIMIT_SECONDS) as in_database:
        become_member(in_database, owner)
        for gid in gids:
            with suppress(psycopg.errors.UndefinedObject):  # somebody else is ending the user, too
                _roll_back_as(in_database, owner, gid)


def display_name(gid: bytes) -> str:
    """The name of a prepared transaction as a receipt and an alert show it."""
    return ascii(gid.decode(errors="replace"))


def roll_back_one(server: PostgreSQLServer, *, database: str, owner: str, gid: bytes) -> None:
    """Roll back one prepared transaction of another role in its database. Raises Rejected where the bot may not."""
    with server.session(database, limit=REVOKE_LIMIT_SECONDS) as in_database:
        _roll_back_as_temporary_member(in_database, owner, gid)


def _roll_back_as(connection: PostgreSQLConnection, owner: str, gid: bytes) -> None:
    """Roll back as the owner. The name is sent as escaped bytes."""
    if not value(connection, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"):
        run(connection, "SET ROLE {}", owner)
    escaped = "".join(f"\\{byte:03o}" for byte in gid)
    connection.execute(f"ROLLBACK PREPARED E'{escaped}'".encode())


def _roll_back_as_temporary_member(connection: PostgreSQLConnection, owner: str, gid: bytes) -> None:
    """Roll back as another role. The bot's membership in it is revoked afterwards: ROLLBACK PREPARED cannot run in a transaction."""
    was_member = value(connection, "SELECT pg_has_role(%s, 'MEMBER')", (owner,))
    admin = connection.acting_role
    try:
        become_member(connection, owner)
        _roll_back_as(connection, owner, gid)
        connection.act_again()
    except psycopg.errors.InsufficientPrivilege:
        remedy = f"GRANT {quoted(owner)} TO {quoted_acting_role(connection)} WITH ADMIN OPTION;"
        raise Rejected(f"a prepared transaction of {owner} cannot be rolled back", remedy=remedy) from None
    if not was_member:
        run(connection, "REVOKE {} FROM {}", owner, admin)


def note_left_transactions(connection: PostgreSQLConnection, roles: Sequence[str]) -> list[str]:
    """A note on the prepared transactions of these roles, or nothing. They are left: the server does not say who prepared them."""
    names = column(connection, PREPARED_BY_ROLES, (list(roles),))
    if not names:
        return []
    named = bounded([display_name(bytes(name)) for name in names])
    return [f"{len(names)} prepared transactions of the level's own roles were not touched: {named}."]
