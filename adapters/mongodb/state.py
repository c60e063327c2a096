"""Describes what a user of a level could change so that it outlives the user: roles, users, views and stored functions.

The bot may lack the rights to see some of it. The state then says so, and the end is not affected.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

from pymongo.errors import OperationFailure

from adapters.base import Level
from adapters.level_state import LevelState
from adapters.mongodb.connection import MongoDBConnection, Server
from adapters.mongodb.levels import level_database, named_roles
from adapters.usernames import username_pattern

UNSEEN = "could not be read"
IS_BLOCKED = "is_blocked"
"""The key in the mark of a user that was created again to block it, see ``blocking``."""


def describe(server: Server, level: Level) -> LevelState:
    """The state of the level. Raises only AdapterError."""
    with server.session(to_end=True) as connection:
        kinds: dict[str, Callable[[], Iterator[str]]] = {
            "roles of the level": lambda: _roles(server, connection, level),
            f"users in {server.users} beside the temporary ones": lambda: _users(server, connection),
            "views": lambda: _views(server, connection, level),
            "stored functions (system.js)": lambda: _functions(server, connection, level),
        }
        return LevelState.of((kind, fact) for kind, facts in kinds.items() for fact in _seen(facts))


def _seen(facts: Callable[[], Iterator[str]]) -> list[str]:
    try:
        return list(facts())
    except OperationFailure:  # a right is missing, or the server does not know the command
        return [UNSEEN]


def _roles(server: Server, connection: MongoDBConnection, level: Level) -> Iterator[str]:
    """The level's own roles with all they inherit. Built-in roles never change, and dbaccess itself changes managed roles."""
    for role in named_roles(server, level):
        for found in connection.run(role["db"], {"rolesInfo": role, "showPrivileges": True})["roles"]:
            if not found.get("isBuiltin"):
                below = sorted(f"{one['role']}@{one['db']}" for one in found.get("inheritedRoles", ()))
                privileges = sorted(map(_privilege, found.get("privileges", ())))
                yield f"{role['role']}@{role['db']}: {'; '.join([*below, *privileges])}"


def _privilege(privilege: dict[str, Any]) -> str:
    resource = ".".join(str(part) for part in privilege["resource"].values())
    return f"{','.join(sorted(privilege['actions']))} on {resource}"


def _users(server: Server, connection: MongoDBConnection) -> Iterator[str]:
    """Users of other ledgers come and go as this ledger's do, so no user with a mark is described."""
    pattern = username_pattern(server.target.prefix)
    for user in connection.run(server.users, {"usersInfo": 1})["users"]:
        if mark_of(user) is None and not pattern.fullmatch(user["user"]):
            roles = sorted(f"{one['role']}@{one['db']}" for one in user["roles"])
            yield f"{user['user']}: {', '.join(roles)}"


def mark_of(document: dict[str, Any]) -> dict[str, Any] | None:
    """The mark of dbaccess in a user's document, or None. A mark that a person wrote by hand may hold anything."""
    custom = document.get("customData")
    mark = custom.get("dbaccess") if isinstance(custom, dict) else None
    return mark if isinstance(mark, dict) else None


def _views(server: Server, connection: MongoDBConnection, level: Level) -> Iterator[str]:
    command = {"listCollections": 1, "filter": {"type": "view"}}
    for view in connection.rows(level_database(server, level), command):
        yield f"{view['name']} [{hashlib.sha256(view['options'].raw).hexdigest()[:8]}]"


def _functions(server: Server, connection: MongoDBConnection, level: Level) -> Iterator[str]:
    command = {"aggregate": "system.js", "pipeline": [{"$match": {}}]}
    for function in connection.rows(level_database(server, level), command):
        yield f"{function['_id']} [{hashlib.sha256(function.raw).hexdigest()[:8]}]"  # type: ignore[attr-defined]
