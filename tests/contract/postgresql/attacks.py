"""Shared parts of the attack tests: users, sessions, a revocation with its retries, and assertions on its result."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import psycopg

from adapters.base import AdapterError, Finding, Level, Removal, UserSpec
from adapters.harness import wait_until
from adapters.level_state import LevelState
from adapters.postgresql import PostgreSQL, held
from tests.contract.postgresql.harness import EngineHarness
from tests.open_faults import require

Session: TypeAlias = psycopg.Connection[Any]
FRIENDS_PASSWORD = "FriendSecret0Login"
PROTOCOL_3 = 196_608


@dataclass(frozen=True, kw_only=True)
class End:
    """The result of the last try to end a user: the removal, or the text of the error."""

    removal: Removal | None
    error: str = ""

    @property
    def report_text(self) -> str:
        """All text that a reader of the receipt or the alert sees."""
        if self.removal is None:
            return self.error
        return "\n".join([*self.removal.left_behind, *self.removal.notes])


@dataclass
class Attack:
    """A harness with users and sessions that are closed after the test."""

    harness: EngineHarness
    stack: contextlib.ExitStack
    oids: dict[str, int] = field(default_factory=dict)
    states: dict[str, LevelState] = field(default_factory=dict)
    """The state of the level before each user was created. The application keeps it in the ledger."""

    def user(self, level: Level, adapter: PostgreSQL | None = None) -> UserSpec:
        spec = self.harness.spec(level)
        self.states[spec.username] = (adapter or self.harness.adapter()).level_state(level)
        (adapter or self.harness.adapter()).create_user(spec)
        ((self.oids[spec.username],),) = self.query("SELECT oid FROM pg_roles WHERE rolname = %s", spec.username)
        return spec

    def wait_for_held_connection(self) -> None:
        """Wait until the adapter holds its connection to the server. It opens it when it creates or lists users."""
        server = self.harness.adapter().server
        wait_until(lambda: held.is_held(server))

    def session(self, spec: UserSpec, database: str | None = None) -> Session:
        return self.stack.enter_context(contextlib.closing(self.harness.login(spec, database)))

    def transaction(self, spec: UserSpec) -> Session:
        """A session without autocommit."""
        session = self.session(spec)
        session.autocommit = False
        return session

    @property
    def friend(self) -> str:
        """The name of a permanent login with few rights."""
        return f"mallory_{self.harness.bot}"

    def make_friend(self) -> None:
        """Create the friend, which may connect and use the schema."""
        friend, database = self.friend, self.harness.database
        self.as_superuser(f"CREATE ROLE {friend} LOGIN PASSWORD '{FRIENDS_PASSWORD}'")
        self.as_superuser(f'GRANT CONNECT ON DATABASE "{database}" TO {friend}; GRANT USAGE ON SCHEMA shop TO {friend}')

    def friends_session(self) -> Session:
        url = self.harness.server.url(self.friend, FRIENDS_PASSWORD, self.harness.database)
        return self.stack.enter_context(contextlib.closing(psycopg.connect(url, autocommit=True, connect_timeout=5)))

    def as_superuser(self, statements: str) -> None:
        with self.harness.superuser() as c:
            c.execute(statements.encode())

    def query(self, query: str, *values: object, database: str | None = None) -> list[tuple[Any, ...]]:
        """Run the query as a superuser."""
        with self.harness.superuser(database) as c:
            return c.execute(query.encode(), values or None).fetchall()

    def end(self, spec: UserSpec, *, tries: int = 2, adapter: PostgreSQL | None = None) -> End:
        """End the user like a revocation does, which tries again after every error."""
        adapter, last = adapter or self.harness.adapter(), End(removal=None)
        for _ in range(tries):
            try:
                return End(removal=adapter.drop_user(spec.username, spec.level, self.states.get(spec.username)))
            except Exception as error:  # noqa: BLE001  any error at all is a user that was not ended
                last = End(removal=None, error=f"{type(error).__name__}: {error}")
        return last

    def bad_findings(self, level: Level) -> list[Finding]:
        """The findings of ``check`` that are not ok, for the level and the server."""
        return [finding for finding in self.harness.adapter().check([level]).findings if not finding.is_ok]

    def may_log_in(self, spec: UserSpec) -> bool:
        try:
            self.harness.login(spec).close()
        except psycopg.OperationalError:
            return False
        return True

    def assert_locked_out(self, spec: UserSpec, end: End, *sessions: Session) -> None:
        """The user has no session and cannot log in. Its objects do not matter."""
        oid = self.oids[spec.username]
        assert not [session for session in sessions if succeeds(session)], f"its session lives on: {end.error}"
        query = "SELECT pid FROM pg_stat_activity WHERE usesysid = %s::oid"
        assert not self.query(query, oid, database="postgres"), f"it still has sessions: {end.error}"
        assert not self.may_log_in(spec), f"it logs in again: {end.error}"
        query = "SELECT 1 FROM pg_roles WHERE oid = %s::oid AND rolcanlogin"
        assert not self.query(query, oid, database="postgres"), f"its role can log in: {end.error}"

    def assert_ended(self, spec: UserSpec, end: End, *sessions: Session) -> None:
        """The user is locked out, its role is gone, and the adapter returned a removal."""
        self.assert_locked_out(spec, end, *sessions)
        assert end.removal is not None, f"no receipt: {end.error}"
        names = self.query("SELECT rolname FROM pg_roles WHERE rolname = %s", spec.username, database="postgres")
        assert not names, "the receipt is given and the user is there"


def succeeds(session: Session, statement: str = "SELECT 1") -> bool:
    """Whether the server runs the statement in this session."""
    try:
        session.execute(statement.encode())
    except psycopg.Error:
        return False
    return True


def refusal(verb: Callable[[], object]) -> str | None:
    """The text of the adapter's error, or None where it raised none."""
    try:
        verb()
    except AdapterError as error:
        return str(error)
    return None


def run_setup(session: Session, statement: str) -> None:
    """A step of the set-up."""
    try:
        session.execute(statement.encode())
    except psycopg.Error as error:
        require(condition=False, what=f"{statement[:120]}: {error}")


def half_open_login(port: int, user: str, database: str) -> socket.socket:
    """A login that never sends the password that the server asks for."""
    line = socket.create_connection(("127.0.0.1", port))
    parameters = f"user\0{user}\0database\0{database}\0\0".encode()
    line.sendall(struct.pack("!II", len(parameters) + 8, PROTOCOL_3) + parameters)
    return line
