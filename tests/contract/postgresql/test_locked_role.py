"""A user that holds a lock on its own role does not delay its revocation, a new password or a new expiry (A1)."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from adapters.base import Blocked, Level, UserSpec
from adapters.postgresql import connection as connections
from adapters.postgresql import locks, pins, revoke
from adapters.postgresql.statements import value
from tests.contract.postgresql.harness import EngineHarness, acting_writer, readonly

STORM_SESSIONS = 5
FRESH = "fresh0password0of0the0bot"


def made(harness: EngineHarness, level: Level) -> UserSpec:
    spec = harness.spec(level)
    harness.adapter().create_user(spec)
    return spec


def lock_itself(session: psycopg.Connection[Any], spec: UserSpec) -> None:
    """Hold a lock on the user's role. A client without autocommit does this innocently."""
    session.execute("BEGIN")
    session.execute(f"ALTER ROLE {spec.username} PASSWORD 'x'".encode())


def prepare_itself(harness: EngineHarness, spec: UserSpec, *, hidden_behind: str | None = None) -> None:
    """Keep the lock without any session. After SET ROLE the prepared transaction belongs to the level's role."""
    url = harness.server.url(spec.username, spec.password, harness.database)
    with contextlib.closing(psycopg.connect(url)) as session:
        session.execute(f"ALTER ROLE {spec.username} PASSWORD 'x'".encode())
        if hidden_behind:
            session.execute(f"SET ROLE {hidden_behind}".encode())
        session.execute(f"PREPARE TRANSACTION 'held by {spec.username}'".encode())


def prepared(harness: EngineHarness) -> list[tuple[Any, ...]]:
    with harness.superuser() as c:
        return c.execute("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()").fetchall()


def assert_is_dead(session: psycopg.Connection[Any]) -> None:
    with pytest.raises(psycopg.OperationalError):
        session.execute("SELECT count(*) FROM shop.customers")
    session.close()


def assert_is_gone(harness: EngineHarness, spec: UserSpec, *sessions: psycopg.Connection[Any]) -> None:
    """The role and the sessions are gone, and neither password logs in."""
    assert not harness.role_exists(spec.username)
    for session in sessions:
        assert_is_dead(session)
    for password in (spec.password, "x"):
        with pytest.raises(psycopg.OperationalError):
            harness.login(spec, password=password)


def assert_opens_nothing(harness: EngineHarness, spec: UserSpec) -> None:
    """A login that is not blocked yet has lost its rights: it cannot read, and mostly not even connect."""
    with (
        pytest.raises((psycopg.OperationalError, psycopg.errors.InsufficientPrivilege)),
        harness.login(spec) as session,
    ):
        session.execute("SELECT count(*) FROM shop.customers")


@pytest.fixture(params=["reader", "writer"])
def spec(request: pytest.FixtureRequest, own_harness: EngineHarness) -> UserSpec:
    return made(own_harness, readonly() if request.param == "reader" else acting_writer())


def test_a_user_with_an_open_alter_role_is_ended(own_harness: EngineHarness, spec: UserSpec) -> None:
    locking, other = own_harness.login(spec), own_harness.login(spec)
    lock_itself(locking, spec)
    removal = own_harness.adapter().drop_user(spec.username, spec.level)
    assert removal.sessions_ended == 2
    assert_is_gone(own_harness, spec, locking, other)


@pytest.mark.parametrize("hidden_behind", [None, "shop_writer"])
def test_a_user_with_a_prepared_alter_role_is_ended(own_harness: EngineHarness, hidden_behind: str | None) -> None:
    spec = made(own_harness, acting_writer())
    prepare_itself(own_harness, spec, hidden_behind=hidden_behind)
    other = own_harness.login(spec)
    removal = own_harness.adapter().drop_user(spec.username, spec.level)
    assert_is_gone(own_harness, spec, other)
    assert prepared(own_harness) == []
    if hidden_behind:
        assert any("the prepared transaction" in note and "shop_writer" in note for note in removal.notes)


