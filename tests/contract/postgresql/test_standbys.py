"""Sessions on streaming standbys are ended, counted and named, also after a crash at each step."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from psycopg import sql

from adapters.base import LoginRefused, Secrets, ServerDown, UserSpec
from adapters.contract import Died, expect_within, wait_until
from adapters.postgresql import PostgreSQL
from tests.contract.postgresql.harness import (
    EngineHarness,
    Login,
    build,
    dies_after,
    readonly,
    support,
)
from tests.contract.postgresql.standby_pair import Pair, login_at, opened
from tests.servers.postgresql import PostgresServer


@pytest.fixture
def harness(paired: EngineHarness) -> EngineHarness:
    return paired


def test_sessions_on_both_servers_are_ended(harness: EngineHarness, pair: Pair) -> None:
    expect_within(1.0, lambda: end_with_sessions_on_both(harness, pair))


def end_with_sessions_on_both(harness: EngineHarness, pair: Pair) -> float:
    spec, there = opened(harness, pair, support())
    again = login_at(pair.standby, spec, harness.database)
    here = login_at(pair.primary, spec, harness.database)
    (activity,) = harness.adapter().activity([spec.username])
    assert (activity.sessions, activity.clients) == (3, ("127.0.0.1",))
    began = time.monotonic()
    removal = harness.adapter().drop_user(spec.username, spec.level)
    took = time.monotonic() - began
    assert not any(session.is_alive() for session in (there, again, here))
    assert removal.sessions_ended == 3
    assert removal.notes == ("On the standby behind env:STANDBY_1: 2 sessions ended, none left.",)
    assert not harness.role_exists(spec.username)
    with pytest.raises(LoginRefused):
        login_at(pair.standby, spec, harness.database)
    (quiet,) = harness.adapter().activity([spec.username])
    assert quiet.sessions == 0
    return took


def test_a_running_statement_on_the_standby_is_ended(harness: EngineHarness, pair: Pair) -> None:
    expect_within(1.0, lambda: end_with_work(harness, pair))


def end_with_work(harness: EngineHarness, pair: Pair) -> float:
    spec, there = opened(harness, pair)
    ended: list[float] = []

    def work() -> None:
        with pytest.raises(psycopg.OperationalError):
            there.work(60)
        ended.append(time.monotonic())

    thread = threading.Thread(target=work)
    thread.start()
    began = time.monotonic()
    harness.adapter().drop_user(spec.username, spec.level)
    thread.join(50)
    assert ended
    return ended[0] - began


def test_a_user_in_a_storm_of_logins_on_the_standby_is_ended(harness: EngineHarness, pair: Pair) -> None:
    for _ in range(3):
        spec, first = opened(harness, pair)
        sessions, is_over = [first], threading.Event()
        threads = [threading.Thread(target=storm, args=(harness, pair, spec, sessions, is_over)) for _ in range(8)]
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda sessions=sessions: len(sessions) > 3)  # type: ignore[misc]
            removal = harness.adapter().drop_user(spec.username, spec.level)
            assert sessions_left(pair.standby) == []
        finally:
            is_over.set()
            for thread in threads:
                thread.join()
        assert removal.sessions_ended >= 4
        assert not any(session.is_alive() for session in sessions)
        assert sessions_left(pair.standby) == []


def storm(harness: EngineHarness, pair: Pair, spec: UserSpec, sessions: list[Login], is_over: threading.Event) -> None:
    while not is_over.is_set():
        try:
            sessions.append(login_at(pair.standby, spec, harness.database))
        except LoginRefused:
            continue


def sessions_left(standby: PostgresServer) -> list[tuple[Any, ...]]:
    """The sessions of users with a harness's prefix, and of users that were dropped."""
    with standby.admin() as c:
        return c.execute(
            "SELECT pid, usename FROM pg_stat_activity a WHERE usesysid IS NOT NULL AND"
            " (usename ~ '^j[0-9a-f]{6}_' OR NOT EXISTS (SELECT 1 FROM pg_roles r WHERE r.oid = a.usesysid))"
        ).fetchall()


def test_drop_is_completed_after_a_crash_at_each_statement(pair: Pair) -> None:
    harness = replace(build(pair.primary), standbys=(pair.standby,))
    pair.catch_up()
    spec, _ = opened(harness, pair)
    with dies_after(None) as ran:
        harness.adapter().drop_user(spec.username, spec.level)
    for step in range(1, len(ran) + 1):
        spec, there = opened(harness, pair)
        with dies_after(step), pytest.raises(Died):
            harness.adapter().drop_user(spec.username, spec.level)
        harness.adapter().drop_user(spec.username, spec.level)
        assert not there.is_alive(), f"after step {step}"
        assert not harness.role_exists(spec.username), f"after step {step}"


def test_open_sessions_of_an_absent_user_on_the_standby_are_reported(harness: EngineHarness, pair: Pair) -> None:
    spec, there = opened(harness, pair)
    with harness.superuser() as c:
        c.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(spec.username)))
    pair.catch_up()
    removal = harness.adapter().drop_user(spec.username, spec.level)
    assert removal.was_absent
    (note,) = [note for note in removal.notes if "on the standby behind env:STANDBY_1" in note]
    with pair.standby.admin() as c:
        c.execute(note.split("To end them: ")[1].encode())
    wait_until(lambda: not there.is_alive())


def test_a_standby_as_primary_is_server_down(harness: EngineHarness, pair: Pair) -> None:
    spec, _ = opened(harness, pair)
    swapped = Secrets(admin_url=harness.secrets().replicas[0], replicas=(harness.secrets().admin_url,))
    with pytest.raises(ServerDown, match="standby now"):
        PostgreSQL(harness.target(), swapped).drop_user(spec.username, spec.level)
    with pytest.raises(ServerDown):
        PostgreSQL(harness.target(), swapped).create_user(harness.spec(readonly()))
    harness.adapter().drop_user(spec.username, spec.level)
