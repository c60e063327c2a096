"""Locks on the server's catalogs and databases. Anybody may wait for one, because the server checks the privilege after it has the lock (H, A)."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest

from adapters.base import Secrets, UserSpec
from adapters.harness import wait_until
from adapters.postgresql import PostgreSQL
from tests.contract.postgresql.attacks import Attack, Session, run_setup, succeeds
from tests.contract.postgresql.harness import BOT_PASSWORD, readonly
from tests.open_faults import require

SETTINGS = "log_statement = none\nlog_min_duration_statement = -1\n"
HOLDS_ITS_DATABASE = "SELECT pg_get_object_address('database', ARRAY[current_database()::text], '{}')"
QUEUES = "SELECT count(*) FROM pg_locks WHERE NOT granted AND mode = 'AccessExclusiveLock'"


@contextmanager
def queued(session: Session, statement: str, is_waiting: Callable[[], bool]) -> Iterator[None]:
    """Inside, the session waits for a lock on an object that everybody needs. The server refuses the statement once it has the lock."""

    def run() -> None:
        succeeds(session, statement)

    run_setup(session, "SET statement_timeout = 0")
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    wait_until(is_waiting)
    try:
        yield
    finally:
        session.cancel_safe()
        thread.join()


def of_another_database(attack: Attack) -> PostgreSQL:
    harness = attack.harness
    return PostgreSQL(harness.target(), Secrets(admin_url=harness.server.url(harness.bot, BOT_PASSWORD, "postgres")))


@pytest.mark.parametrize("catalog", ["pg_authid", "pg_auth_members"])
def test_a_user_who_waits_for_a_catalog_lock_is_ended(attack: Attack, catalog: str) -> None:
    """One session reads the catalog in an open transaction, and another waits to change it. Every later session waits behind both."""
    spec, watcher = attack.user(readonly()), attack.harness.superuser("postgres")
    attack.wait_for_held_connection()
    reads, waits = attack.session(spec), attack.session(spec)
    run_setup(reads, "BEGIN")
    run_setup(reads, "SELECT count(*) FROM pg_roles" if catalog == "pg_authid" else f"SELECT count(*) FROM {catalog}")
    rule = f"CREATE RULE r AS ON INSERT TO {catalog} DO NOTHING"
    with watcher, queued(waits, rule, lambda: watcher.execute(QUEUES).fetchone() == (1,)):
        end = attack.end(spec, tries=1)
        lives = succeeds(reads, "SELECT count(*) FROM shop.customers")
    must_be_over(attack, spec)
    assert not lives, f"its session reads on: {end.error}"
    assert end.removal is not None, end.error


def must_be_over(attack: Attack, spec: UserSpec) -> None:
    """End the user also where the fault is still open, so that the server can be used again."""
    later = attack.end(spec)
    require(later.removal is not None, f"the user is ended once nobody queues: {later.error}")


def test_a_login_that_waits_for_a_database_lock_is_ended(attack: Attack) -> None:
    """A friend holds a lock on the database, so the login waits. The friend releases the lock after the receipt."""
    harness, adapter = attack.harness, of_another_database(attack)
    attack.as_superuser(f'GRANT CONNECT ON DATABASE "{harness.database}" TO PUBLIC')
    spec, friend = attack.user(readonly(), adapter), attack.user(readonly(), adapter)
    holds = attack.session(friend)
    run_setup(holds, "BEGIN")
    run_setup(holds, HOLDS_ITS_DATABASE)
    came_in = list[Session]()

    def log_in() -> None:
        with contextlib.suppress(psycopg.OperationalError):
            came_in.append(harness.login(spec))

    logins = threading.Thread(target=log_in, daemon=True)
    with harness.superuser("postgres") as watcher:
        drops = attack.session(friend, "postgres")
        queries = "SELECT count(*) FROM pg_locks WHERE NOT granted AND classid = 'pg_database'::regclass"
        with queued(drops, f'DROP DATABASE "{harness.database}"', lambda: watcher.execute(queries).fetchone() == (1,)):
            logins.start()
            wait_until(lambda: watcher.execute(queries).fetchone() == (2,))
            end = attack.end(spec, adapter=adapter)
            run_setup(holds, "ROLLBACK")
    logins.join()
    require(end.removal is not None, f"there is a receipt: {end.error}")
    lives = [session for session in came_in if succeeds(session, "SELECT count(*) FROM pg_database")]
    for session in came_in:
        session.close()
    assert not lives


def test_the_held_locks_let_an_administrator_pass(attack: Attack) -> None:
    """An administrator's exclusive lock on a role catalog waits for the held connection, which gives way."""
    attack.user(readonly())
    attack.wait_for_held_connection()
    with attack.harness.superuser("postgres") as administrator:
        administrator.execute("SET statement_timeout = '30s'")
        assert succeeds(administrator, "REINDEX TABLE pg_auth_members")
    attack.wait_for_held_connection()
