"""A user that owns very much is ended as fast as any other, and the bot needs no more memory for it."""

from __future__ import annotations

import threading
import time
import tracemalloc
from collections.abc import Callable

import psycopg
import pytest

from adapters.base import Removal, UserSpec
from adapters.harness import wait_until
from adapters.postgresql import PostgreSQL
from adapters.postgresql.left_behind import NAMED_AT_MOST
from tests.contract.postgresql.attacks import Attack, Session, run_setup, succeeds
from tests.contract.postgresql.harness import readonly, writer
from tests.soak import IS_SOAK, soak_only

SETTINGS = "max_locks_per_transaction = 1024\nautovacuum = off\nlog_statement = none\nlog_min_duration_statement = -1\n"
DEAD_WITHIN, GONE_WITHIN = (2.0, 10.0) if IS_SOAK else (20.0, 60.0)
"""Seconds. A busy machine that runs other tests beside this one gets more time."""
MEMORY = 8 * 1024 * 1024
PORTION = 500


def in_portions(session: Session, count: int, statement: str) -> None:
    run_setup(session, "SET statement_timeout = 0")
    for first in range(0, count, PORTION):
        loop = f"FOR n IN {first}..{min(first + PORTION, count) - 1} LOOP {statement} END LOOP"
        run_setup(session, f"DO $do$ BEGIN {loop}; END $do$")


def large_objects(session: Session, count: int) -> None:
    run_setup(session, "SET statement_timeout = 0")
    run_setup(session, f"SELECT count(lo_create(0)) FROM generate_series(1, {count})")


def views(session: Session, count: int) -> None:
    in_portions(session, count, "EXECUTE format('CREATE VIEW shop.v_%s AS SELECT 1 AS a', n);")


def indexed_tables(session: Session, count: int) -> None:
    indexes = "FOR i IN 1..60 LOOP EXECUTE format('CREATE INDEX ON shop.t_%s (a)', n); END LOOP;"
    run_setup(session, "SET statement_timeout = 0")
    for n in range(count):
        loop = f"FOR n IN {n}..{n} LOOP EXECUTE format('CREATE TABLE shop.t_%s (a int)', n); {indexes} END LOOP"
        run_setup(session, f"DO $do$ BEGIN {loop}; END $do$")


def end_measured(attack: Attack, spec: UserSpec, session: Session) -> tuple[Removal, float, float]:
    """End the user. Returns the removal, and the seconds until its session was dead and until it was gone."""
    adapter, removals = attack.harness.adapter(), list[Removal]()
    began = time.monotonic()
    drop = threading.Thread(target=lambda: removals.append(adapter.drop_user(spec.username, spec.level)))
    drop.start()
    wait_until(lambda: not succeeds(session))
    dead = time.monotonic() - began
    drop.join()
    return removals[0], dead, time.monotonic() - began


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("make", "count"),
    [
        pytest.param(large_objects, 1_000_000, id="large objects", marks=soak_only),
        pytest.param(indexed_tables, 500, id="indexed tables", marks=soak_only),
        pytest.param(views, 20_000, id="views", marks=soak_only),
        pytest.param(large_objects, 50_000, id="some large objects"),
        pytest.param(indexed_tables, 20, id="some indexed tables"),
        pytest.param(views, 1_000, id="some views"),
    ],
)
def test_a_user_that_owns_much_is_ended_in_time(
    attack: Attack, make: Callable[[Session, int], None], count: int
) -> None:
    spec = attack.user(readonly() if make is large_objects else writer())
    session = attack.session(spec)
    make(session, count)
    tracemalloc.start()
    try:
        removal, dead, gone = end_measured(attack, spec, session)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert not attack.may_log_in(spec)
    assert len(removal.left_behind) == min(count, NAMED_AT_MOST)
    assert removal.left_count == count
    assert len(str(removal)) < 20_000
    assert peak < MEMORY, f"{peak} bytes at most"
    assert dead < DEAD_WITHIN
    assert gone < GONE_WITHIN


# The end of another user meanwhile.

HOLDS = (
    ("BEGIN", "ALTER ROLE CURRENT_USER PASSWORD 'x'"),
    ("BEGIN", "CREATE TABLE shop.held (id int)", "LOCK TABLE shop.customers IN ACCESS SHARE MODE"),
    ("SELECT count(lo_create(0)) FROM generate_series(1, 20000)",),
    ("SELECT pg_advisory_lock(g) FROM generate_series(1, 1000) g",),
)


@pytest.mark.parametrize("statements", HOLDS, ids=["own role", "table locks", "large objects", "advisory locks"])
def test_another_user_is_ended_at_the_same_time(attack: Attack, statements: tuple[str, ...]) -> None:
    """The attacker's end and the other one's begin together. Neither waits for the other."""
    attacker, other = attack.user(writer()), attack.user(writer())
    holds, session = attack.session(attacker), attack.session(other)
    for statement in statements:
        run_setup(holds, statement)
    ended = dict[str, float]()

    def end(spec: UserSpec, adapter: PostgreSQL) -> None:
        began = time.monotonic()
        adapter.drop_user(spec.username, spec.level)
        ended[spec.username] = time.monotonic() - began

    threads = [threading.Thread(target=end, args=(s, attack.harness.adapter())) for s in (attacker, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(ended) == {attacker.username, other.username}
    assert ended[other.username] < (1.0 if IS_SOAK else 20.0), ended
    with pytest.raises(psycopg.OperationalError):
        session.execute("SELECT 1")
