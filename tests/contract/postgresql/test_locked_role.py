"""A user that holds its own role locked does not hold up its end, its password or its expiry (A1)."""

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
from adapters.postgresql import locks, revoke
from tests.contract.postgresql.bench import Bench, readonly, writer

STORM_SESSIONS = 5
FRESH = "fresh0password0of0the0bot"


def made(bench: Bench, level: Level) -> UserSpec:
    spec = bench.spec(level)
    bench.adapter().create_user(spec)
    return spec


def lock_itself(session: psycopg.Connection[Any], spec: UserSpec) -> None:
    """What a client without autocommit does innocently."""
    session.execute("BEGIN")
    session.execute(f"ALTER ROLE {spec.username} PASSWORD 'x'".encode())


def prepare_itself(bench: Bench, spec: UserSpec, *, hidden_behind: str | None = None) -> None:
    """The lock stays without any session; after SET ROLE the transaction belongs to the level's role."""
    url = bench.server.url(spec.username, spec.password, bench.database)
    with contextlib.closing(psycopg.connect(url)) as session:
        session.execute(f"ALTER ROLE {spec.username} PASSWORD 'x'".encode())
        if hidden_behind:
            session.execute(f"SET ROLE {hidden_behind}".encode())
        session.execute(f"PREPARE TRANSACTION 'held by {spec.username}'".encode())


def prepared(bench: Bench) -> list[tuple[Any, ...]]:
    with bench.superuser() as c:
        return c.execute("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()").fetchall()


def assert_is_dead(session: psycopg.Connection[Any]) -> None:
    with pytest.raises(psycopg.OperationalError):
        session.execute("SELECT count(*) FROM shop.customers")
    session.close()


def assert_is_gone(bench: Bench, spec: UserSpec, *sessions: psycopg.Connection[Any]) -> None:
    """No role, no session, no new login with either password."""
    assert not bench.role_exists(spec.username)
    for session in sessions:
        assert_is_dead(session)
    for password in (spec.password, "x"):
        with pytest.raises(psycopg.OperationalError):
            bench.login(spec, password=password)


def assert_opens_nothing(bench: Bench, spec: UserSpec) -> None:
    """A login that is not blocked yet has lost its rights; without any it does not even connect."""
    with pytest.raises((psycopg.OperationalError, psycopg.errors.InsufficientPrivilege)), bench.login(spec) as session:
        session.execute("SELECT count(*) FROM shop.customers")


@pytest.fixture(params=["reader", "writer"])
def spec(request: pytest.FixtureRequest, own_bench: Bench) -> UserSpec:
    return made(own_bench, readonly() if request.param == "reader" else writer())


def test_an_open_alter_role_of_oneself(own_bench: Bench, spec: UserSpec) -> None:
    locking, other = own_bench.login(spec), own_bench.login(spec)
    lock_itself(locking, spec)
    receipt = own_bench.adapter().drop_user(spec.username, spec.level)
    assert receipt.sessions_ended == 2
    assert_is_gone(own_bench, spec, locking, other)


@pytest.mark.parametrize("hidden_behind", [None, "shop_writer"])
def test_a_prepared_alter_role_of_oneself(own_bench: Bench, hidden_behind: str | None) -> None:
    spec = made(own_bench, writer())
    prepare_itself(own_bench, spec, hidden_behind=hidden_behind)
    other = own_bench.login(spec)
    receipt = own_bench.adapter().drop_user(spec.username, spec.level)
    assert_is_gone(own_bench, spec, other)
    assert prepared(own_bench) == []
    if hidden_behind:
        assert any("the prepared transaction" in note and "shop_writer" in note for note in receipt.notes)


def test_a_storm_of_alter_role_of_oneself(own_bench: Bench) -> None:
    """Sessions that change the password and log in again without a pause."""
    spec, is_over, opened = made(own_bench, readonly()), threading.Event(), list[psycopg.Connection[Any]]()
    threads = [threading.Thread(target=storm, args=(own_bench, spec, is_over, opened)) for _ in range(STORM_SESSIONS)]
    for thread in threads:
        thread.start()
    try:
        while not opened:
            is_over.wait(0.01)
        own_bench.adapter().drop_user(spec.username, spec.level)
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    assert_is_gone(own_bench, spec, *opened)


def storm(bench: Bench, spec: UserSpec, is_over: threading.Event, opened: list[psycopg.Connection[Any]]) -> None:
    statement = f"ALTER ROLE {spec.username} PASSWORD '{verifier_again(bench, spec)}'".encode()
    while not is_over.is_set():
        try:
            session = bench.login(spec)
        except psycopg.OperationalError:
            continue
        opened.append(session)
        with contextlib.suppress(psycopg.OperationalError):
            while not is_over.is_set():
                with contextlib.suppress(psycopg.errors.InternalError_):
                    session.execute(statement)


def verifier_again(bench: Bench, spec: UserSpec) -> str:
    """The same password again, so that the next login works."""
    with bench.superuser() as c:
        made = c.pgconn.encrypt_password(spec.password.encode(), spec.username.encode(), b"scram-sha-256")
    return made.decode()


def test_a_password_and_an_expiry_do_not_wait_either(own_bench: Bench) -> None:
    """The session that holds the lock ends, the others live on."""
    spec, adapter = made(own_bench, readonly()), own_bench.adapter()
    other = own_bench.login(spec)
    locking = own_bench.login(spec)
    lock_itself(locking, spec)
    adapter.set_password(spec.username, FRESH)
    assert_is_dead(locking)
    locking = own_bench.login(spec, password=FRESH)
    lock_itself(locking, spec)
    adapter.set_expiry(spec.username, 600.0)
    assert_is_dead(locking)
    assert other.execute("SELECT 1").fetchone() == (1,)
    own_bench.login(spec, password=FRESH).close()
    adapter.drop_user(spec.username, spec.level)
    assert_is_dead(other)