def test_a_user_in_a_storm_of_alter_role_is_ended(own_harness: EngineHarness) -> None:
    """Several sessions change the password and log in again without a pause."""
    spec, is_over, opened = made(own_harness, readonly()), threading.Event(), list[psycopg.Connection[Any]]()
    threads = [threading.Thread(target=storm, args=(own_harness, spec, is_over, opened)) for _ in range(STORM_SESSIONS)]
    for thread in threads:
        thread.start()
    try:
        while not opened:
            is_over.wait(0.01)
        own_harness.adapter().drop_user(spec.username, spec.level)
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    assert_is_gone(own_harness, spec, *opened)


def storm(
    harness: EngineHarness, spec: UserSpec, is_over: threading.Event, opened: list[psycopg.Connection[Any]]
) -> None:
    statement = f"ALTER ROLE {spec.username} PASSWORD '{verifier_again(harness, spec)}'".encode()
    while not is_over.is_set():
        try:
            session = harness.login(spec)
        except psycopg.OperationalError:
            continue
        opened.append(session)
        with contextlib.suppress(psycopg.OperationalError):
            while not is_over.is_set():
                with contextlib.suppress(psycopg.errors.InternalError_):
                    session.execute(statement)


def verifier_again(harness: EngineHarness, spec: UserSpec) -> str:
    """The verifier of the present password, so that the next login works."""
    with harness.superuser() as c:
        made = c.pgconn.encrypt_password(spec.password.encode(), spec.username.encode(), b"scram-sha-256")
    return made.decode()


def test_set_password_and_set_expiry_end_the_session_with_the_lock(own_harness: EngineHarness) -> None:
    """The session that holds the lock is ended. The others live on."""
    spec, adapter = made(own_harness, readonly()), own_harness.adapter()
    other = own_harness.login(spec)
    locking = own_harness.login(spec)
    lock_itself(locking, spec)
    adapter.set_password(spec.username, FRESH)
    assert_is_dead(locking)
    locking = own_harness.login(spec, password=FRESH)
    lock_itself(locking, spec)
    adapter.set_expiry(spec.username, 600.0)
    assert_is_dead(locking)
    assert other.execute("SELECT 1").fetchone() == (1,)
    own_harness.login(spec, password=FRESH).close()
    adapter.drop_user(spec.username, spec.level)
    assert_is_dead(other)


def prepare_as_the_level(harness: EngineHarness, spec: UserSpec, gid: str) -> None:
    """Prepare a transaction as the level's role that holds a lock on the user's role."""
    with harness.login(spec) as session:
        session.execute("BEGIN; SET LOCAL ROLE shop_writer")
        session.execute(f"SELECT pg_get_object_address('role', '{{{spec.username}}}', '{{}}')".encode())
        session.execute(f"PREPARE TRANSACTION '{gid}'".encode())


