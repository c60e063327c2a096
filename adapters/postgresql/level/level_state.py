"""The state of a level on the server, and its changes while a grant was live. Changes nothing.

A user acts with the rights of the level's roles. As a member of an owner it may replace the owner's functions, grant the owner's rights
to others, and attach code to the owner's tables. The state describes all of it, so that a receipt names what is different at the end.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import psycopg

from adapters.base import AdapterError, Level, ServerDown
from adapters.level_state import LevelState
from adapters.postgresql.connection import PostgreSQLConnection, PostgreSQLServer
from adapters.postgresql.held import server_key
from adapters.postgresql.level.grants import level_database, roles_of
from adapters.postgresql.level.level_facts import FEW_FACTS, FIRST_LOOK, GRANTS, OBJECTS
from adapters.postgresql.level.shared_reading import shared_reading

NAMED_OF_A_GROUP = 5
NAMED_OF_A_KIND = 1000
FIRST_OWN_OID = 16384
"""Objects with a smaller oid came with the server."""
STARTED = "first transaction"
"""The kind with the server's transaction number at the time of the state. It is no difference; younger objects are newer than the state."""
NAMES_SECONDS = 3.0
COMPARE_SECONDS = 5.0


def level_state(server: PostgreSQLServer, level: Level) -> LevelState:
    """What users of the level could change in a way that outlives them. Raises AdapterError."""
    return _shared_state(server, level)


def changes_of_level(server: PostgreSQLServer, level: Level, before: LevelState | None) -> list[str]:
    """A sentence for each kind of thing that is different now. ``before`` is the state before the user was created.

    Raises nothing: a state that cannot be read is a sentence too, and no reason to delay an end.
    """
    return changes_of_levels(server, [(level, before)])[0]


def changes_of_levels(server: PostgreSQLServer, users: Sequence[tuple[Level, LevelState | None]]) -> list[list[str]]:
    """As ``changes_of_level`` for several users that are gone, in the same order. Each level is read once.

    The names of what is newer are read once for each state before, and for ``NAMES_SECONDS`` in all: an end must not wait for them.
    """
    states = dict[str, LevelState | AdapterError]()
    known = dict[str, list[str]]()
    deadline = time.monotonic() + NAMES_SECONDS
    for level, before in users:
        if before is None or (key := f"{level}{before}") in known:
            continue
        if str(level) not in states:
            states[str(level)] = _state_or_error(server, level)
        known[key] = _changes(server, level, before, states[str(level)], names=time.monotonic() < deadline)
    return [[] if before is None else known[f"{level}{before}"] for level, before in users]


def _state_or_error(server: PostgreSQLServer, level: Level) -> LevelState | AdapterError:
    try:
        return _shared_state(server, level)
    except AdapterError as error:
        return error
    except psycopg.Error as error:
        return ServerDown(str(error))


def _changes(
    server: PostgreSQLServer, level: Level, before: LevelState, found: LevelState | AdapterError, *, names: bool
) -> list[str]:
    """The differences of one user. ``names``: with the names of what is newer than ``before``, which takes a reading of its own."""
    try:
        if isinstance(found, AdapterError):
            raise found
        now = found
        if names and _without_start(before).differences(_without_start(now)):
            with server.session(level_database(server, level), limit=COMPARE_SECONDS) as connection:
                now = _state(server, connection, level, before=before)
    except (psycopg.Error, AdapterError) as error:
        return [f"The roles of the level {level.name} were not compared with their state before the grant: {error}"]
    return list(_without_start(before).differences(_without_start(now)))


def _shared_state(server: PostgreSQLServer, level: Level) -> LevelState:
    """The state as of now, from a reading that grants and ends of the same level share."""
    database = level_database(server, level)

    def read() -> LevelState:
        with server.session(database, limit=COMPARE_SECONDS) as connection:
            return _state(server, connection, level)

    key = (
        server_key(server),
        str(server.target.identity),
        server.target.prefix,
        database,
        *roles_of(server.target, level),
    )
    return shared_reading(key, read)


def _without_start(state: LevelState) -> LevelState:
    return LevelState(kinds={kind: facts for kind, facts in state.kinds.items() if kind != STARTED})


def _state(
    server: PostgreSQLServer, connection: PostgreSQLConnection, level: Level, *, before: LevelState | None = None
) -> LevelState:
    names = {"roles": roles_of(server.target, level), "prefix": server.target.prefix, "started": _start_of(before)}
    row = connection.execute(FIRST_LOOK, names).fetchone()
    assert row is not None, "a SELECT without FROM has one row"
    _, now, since, scope, ours = row
    parameters: dict[str, object] = {
        "scope": scope,
        "has_predefined": any(oid < FIRST_OWN_OID for oid in scope),
        "ours": ours,
        "since": since,
        "few": NAMED_OF_A_GROUP,
        "most": NAMED_OF_A_KIND,
    }
    facts = [(STARTED, now)]
    for kind, number, digest, listed in connection.execute(FEW_FACTS, parameters):
        facts += ((kind, fact) for fact in listed or [f"{number} in all [{digest}]"])
    for query in (GRANTS, OBJECTS):
        for kind, common, number, digest, names, newer, further in connection.execute(query, parameters):
            folded = f"{number} {common} [{digest}]"
            facts += ((kind, f"{name} ({common})") for name in names or ())
            if names is None:
                facts.append((kind, folded))
                facts += ((kind, f"{name} ({common})") for name in _newer(before, kind, folded, newer, further))
    return LevelState.of((kind, " ".join(fact.split())) for kind, fact in facts)


def _start_of(before: LevelState | None) -> str | None:
    """The server's transaction number at the time of ``before``, if known."""
    started = before.kinds.get(STARTED, ()) if before else ()
    return started[0] if started and started[0].isdigit() else None


def _newer(before: LevelState | None, kind: str, folded: str, newer: Sequence[str], further: int) -> Iterator[str]:
    """The new names of a group with many objects, where the group is not what it was."""
    same = LevelState.of([(kind, " ".join(folded.split()))]).kinds[kind][0]
    if before is not None and same not in before.kinds.get(kind, ()):
        yield from newer
        if further > 0:
            yield f"{further} more newer than the grant"
