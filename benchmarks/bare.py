"""The limit: the same SQL over one connection by the bare driver, and one durable commit for each change of state.

The SQL is read from the server's log while the adapter creates and drops one user. So it is what the adapter sends today, without
the statements that only set up a session.
"""

from __future__ import annotations

import re
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from statistics import median
from typing import Any

import psycopg
from psycopg import sql

from adapters.base import UserSpec
from adapters.postgresql import PostgreSQL, held
from tests.contract.postgresql.harness import EngineHarness, build, readonly
from tests.servers.postgresql import PostgresServer

CHANGES_OF_GRANT = ("approved", "started", "active")
CHANGES_OF_END = ("revoking", "revoked")
ENTRY = re.compile(r"^(\d+) [^\n]*? (LOG|DETAIL):  (.*?)(?=^\d+ [^\n]*? [A-Z]+:  |\Z)", re.MULTILINE | re.DOTALL)
STATEMENT = re.compile(r"(?:statement|execute [^:]*): (.*)", re.DOTALL)
PARAMETER = re.compile(r"\$(\d+) = (NULL|'(?:[^']|'')*')")
TERMINATE = "pg_terminate_backend"
OF_ITS_SESSION = re.compile(r"(OPERATOR\(pg_catalog\.=\)) '?\d+'?::pg_catalog\.int4")
"""The adapter takes its role only in the session that it opened, which it knows by its process."""


@dataclass(frozen=True, kw_only=True)
class Script:
    """The statements of one grant and its end, for the user ``username`` with this oid and password."""

    set_up: Sequence[str]
    create: Sequence[str]
    drop: Sequence[str]
    username: str
    oid: str
    password: str


@dataclass(frozen=True, kw_only=True)
class BareTimes:
    """Seconds of each grant until its login works, of each end until its session is dead, and until all is read back and stored."""

    usable: Sequence[float]
    dead: Sequence[float]
    ended: Sequence[float]

    def usable_at_once(self, number: int) -> list[float]:
        """The seconds from the start until each of ``number`` grants that begin together is usable, over one connection."""
        return _one_after_another(self.usable, number)

    def dead_at_once(self, number: int) -> list[float]:
        return _one_after_another(self.dead, number)

    def ended_at_once(self, number: int) -> list[float]:
        return _one_after_another(self.ended, number)


def _one_after_another(seconds: Sequence[float], number: int) -> list[float]:
    repeated = [seconds[n % len(seconds)] for n in range(number)]
    return list(accumulate(repeated))


def measure_bare(server: PostgresServer, folder: Path, rounds: int = 30) -> BareTimes:
    """Blocking: run it in a thread."""
    harness = build(server)
    script = _recorded(harness)
    usable, dead, ended = list[float](), list[float](), list[float]()
    with _durable(folder / "bare.db") as commit, harness_connection(harness) as connection:
        for statement in script.set_up:
            connection.execute(OF_ITS_SESSION.sub(r"\1 pg_catalog.pg_backend_pid()", statement).encode())
        for number in range(rounds):
            grant = _Grant(
                harness, script, f"{harness.prefix}{900 + number}_bare_{secrets.token_hex(2)}", connection, commit
            )
            usable.append(grant.begin())
            until_dead, until_ended = grant.end()
            dead.append(until_dead)
            ended.append(until_ended)
    return BareTimes(usable=usable, dead=dead, ended=ended)


@dataclass
class _Grant:
    harness: EngineHarness
    script: Script
    username: str
    connection: psycopg.Connection[Any]
    commit: Callable[[str], None]
    session: psycopg.Connection[Any] | None = None

    def begin(self) -> float:
        started = time.monotonic()
        self.commit("approved")
        self.commit("started")
        for statement in self.script.create:
            self.connection.execute(self._own(statement).encode())
        self.commit("active")
        spec = UserSpec(
            username=self.username, password=self.script.password, level=readonly(), remaining=1, request_id=1
        )
        self.session = self.harness.login(spec)
        return time.monotonic() - started

    def end(self) -> tuple[float, float]:
        with self.harness.superuser("postgres") as superuser:
            found = superuser.execute("SELECT oid FROM pg_roles WHERE rolname = %s", (self.username,)).fetchone()
        assert found is not None, "just created"
        started, dead_after = time.monotonic(), 0.0
        self.commit("revoking")
        for statement in self.script.drop:
            self.connection.execute(re.sub(rf"\b{self.script.oid}\b", str(found[0]), self._own(statement)).encode())
            if TERMINATE in statement and not dead_after:
                dead_after = time.monotonic() - started
        self.commit("revoked")
        assert self.session is not None, "begun"
        self.session.close()
        return dead_after, time.monotonic() - started

    def _own(self, statement: str) -> str:
        return statement.replace(self.script.username, self.username)


