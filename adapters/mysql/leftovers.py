"""Drops what nobody needs any more: managed roles without a user, and events of users that were dropped long ago.

It also enables the events of a server that was promoted. No end needs any of this.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pymysql

from adapters.base import AdapterError
from adapters.mysql import events, users
from adapters.mysql.connection import MySQLConnection
from adapters.mysql.levels import MANAGED_ROLE, TIDY_TRIES, managed_roles_locked
from adapters.mysql.server import Server

EVENT_AGE = timedelta(days=1)
"""An event stays so long after its time, because the receipt tells from it that the server ended the user."""


def drop_leftovers(server: Server) -> list[str]:
    """A sentence for each thing that was dropped, enabled, or could not be."""
    done = list[str]()
    with server.session() as connection:
        if server.dialect.is_replica(connection):
            return []
        for step in (events.enable_again, _drop_old_events, _drop_unused_roles):
            done += _attempt(step, server, connection)
    return done


def _attempt(
    step: Callable[[Server, MySQLConnection], list[str]], server: Server, connection: MySQLConnection
) -> list[str]:
    try:
        return step(server, connection)
    except (AdapterError, pymysql.MySQLError) as error:
        return [f"leftovers could not be dropped: {error.args[-1] if error.args else type(error).__name__}"]


def _drop_old_events(server: Server, connection: MySQLConnection) -> list[str]:
    """An event of the future may belong to a user that is being created at this moment, so its time must have passed."""
    oldest = connection.now() - EVENT_AGE
    living = {found.username for found in users.find_accounts(server, connection)}
    known = events.find(connection, server.target).values()
    old = [
        e.username
        for e in known
        if e.ledger == server.target.ledger and e.username not in living and e.fires_at and e.fires_at < oldest
    ]
    return [
        f"the event of {name}, who is gone, was dropped" for name in old if not events.drop(server, connection, name)
    ]


def _drop_unused_roles(server: Server, connection: MySQLConnection) -> list[str]:
    dialect = server.dialect
    roles = [name for name in dialect.roles_named(connection, "dbaccess_") if MANAGED_ROLE.fullmatch(name)]
    if not any(not dialect.role_members(connection, role) for role in roles):
        return []
    done = list[str]()
    with managed_roles_locked(connection, TIDY_TRIES):
        for role in roles:
            if not dialect.role_members(connection, role):
                connection.run(f"DROP ROLE IF EXISTS {dialect.quoted_role(role)}")
                done.append(f"the managed role {role}, which no user has, was dropped")
    return done
