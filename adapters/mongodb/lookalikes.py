"""Servers that speak MongoDB's protocol and do not do its roles: refused, since a level would limit nothing there."""

from __future__ import annotations

import secrets
from typing import Any

from pymongo.errors import OperationFailure

from adapters.base import Rejected
from adapters.mongodb.connection import Connection, Server, close
from adapters.mongodb.errors import NOT_ALLOWED, code

KINDS = (
    ("ferretdb", "FerretDB"),
    ("ferretdbVersion", "FerretDB"),
    ("documentdb", "DocumentDB"),
    ("documentdb_api", "DocumentDB"),
)


def look_alike(build_info: dict[str, Any]) -> str | None:
    """Its name, or None for MongoDB itself."""
    return next((name for key, name in KINDS if key in build_info), None)


def refuse_look_alikes(connection: Connection) -> None:
    """Raises Rejected."""
    if (name := look_alike(connection.run("admin", {"buildInfo": 1}))) is not None:
        raise Rejected(
            f"this is {name}: it takes roles and does not limit by them", remedy="use a server that enforces roles"
        )


def refuse_where_roles_limit_nothing(server: Server) -> None:
    """Raises Rejected where a user without any role may read: whatever the server calls itself.

    Such a user is made, logs in, and is dropped. A crash in between leaves one that has no role and a password nobody knows.
    """
    name, password = f"dbaccess_probe_{secrets.token_hex(8)}", secrets.token_hex(16)
    with server.session(password) as connection:
        made = {"createUser": name, "pwd": password, "mechanisms": ["SCRAM-SHA-256"], "roles": []}
        connection.change(server.users, made)
        try:
            is_open = _may_read(server, name, password)
        finally:
            connection.change(server.users, {"dropUser": name})
    if is_open:
        raise Rejected(
            "a user without any role may read here: roles limit nothing", remedy="use a server that enforces roles"
        )


def _may_read(server: Server, username: str, password: str) -> bool:
    client = server.as_user(username, password)
    try:
        client[server.users].command({"find": "dbaccess_probe", "limit": 1})
    except OperationFailure as error:
        if code(error) != NOT_ALLOWED:
            raise
        return False
    finally:
        close(client)
    return True