def test_a_transaction_prepared_during_the_revocation_is_rolled_back(
    own_harness: EngineHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user prepares it after the first search for prepared transactions, and before it loses the level's role."""
    spec, revoked = made(own_harness, acting_writer()), list[str]()
    real = revoke.revoke_memberships

    def just_before(connection: connections.PostgreSQLConnection, username: str, *known: Any) -> list[str]:
        if not revoked:
            prepare_as_the_level(own_harness, spec, f"late {username}")
        revoked.append(username)
        return real(connection, username, *known)

    monkeypatch.setattr(revoke, "revoke_memberships", just_before)
    removal = own_harness.adapter().drop_user(spec.username, spec.level)
    assert set(revoked) == {spec.username}
    assert_is_gone(own_harness, spec)
    assert prepared(own_harness) == []
    assert any(f"'late {spec.username}' of shop_writer in {own_harness.database}" in note for note in removal.notes)


@pytest.fixture
def stuck(own_harness: EngineHarness) -> Iterator[tuple[UserSpec, psycopg.Connection[Any]]]:
    """A frozen session with a lock on the user's role. A function that ignores interrupts behaves like it."""
    spec = made(own_harness, readonly())
    session = own_harness.login(spec)
    lock_itself(session, spec)
    pid = session.info.backend_pid
    os.kill(pid, signal.SIGSTOP)
    yield spec, session
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
    session.close()


def test_an_unresponsive_session_is_named_with_a_remedy(
    own_harness: EngineHarness, stuck: tuple[UserSpec, psycopg.Connection[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, session = stuck
    pid = session.info.backend_pid
    monkeypatch.setattr(locks, "BLOCKED_SECONDS", 1.0)
    with pytest.raises(Blocked, match=f"told to end and do not.*processes {pid}$|processes {pid};") as held:
        own_harness.adapter().drop_user(spec.username, spec.level)
    assert (held.value.remedy or "").endswith(f"kill {pid}")
    os.kill(pid, signal.SIGCONT)
    own_harness.adapter().drop_user(spec.username, spec.level)
    assert_is_gone(own_harness, spec, session)


@pytest.fixture
def locked_by_a_stranger(own_harness: EngineHarness) -> Iterator[tuple[UserSpec, int]]:
    """A user whose role is locked by a superuser's open transaction, which the bot may not end."""
    spec = made(own_harness, readonly())
    stranger = own_harness.superuser()
    stranger.execute("BEGIN")
    stranger.execute(f"ALTER ROLE {spec.username} CONNECTION LIMIT 7".encode())
    yield spec, stranger.info.backend_pid
    stranger.close()


def test_a_superuser_with_the_lock_is_named(
    own_harness: EngineHarness, locked_by_a_stranger: tuple[UserSpec, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meanwhile the sessions are dead and the rights are revoked: a login that still works gives no access."""
    spec, pid = locked_by_a_stranger
    monkeypatch.setattr(locks, "BLOCKED_SECONDS", 1.0)
    session = own_harness.login(spec)
    with pytest.raises(Blocked, match=f"session {pid} of") as held:
        own_harness.adapter().drop_user(spec.username, spec.level)
    assert held.value.remedy == f"SELECT pg_terminate_backend({pid});"
    assert_is_dead(session)
    assert_opens_nothing(own_harness, spec)
    with own_harness.superuser() as dba:
        dba.execute((held.value.remedy or "").encode())
    own_harness.adapter().drop_user(spec.username, spec.level)
    assert_is_gone(own_harness, spec)


def test_a_user_without_a_mark_is_ended(own_harness: EngineHarness) -> None:
    """A dump without comments loses the marks."""
    spec = made(own_harness, readonly())
    session = own_harness.login(spec)
    with own_harness.superuser() as c:
        c.execute(f"COMMENT ON ROLE {spec.username} IS NULL".encode())
    own_harness.adapter().drop_user(spec.username, spec.level)
    assert_is_gone(own_harness, spec, session)


def test_a_holder_that_is_gone_is_ended_only_once(own_harness: EngineHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another session may have its process id by then."""
    readings = [[locks.LockHolder(name="ada", pid=4711)], [], []]
    ended = list[object]()
    monkeypatch.setattr(locks, "holders", lambda *_: readings.pop(0))
    monkeypatch.setattr(locks, "value", lambda _connection, _query, values: ended.append(values) or True)
    server = own_harness.adapter().server
    watch = locks.LockWatch(server, 1, locks.any_holder)
    with server.session() as connection:
        while readings:
            watch.end_holders(connection)
    assert ended == [(4711,)]
    assert [holder.pid for holder in watch.seen] == [4711]


def test_the_lock_timeout_is_restored(own_harness: EngineHarness) -> None:
    server = own_harness.adapter().server
    with server.session() as connection:
        locks.run_unblocked(server, connection, lambda: connection.execute("SELECT 1"), may_end=locks.no_holder)
        limit = value(connection, "SELECT current_setting('lock_timeout')")
        assert limit == f"{pins.LOCK_TIMEOUT_SECONDS}s"
