"""Decides whether a server may get temporary users at all: its version, its kind, and whether it enforces users and roles.

New grants are refused on other servers. Users that already live there are still listed and dropped: those paths never look at the version.
"""

from __future__ import annotations

import re
import secrets
from typing import Any

from pymongo.errors import OperationFailure

from adapters.base import Rejected
from adapters.mongodb.connection import MongoDBConnection, Server, close
from adapters.mongodb.errors import NOT_ALLOWED, code

OLDEST = 7
"""The first major version that is supported."""

LOOK_ALIKES = {
    "ferretdb": "FerretDB",
    "ferretdbVersion": "FerretDB",
    "documentdb": "DocumentDB",
    "documentdb_api": "DocumentDB",
}
"""Fields of ``buildInfo`` that only these servers have, and their names."""

NO_AUTHORIZATION = "the server answers clients that do not log in: users and roles have no effect there"
AUTHORIZATION_REMEDY = "start mongod with --auth (security.authorization: enabled)"
ENFORCING_REMEDY = "use a server that enforces roles"


def unsupported(build_info: dict[str, Any]) -> tuple[str, str] | None:
    """The reason why this server gets no new grants, and the remedy. None for a supported server.

    ``build_info`` is the reply of ``buildInfo``. A version that cannot be read counts as unsupported.
    """
    for field, name in LOOK_ALIKES.items():
        if field in build_info:
            return f"this is {name}: it accepts roles and does not limit by them", ENFORCING_REMEDY
    version = str(build_info["version"])
    major = re.match(r"\d+", version)
    if major is None or int(major[0]) < OLDEST:
        remedy = f"upgrade the server to MongoDB {OLDEST}.0 or later; users that are already there are still ended"
        return f"MongoDB {version} is not supported: no new grants", remedy
    return None


def refuse_unsupported(connection: MongoDBConnection) -> None:
    """Raises Rejected on an older version and on a look-alike."""
    if (found := unsupported(connection.build_info())) is not None:
        what, remedy = found
        raise Rejected(what, remedy=remedy)


def refuse_without_authorization(server: Server) -> None:
    """Raises Rejected where a client that does not log in is answered."""
    if answers_without_login(server):
        raise Rejected(NO_AUTHORIZATION, remedy=AUTHORIZATION_REMEDY)


def answers_without_login(server: Server) -> bool:
    """Whether a client that does not log in may list databases: then users and roles have no effect."""
    with server.without_login() as connection:
        try:
            connection.run("admin", {"listDatabases": 1, "nameOnly": True})
        except OperationFailure as error:
            if code(error) == NOT_ALLOWED:
                return False
            raise
        return True


def refuse_unenforced_roles(server: Server) -> None:
    """Raises Rejected where a user without any role may read, whatever name and version the server reports.

    The probe creates such a user, logs in as it, and drops it. A crash in between leaves a user without roles, whose password nobody knows.
    """
    name, password = f"dbaccess_probe_{secrets.token_hex(8)}", secrets.token_hex(16)
    with server.session(password) as connection:
        connection.change(
            server.users, {"createUser": name, "pwd": password, "mechanisms": ["SCRAM-SHA-256"], "roles": []}
        )
        try:
            is_open = _may_read(server, name, password)
        finally:
            connection.change(server.users, {"dropUser": name})
    if is_open:
        raise Rejected("a user without any role may read here: roles limit nothing", remedy=ENFORCING_REMEDY)


def _may_read(server: Server, username: str, password: str) -> bool:
    client = server.client_of(username, password)
    try:
        client[server.users].command({"find": "dbaccess_probe", "limit": 1})
    except OperationFailure as error:
        if code(error) != NOT_ALLOWED:
            raise
        return False
    finally:
        close(client)
    return True
