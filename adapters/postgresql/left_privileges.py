"""The privileges that others granted to a left role: revoked, so that the role's code reaches nothing but its own objects."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import LiteralString

import psycopg

from adapters.base import AdapterError
from adapters.postgresql.connection import PostgreSQLConnection, PostgreSQLServer
from adapters.postgresql.statements import bounded, column, quoted, run_raw

PRIVILEGES_AT_MOST = 200
"""Privileges that are revoked one by one, in one database."""
LOCK_SECONDS = 0.5
"""Seconds that tidying up waits for a lock. What it cannot get is left to the renamed role."""
REVOKE_SECONDS = 2.0
"""Seconds after which no further privilege is revoked. What is left then is named: others can hold a lock for each of hundreds of privileges."""
VISIT_SECONDS = 2.0
"""Time limit of a statement, and of the connection, in another database: its owner can hold up everybody who connects to it."""
NAME_LENGTH = 200
"""Characters of the name of an object in a receipt."""

DATABASES_WITH_PRIVILEGES: LiteralString = """
SELECT DISTINCT coalesce(d.datname, current_database()) FROM pg_shdepend s LEFT JOIN pg_database d ON d.oid = s.dbid
 WHERE s.refclassid = 'pg_authid'::regclass AND s.refobjid = %s::oid AND s.deptype = 'a' AND (s.dbid = 0 OR d.oid IS NOT NULL) ORDER BY 1
"""
GRANTED: LiteralString = """
SELECT CASE WHEN i.type IN ('table', 'view', 'materialized view', 'foreign table', 'table column') THEN 'TABLE' WHEN i.type = 'sequence' THEN 'SEQUENCE'
            WHEN i.type IN ('function', 'procedure', 'aggregate') THEN 'ROUTINE' WHEN i.type = 'server' THEN 'FOREIGN SERVER'
            WHEN i.type = 'foreign-data wrapper' THEN 'FOREIGN DATA WRAPPER'
            ELSE upper(i.type) END || ' ' || i.identity
  FROM (SELECT DISTINCT classid, objid FROM pg_shdepend
         WHERE refclassid = 'pg_authid'::regclass AND refobjid = %(oid)s::oid AND deptype = 'a' AND classid <> 'pg_default_acl'::regclass
           AND dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database())) LIMIT %(limit)s) s,
  LATERAL pg_identify_object(s.classid, s.objid, 0) i WHERE i.identity IS NOT NULL ORDER BY 1
"""


def revoke_privileges(server: PostgreSQLServer, connection: PostgreSQLConnection, role: str, oid: int) -> list[str]:
    """Revoke what others granted to the role. Returns a note on what the bot could not revoke: the role's code still reaches it."""
    remaining, deadline = list[str](), time.monotonic() + REVOKE_SECONDS
    for database in column(connection, DATABASES_WITH_PRIVILEGES, (oid,)):
        if time.monotonic() > deadline:
            remaining.append(f"things in {database}")
            continue
        try:
            with server.session(database, limit=VISIT_SECONDS) as in_database:
                in_database.set_lock_timeout(LOCK_SECONDS)
                remaining += _revoked_in(in_database, role, oid, deadline)
        except (AdapterError, psycopg.Error):
            remaining.append(f"things in {database}")
    if not remaining:
        return []
    named = bounded([name[:NAME_LENGTH] for name in remaining])
    return [f"Privileges that others granted to {role} and that the bot could not revoke: on {named}."]


def _revoked_in(connection: PostgreSQLConnection, role: str, oid: int, deadline: float) -> list[str]:
    """Revoke the privileges in this database, until the monotonic time ``deadline``. Returns the objects on which some are left."""
    limits: dict[str, object] = {"oid": oid, "limit": PRIVILEGES_AT_MOST}
    for name in column(connection, GRANTED, limits):
        if time.monotonic() > deadline:
            break
        with suppress(psycopg.Error), connection.transaction():
            run_raw(connection, f"REVOKE ALL ON {name} FROM {quoted(role)} CASCADE")
    return column(connection, GRANTED, limits)
