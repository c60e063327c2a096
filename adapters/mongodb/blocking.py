"""Blocks users whose ends fall together: drop all, end what they run, and create each again without roles and with an unknown password.

MongoDB cannot lock a user, and a changed password leaves open connections their rights. A user that was dropped and created again is another user
to the server: every connection of the first loses its rights at once. The second has the mark, so that the end that follows finds it.
After a crash between the two, the end finds no user.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

from pymongo.errors import OperationFailure

from adapters.base import AdapterError, WrongServer
from adapters.mongodb import sessions
from adapters.mongodb.connection import STATEMENT_MS, UNMARKED, MongoDBConnection, Server, identity
from adapters.mongodb.errors import NOT_ALLOWED, suppress_code
from adapters.mongodb.state import IS_BLOCKED, mark_of
from adapters.mongodb.users import from_document
from adapters.usernames import username_pattern

END_SECONDS = 2.0


def block(server: Server, usernames: Sequence[str]) -> frozenset[str]:
    """Block these users on the primary, or through every router of the URL. Returns those that are absent or blocked and run nothing."""
    pattern = username_pattern(server.target.prefix)
    names = {name for name in usernames if pattern.fullmatch(name)}
    if not names:
        return frozenset()
    with server.session(to_end=True) as connection:
        known = _documents(server, connection, names)
        _require_same(server, connection, known)
        foreign = {n for n, found in known.items() if from_document(found).ledger not in (None, server.target.ledger)}
        ours = [found for name, found in sorted(known.items()) if name not in foreign]
        for found in ours:
            _change(server, connection, {"dropUser": found["user"]})
        living = _end(server, connection, [found["user"] for found in ours])
        for found in ours:
            _create_again(server, connection, found)
        after = _documents(server, connection, names)
        return frozenset(names - foreign - living - {name for name, found in after.items() if found["roles"]})


def _documents(server: Server, connection: MongoDBConnection, names: set[str]) -> dict[str, dict[str, Any]]:
    found = connection.run(server.users, {"usersInfo": 1})["users"]
    return {document["user"]: document for document in found if document["user"] in names}


def _require_same(server: Server, connection: MongoDBConnection, known: Mapping[str, dict[str, Any]]) -> None:
    """Raises WrongServer, as the end of one user does: see ``users``."""
    expected, found = server.target.identity, None
    with suppress_code(NOT_ALLOWED):
        found = identity(connection, server.users)
    is_lost = found == UNMARKED and any(from_document(d).ledger == server.target.ledger for d in known.values())
    if expected is not None and found not in (None, expected) and not is_lost:
        raise WrongServer(expected=expected, found=str(found))


def _change(server: Server, connection: MongoDBConnection, command: Mapping[str, Any]) -> None:
    """Confirmed by the primary alone: the end that follows waits for a majority. A refusal is left to the read-back."""
    with suppress(OperationFailure):
        connection.run(server.users, {**command, "writeConcern": {"w": 1}, "maxTimeMS": STATEMENT_MS})


def _create_again(server: Server, connection: MongoDBConnection, document: Mapping[str, Any]) -> None:
    mark = {**(mark_of({**document}) or {"ledger": server.target.ledger}), IS_BLOCKED: True}
    command = {
        "createUser": document["user"],
        "pwd": secrets.token_hex(32),
        "mechanisms": ["SCRAM-SHA-256"],
        "roles": [],
        "customData": {"dbaccess": mark},
    }
    _change(server, connection, command)


def _end(server: Server, connection: MongoDBConnection, names: Sequence[str]) -> set[str]:
    """End what these dropped users run. Returns those that run something after END_SECONDS. A router that does not answer lets nobody in."""
    living = set[str]()
    for opened in _routers(server, connection) if names else ():
        with suppress(AdapterError), opened as member:
            if member is not connection:
                member.run("admin", {"invalidateUserCache": 1})
            living |= sessions.end_together(server, member, names, END_SECONDS)
    return living


def _routers(server: Server, connection: MongoDBConnection) -> Iterator[AbstractContextManager[MongoDBConnection]]:
    """Each router of the URL, which caches users; elsewhere the connection."""
    if connection.hello().is_router:
        yield from (server.member(address) for address in server.addresses())
    else:
        yield nullcontext(connection)
