"""Compares users with their levels, and makes managed roles equal to their levels again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pymongo.errors import OperationFailure

from adapters.base import AdapterError, Level, Rejected
from adapters.mongodb.connection import MongoDBConnection, Server
from adapters.mongodb.errors import code
from adapters.mongodb.levels import (
    ensure_role,
    find_role,
    level_database,
    lock_of,
    managed_role,
    named_roles,
    privileges_of,
)
from adapters.mongodb.state import IS_BLOCKED, mark_of

SENTENCES_AT_MOST = 10
LONGEST = 300
MECHANISMS = {"SCRAM-SHA-256"}


def compare(server: Server, levels: Mapping[str, Level]) -> dict[str, tuple[str, ...]]:
    """Username → what differs: roles and login mechanisms. Left out are absent users, and those that ``block_users`` has blocked."""
    if not levels:
        return {}
    with server.session() as connection:
        documents = connection.run(server.users, {"usersInfo": 1})["users"]
        found = {
            document["user"]: _bounded(list(_differences(server, document, levels[document["user"]])))
            for document in documents
            if document["user"] in levels and not (mark_of(document) or {}).get(IS_BLOCKED)
        }
    return {name: sentences for name, sentences in found.items() if sentences}


def _differences(server: Server, document: dict[str, Any], level: Level) -> Iterator[str]:
    try:
        roles = named_roles(server, level)
        managed = managed_role(server, level)
        roles += [{"role": managed, "db": level_database(server, level)}] if managed else []
    except Rejected as error:
        yield f"its level cannot be given any more: {error.what}"
        return
    wanted = {f"{role['role']}@{role['db']}" for role in roles}
    held = {f"{role['role']}@{role['db']}" for role in document["roles"]}
    for name in sorted(held - wanted):
        yield f"its level does not give the role {name}"
    for name in sorted(wanted - held):
        yield f"it lacks the role {name} of its level"
    if further := sorted(set(document.get("mechanisms") or MECHANISMS) - MECHANISMS):
        yield f"it may also log in by {', '.join(further)}"


def _bounded(sentences: Sequence[str]) -> tuple[str, ...]:
    cut = [s if len(s) <= LONGEST else f"{s[: LONGEST - 1]}…" for s in sentences[:SENTENCES_AT_MOST]]
    further = len(sentences) - SENTENCES_AT_MOST
    return (*cut, *([f"and {further} more"] if further > 0 else []))


def refresh(server: Server, levels: Sequence[Level]) -> list[str]:
    """A sentence for each change of a managed role that users have, and for each role that could not be made equal."""
    managed = {role: level for level in levels if (role := managed_role(server, level)) is not None}
    if not managed:
        return []
    with server.session() as connection:
        users = connection.run(server.users, {"usersInfo": 1})["users"]
        held = {(role["role"], role["db"]) for user in users for role in user["roles"]}
        return [s[:LONGEST] for role, level in managed.items() for s in _refresh(server, connection, level, role, held)]


def _refresh(
    server: Server, connection: MongoDBConnection, level: Level, role: str, held: set[tuple[str, str]]
) -> list[str]:
    try:
        database = level_database(server, level)
        with lock_of(server):
            if (role, database) not in held or find_role(connection, database, role) is None:
                return []
            changes = ensure_role(connection, database, role, privileges_of(level, database))
    except (AdapterError, OperationFailure) as error:
        reason = f"error {code(error)}" if isinstance(error, OperationFailure) else str(error)
        return [f"{role} could not be made equal to its level {level.name}: {reason}"]
    return [f"{change}, as its level {level.name} has it" for change in changes]
