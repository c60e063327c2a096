"""A user is ended however many objects of whatever kind it owns. The receipt names a limited number of them."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

from adapters.harness import wait_until
from tests.contract.postgresql.attacks import Attack, Session, run_setup
from tests.contract.postgresql.harness import readonly, writer
from tests.soak import soak_only

SETTINGS = "max_connections = 30\nmax_locks_per_transaction = 10\nautovacuum = off\nlog_statement = none\nlog_min_duration_statement = -1\n"
"""A server with room for few locks fails with few objects where any other server fails with many."""
NAMED_AT_MOST = 50
FETCHED_AT_MOST = 1_000
PORTION = 200
LARGE_OBJECTS, VERY_MANY = 12_000, 600_000


def each(session: Session, count: int, statement: str) -> None:
    """Run the statement with each number, in portions that fit into the user's transactions."""
    run_setup(session, "SET statement_timeout = 0")
    for first in range(0, count, PORTION):
        part = range(first, min(first + PORTION, count))
        run_setup(session, "BEGIN;" + ";".join(statement.format(n=n) for n in part) + ";COMMIT")


def tables_with_indexes(session: Session, tables: int, indexes: int) -> None:
    for n in range(tables):
        run_setup(session, f"CREATE TABLE shop.t_{n} (a int);" + f"CREATE INDEX ON shop.t_{n} (a);" * indexes)


# More objects than fit into one transaction.


@pytest.mark.parametrize(("tables", "indexes"), [(60, 60), (510, 8)], ids=["in one", "in portions"])
def test_a_user_with_many_indexed_tables_is_ended(attack: Attack, tables: int, indexes: int) -> None:
    spec = attack.user(writer())
    session = attack.session(spec)
    tables_with_indexes(session, tables, indexes)
    attack.assert_ended(spec, attack.end(spec), session)


def test_a_user_with_many_views_is_ended(attack: Attack) -> None:
    spec = attack.user(writer())
    session = attack.session(spec)
    each(session, 4_000, "CREATE VIEW shop.v_{n} AS SELECT 1 AS a")
    attack.assert_ended(spec, attack.end(spec), session)


def test_a_user_with_many_functions_is_ended(attack: Attack) -> None:
    spec = attack.user(writer())
    session = attack.session(spec)
    body = "RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'"
    each(session, 4_000, f"CREATE FUNCTION shop.f_{{n}}() {body}")
    attack.assert_ended(spec, attack.end(spec), session)


# Very many objects.


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The number of rows that each statement of the bot fetched."""
    original, seen = psycopg.Connection.execute, list[int]()

    def execute(self: psycopg.Connection[Any], query: Any, *rest: Any, **named: Any) -> Any:
        cursor = original(self, query, *rest, **named)
        if cursor.pgresult is not None:
            seen.append(cursor.pgresult.ntuples)
        return cursor

    monkeypatch.setattr(psycopg.Connection, "execute", execute)
    return seen


def test_left_behind_objects_are_counted_on_the_server(attack: Attack, answers: list[int]) -> None:
    spec = attack.user(readonly())
    run_setup(attack.session(spec), f"SELECT count(lo_create(0)) FROM generate_series(1, {LARGE_OBJECTS})")
    answers.clear()
    end = attack.end(spec)
    most = max(answers)
    attack.assert_ended(spec, end)
    assert end.removal
    assert len(end.removal.left_behind) <= NAMED_AT_MOST
    assert most <= FETCHED_AT_MOST, f"{most} rows at once"


@soak_only
@pytest.mark.timeout(900)
def test_a_user_with_very_many_large_objects_is_ended(attack: Attack) -> None:
    spec = attack.user(readonly())
    session = attack.session(spec)
    run_setup(session, "SET statement_timeout = 0")
    run_setup(session, f"SELECT count(lo_create(0)) FROM generate_series(1, {VERY_MANY})")
    attack.assert_ended(spec, attack.end(spec), session)


# Temporary objects that outlive their session.


def temporary_view(session: Session) -> None:
    run_setup(session, "CREATE TEMP VIEW passing AS SELECT 1 AS a")


def temporary_function(session: Session) -> None:
    run_setup(session, "CREATE FUNCTION pg_temp.passing() RETURNS int LANGUAGE sql AS 'SELECT 1'")


def temporary_tables(session: Session) -> None:
    each(session, 600, "CREATE TEMP TABLE t_{n} (a int)")


def more_than_can_be_locked(session: Session) -> None:
    each(session, 4_000, "CREATE TEMP TABLE t_{n} (a int)")


def crash(attack: Attack) -> None:
    with attack.harness.superuser() as c:
        c.execute("CHECKPOINT")
    attack.harness.server.stop(signal.SIGQUIT)
    attack.harness.server.start()


def nothing(attack: Attack) -> None:
    """The session is ended with the user."""


TEMPORARY = """
SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname ~ '^pg_temp_'
UNION ALL SELECT p.proname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname ~ '^pg_temp_'
"""


@pytest.mark.parametrize(
    ("make", "then"),
    [
        (temporary_view, crash),
        (temporary_function, crash),
        (temporary_tables, crash),
        (more_than_can_be_locked, nothing),
    ],
)
def test_temporary_objects_are_dropped(
    attack: Attack, make: Callable[[Session], None], then: Callable[[Attack], None]
) -> None:
    attack.as_superuser(f'GRANT TEMPORARY ON DATABASE "{attack.harness.database}" TO shop_reader')
    spec = attack.user(readonly())
    make(attack.session(spec))
    then(attack)
    end = attack.end(spec)
    attack.assert_ended(spec, end)
    assert "pg_temp" not in end.report_text
    assert end.removal is not None
    assert end.removal.left_behind == ()
    if attack.query(TEMPORARY):  # more than fit into one transaction: the server's autovacuum drops them one by one
        vacuum = "ALTER SYSTEM SET autovacuum = on; ALTER SYSTEM SET autovacuum_naptime = 1; SELECT pg_reload_conf()"
        for statement in vacuum.split(";"):
            attack.as_superuser(statement)
        wait_until(lambda: not attack.query(TEMPORARY), within=120.0)
        wait_until(lambda: bool(attack.harness.adapter().drop_leftovers()))
    query = "SELECT rolname FROM pg_roles WHERE oid = %s::oid"
    assert not attack.query(query, attack.oids[spec.username]), "its role is still there"