def prepare_as_the_level(bench: Bench, spec: UserSpec, gid: str) -> None:
    """A transaction that belongs to the level's role and holds the user's role locked."""
    with bench.login(spec) as session:
        session.execute("BEGIN; SET LOCAL ROLE shop_writer")
        session.execute(f"SELECT pg_get_object_address('role', '{{{spec.username}}}', '{{}}')".encode())
        session.execute(f"PREPARE TRANSACTION '{gid}'".encode())


def test_what_is_prepared_in_the_last_moment_is_rolled_back_and_named(
    own_bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the first look for prepared transactions, and before the user lost the role it prepared this one as."""
    spec, looked = made(own_bench, writer()), list[str]()
    real = revoke.revoke_memberships

    def just_before(connection: connections.Connection, username: str) -> None:
        looked.append(username)
        prepare_as_the_level(own_bench, spec, f"late {username}")
        real(connection, username)

    monkeypatch.setattr(revoke, "revoke_memberships", just_before)
    receipt = own_bench.adapter().drop_user(spec.username, spec.level)
    assert looked == [spec.username]
    assert_is_gone(own_bench, spec)
    assert prepared(own_bench) == []
    assert any(f"'late {spec.username}' of shop_writer in {own_bench.database}" in note for note in receipt.notes)


@pytest.fixture
def stuck(own_bench: Bench) -> Iterator[tuple[UserSpec, psycopg.Connection[Any]]]:
    """A session that does not react, as one in a function that looks for no interrupt, with its own role locked."""
    spec = made(own_bench, readonly())
    session = own_bench.login(spec)
    lock_itself(session, spec)
    pid = session.info.backend_pid
    os.kill(pid, signal.SIGSTOP)
    yield spec, session
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
    session.close()


def test_a_session_that_does_not_react_is_named_with_what_ends_it(
    own_bench: Bench, stuck: tuple[UserSpec, psycopg.Connection[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, session = stuck
    pid = session.info.backend_pid
    monkeypatch.setattr(locks, "HELD_UP_SECONDS", 1.0)
    with pytest.raises(Blocked, match=f"told to end and do not.*processes {pid}$|processes {pid};") as held:
        own_bench.adapter().drop_user(spec.username, spec.level)
    assert (held.value.remedy or "").endswith(f"kill {pid}")
    os.kill(pid, signal.SIGCONT)
    own_bench.adapter().drop_user(spec.username, spec.level)
    assert_is_gone(own_bench, spec, session)


@pytest.fixture
def locked_by_a_stranger(own_bench: Bench) -> Iterator[tuple[UserSpec, int]]:
    """A superuser's open transaction, which the bot may not end."""
    spec = made(own_bench, readonly())
    stranger = own_bench.superuser()
    stranger.execute("BEGIN")
    stranger.execute(f"ALTER ROLE {spec.username} CONNECTION LIMIT 7".encode())
    yield spec, stranger.info.backend_pid
    stranger.close()


def test_a_stranger_who_holds_the_lock_is_named(
    own_bench: Bench, locked_by_a_stranger: tuple[UserSpec, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meanwhile the sessions are dead and the rights are gone: a login that still works opens nothing."""
    spec, pid = locked_by_a_stranger
    monkeypatch.setattr(locks, "HELD_UP_SECONDS", 1.0)
    session = own_bench.login(spec)
    with pytest.raises(Blocked, match=f"session {pid} of") as held:
        own_bench.adapter().drop_user(spec.username, spec.level)
    assert held.value.remedy == f"SELECT pg_terminate_backend({pid});"
    assert_is_dead(session)
    assert_opens_nothing(own_bench, spec)
    with own_bench.superuser() as dba:
        dba.execute((held.value.remedy or "").encode())
    own_bench.adapter().drop_user(spec.username, spec.level)
    assert_is_gone(own_bench, spec)


def test_a_user_whose_mark_was_lost_is_ended(own_bench: Bench) -> None:
    """Comments on roles are lost by a dump without them."""
    spec = made(own_bench, readonly())
    session = own_bench.login(spec)
    with own_bench.superuser() as c:
        c.execute(f"COMMENT ON ROLE {spec.username} IS NULL".encode())
    own_bench.adapter().drop_user(spec.username, spec.level)
    assert_is_gone(own_bench, spec, session)


def test_a_holder_that_is_gone_is_not_ended_again(own_bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process number may be somebody else's by then."""
    looks = [[locks.Holder(name="ada", pid=4711)], [], []]
    told = list[object]()
    monkeypatch.setattr(locks, "holders", lambda *_: looks.pop(0))
    monkeypatch.setattr(locks, "value", lambda _connection, _query, values: told.append(values) or True)
    server = own_bench.adapter().server
    watch = locks.Watch(server, 1, locks.anybody)
    with server.session() as connection:
        while looks:
            watch.look(connection)
    assert told == [(4711,)]
    assert [holder.pid for holder in watch.seen] == [4711]


def test_the_lock_limit_of_the_session_comes_back(own_bench: Bench) -> None:
    server = own_bench.adapter().server
    with server.session() as connection:
        locks.insist(server, connection, lambda: connection.execute("SELECT 1"), may_end=locks.nobody)
        limit = connections.value(connection, "SELECT current_setting('lock_timeout')")
        assert limit == f"{connections.LOCK_SECONDS}s"