@contextmanager
def harness_connection(harness: EngineHarness) -> Iterator[psycopg.Connection[Any]]:
    """One connection of the bot's login."""
    url = harness.secrets().admin_url
    with psycopg.connect(url, autocommit=True) as connection:
        yield connection


@contextmanager
def _durable(path: Path) -> Iterator[Callable[[str], None]]:
    """Changes the state of a row and adds an event, in a transaction that survives a power cut."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("CREATE TABLE requests (id INTEGER PRIMARY KEY, state TEXT, terms TEXT)")
    connection.execute("CREATE TABLE events (id INTEGER PRIMARY KEY, kind TEXT, facts TEXT)")
    connection.execute("INSERT INTO requests VALUES (1, 'pending', ?)", ("x" * 800,))

    def commit(state: str) -> None:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("UPDATE requests SET state = ? WHERE id = 1", (state,))
        connection.execute("INSERT INTO events (kind, facts) VALUES (?, ?)", (state, "x" * 100))
        connection.execute("COMMIT")

    try:
        yield commit
    finally:
        connection.close()


def measure_durable_commit(folder: Path, rounds: int = 50) -> float:
    """The median seconds of one durable commit."""
    taken = []
    with _durable(folder / "commit.db") as commit:
        for _ in range(rounds):
            started = time.monotonic()
            commit("active")
            taken.append(time.monotonic() - started)
    return median(taken)


# What the adapter sends, from the server's log.


def _recorded(harness: EngineHarness) -> Script:
    with harness.superuser("postgres") as superuser:
        for change in ("SET log_statement = 'all'", "SET log_min_duration_statement = -1"):
            superuser.execute(sql.SQL("ALTER ROLE {} " + change).format(sql.Identifier(harness.bot)))
    adapter, spec = harness.adapter(), harness.spec(replace(readonly(), settings={}))
    try:
        set_up = _statements_of(harness.server, adapter.identity)[:-1]
        create = _statements_of(harness.server, lambda: adapter.create_user(spec))
        with harness.superuser("postgres") as superuser:
            row = superuser.execute("SELECT oid FROM pg_roles WHERE rolname = %s", (spec.username,)).fetchone()
        assert row is not None, "just created"
        session = harness.login(spec)
        drop = _statements_of(harness.server, lambda: _drop(adapter, spec))
        session.close()
    finally:
        held.close_all()
    own_part = [_without(set_up, statements) for statements in (create, drop)]
    return Script(
        set_up=set_up, create=own_part[0], drop=own_part[1], username=spec.username, oid=str(row[0]), password=spec.password
    )  # fmt: skip


def _drop(adapter: PostgreSQL, spec: UserSpec) -> None:
    adapter.drop_user(spec.username, spec.level)


def _statements_of(server: PostgresServer, call: Callable[[], object]) -> list[str]:
    """The statements of the sessions that ``call`` opened, except those of the held connection."""
    known = len(server.log_text())
    call()
    time.sleep(0.3)
    by_session: dict[str, list[str]] = {}
    for session, kind, text in ENTRY.findall(server.log_text()[known:]):
        statements = by_session.setdefault(session, [])
        if kind == "LOG" and (found := STATEMENT.match(text)):
            statements.append(found[1].strip())
        elif kind == "DETAIL" and statements:
            statements[-1] = _with_parameters(statements[-1], text)
    sessions = [each for each in by_session.values() if each and not any(held.APPLICATION_NAME in s for s in each)]
    return [statement for session in sessions for statement in session]


def _with_parameters(statement: str, detail: str) -> str:
    values = dict(PARAMETER.findall(detail))
    return re.sub(r"\$(\d+)", lambda found: values.get(found[1], found[0]), statement)


def _without(set_up: Sequence[str], statements: Sequence[str]) -> list[str]:
    """The statements without those that set up a session, wherever a session begins among them."""
    found, position = list[str](), 0
    while position < len(statements):
        if set_up and list(statements[position : position + len(set_up)]) == list(set_up):
            position += len(set_up)
        else:
            found.append(statements[position])
            position += 1
    return found
