"""A server whose locks or connections a user exhausted: the bot still connects and ends the user."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from adapters.base import UserSpec
from adapters.contract import wait_until
from adapters.postgresql import PostgreSQL
from tests.contract.postgresql.attacks import Attack, Session, half_open_login, run_setup, succeeds
from tests.contract.postgresql.harness import BOT_PASSWORD, readonly
from tests.open_faults import require

RESERVED = 16
"""The first version where connections can be reserved for a role."""
CONNECTIONS = 30
SETTINGS = f"max_connections = {CONNECTIONS}\nlog_statement = none\nlog_min_duration_statement = -1\n"
PORTIONS = (20_000, 1_000, 100, 10, 1, 1, 1, 1)


def fill_lock_table(session: Session) -> None:
    """Take advisory locks until the lock table is full."""
    for number, count in enumerate(PORTIONS):
        locks = f"SELECT count(pg_advisory_lock({number * 100_000} + g)) FROM generate_series(1, {count}) g"
        with contextlib.suppress(psycopg.errors.OutOfMemory):
            session.execute(locks.encode())


def is_closed_to_logins(attack: Attack) -> bool:
    try:
        attack.harness.superuser().close()
    except psycopg.OperationalError:
        return True
    return False


def used_before(attack: Attack) -> PostgreSQL:
    """An adapter that was used before, so it could have kept a connection."""
    adapter = attack.harness.adapter()
    adapter.check([readonly()])
    return adapter


def assert_ends_while_full(attack: Attack, spec: UserSpec, session: Session, adapter: PostgreSQL) -> None:
    """The user is ended while the server stays full."""
    end = attack.end(spec, adapter=adapter)
    assert not succeeds(session), f"its session lives on: {end.error}"
    assert end.removal is not None, end.error


def test_a_full_lock_table_does_not_delay_the_revocation(attack: Attack) -> None:
    adapter = used_before(attack)
    spec = attack.user(readonly(), adapter)
    attack.wait_for_held_connection()
    attack.stack.callback(wait_until, lambda: not is_closed_to_logins(attack))
    session = attack.session(spec)
    fill_lock_table(session)
    require(is_closed_to_logins(attack), "the lock table is full")
    assert_ends_while_full(attack, spec, session, adapter)


CATALOGS = (
    "BEGIN",
    "LOCK TABLE pg_roles, pg_auth_members IN ACCESS SHARE MODE",
    "SET LOCAL enable_seqscan = off",
    "SELECT 1 FROM pg_roles WHERE oid = 10::oid",
    "SELECT 1 FROM pg_roles WHERE rolname = 'nobody'",
    "SELECT 1 FROM pg_auth_members ORDER BY member, roleid LIMIT 1",
    "SELECT 1 FROM pg_auth_members ORDER BY roleid, member LIMIT 1",
)
"""Locks on the role catalogs and their indexes, held as long as the transaction is open."""
KILL = "SELECT pg_terminate_backend(pid) FROM pg_stat_get_activity(NULL) WHERE usesysid = %s::oid"


def test_an_earlier_connection_with_its_locks_can_end_sessions(attack: Attack) -> None:
    """A fact of the server for the fix of H1: an open connection is not enough. It needs locks that it may not get later."""
    spec = attack.user(readonly())
    attack.stack.callback(wait_until, lambda: not is_closed_to_logins(attack))
    session, held = attack.session(spec), attack.stack.enter_context(connection_of_the_bot(attack))
    for statement in CATALOGS:
        run_setup(held, statement)
    run_setup(
        session, f"ALTER ROLE {spec.username} SET work_mem = '5MB'"
    )  # the role cache of the other connection is outdated now
    fill_lock_table(session)
    require(is_closed_to_logins(attack), "the lock table is full")
    run_setup(held, KILL.replace("%s", str(attack.oids[spec.username])))
    wait_until(lambda: not succeeds(session))
    assert not succeeds(session)


def connection_of_the_bot(attack: Attack) -> contextlib.closing[Session]:
    url = attack.harness.server.url(attack.harness.bot, BOT_PASSWORD, attack.harness.database)
    return contextlib.closing(psycopg.connect(url, autocommit=True, prepare_threshold=0))


@contextmanager
def half_open(attack: Attack, spec: UserSpec) -> Iterator[None]:
    """Open as many logins as the server accepts. Each waits for its password, and none of them needs a valid one."""
    lines: list[socket.socket] = []
    try:
        wait_until(lambda: is_full(attack, spec, lines), within=60.0)
        yield
    finally:
        for line in lines:
            line.close()
        wait_until(lambda: not is_closed_to_logins(attack))


def is_full(attack: Attack, spec: UserSpec, lines: list[socket.socket]) -> bool:
    lines.append(half_open_login(attack.harness.server.port, spec.username, attack.harness.database))
    return len(lines) > CONNECTIONS and is_closed_to_logins(attack)


@pytest.mark.parametrize("reserved", [False, True], ids=["no reserve", "a reserve"])
def test_half_open_logins_do_not_delay_the_revocation(attack: Attack, *, reserved: bool) -> None:
    if reserved:
        keep_a_reserve(attack)
    adapter = used_before(attack)
    spec = attack.user(readonly(), adapter)
    attack.wait_for_held_connection()
    session = attack.session(spec)
    with half_open(attack, spec):
        assert_ends_while_full(attack, spec, session, adapter)


def keep_a_reserve(attack: Attack) -> None:
    if attack.harness.server.version < RESERVED:
        pytest.skip("PostgreSQL 15 reserves connections for superusers alone")
    attack.as_superuser(f"GRANT pg_use_reserved_connections TO {attack.harness.bot}")


def test_the_user_is_ended_once_connections_are_free_again(attack: Attack) -> None:
    """A revocation that failed succeeds later."""
    spec = attack.user(readonly())
    session = attack.session(spec)
    with half_open(attack, spec):
        attack.end(spec, tries=1)
    attack.assert_ended(spec, attack.end(spec), session)
