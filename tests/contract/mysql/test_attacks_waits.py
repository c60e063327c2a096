"""The waits of an end and of the server's own event: slow readers, locks that last, rights and objects that an administrator took away."""

from __future__ import annotations

import time
from contextlib import closing, nullcontext

import pytest

from adapters.harness import wait_until
from tests.contract.mysql.harness import EngineHarness
from tests.contract.mysql.hostile import (
    assert_ended,
    closed_after_test,
    connect,
    create_user,
    is_alive,
    is_locked,
    metadata_locks_shown,
)
from tests.contract.mysql.test_attacks_ends import hold


@pytest.mark.parametrize("is_known", [True, False])
def test_reader_of_the_accounts_does_not_hold_up_an_end(own_harness: EngineHarness, is_known: bool) -> None:
    """On MariaDB a slow SELECT on the accounts locks them. A temporary user that holds up an end is killed, also where the server does not show locks."""
    spec, reader = create_user(own_harness, own_harness.reading), create_user(own_harness, own_harness.writing)
    own_harness.server.run(f"GRANT SELECT ON mysql.* TO {own_harness.server_role(own_harness.writer)}")
    slow = connect(own_harness, reader)
    table = "global_priv" if own_harness.is_mariadb else "user"
    with metadata_locks_shown(own_harness) if is_known else nullcontext():
        slow._execute_command(3, f"SELECT SLEEP(60) FROM mysql.{table}")
        wait_until(lambda: is_reading(own_harness, reader.username))
        own_harness.adapter().drop_user(spec.username, spec.level)
        assert_ended(own_harness, spec)
    own_harness.adapter().drop_user(reader.username, reader.level)


def is_reading(harness: EngineHarness, username: str) -> bool:
    running = "SELECT 1 FROM information_schema.processlist WHERE user = %s AND info LIKE 'SELECT SLEEP%%'"
    return bool(harness.server.query(running, username))


@pytest.mark.parametrize("name", ["accounts", "everything", "backup"])
def test_event_ends_the_user_after_a_lock_that_outlives_its_first_firing(own_harness: EngineHarness, name: str) -> None:
    """Somebody else holds the lock. The event that only locks the accounts kills the user's sessions meanwhile."""
    spec = create_user(own_harness, own_harness.reading, remaining=2.0)
    session = connect(own_harness, spec)
    with closing(closed_after_test(own_harness.server.admin())) as backup:
        hold(own_harness, backup, name)
        if name == "accounts":
            wait_until(lambda: not is_alive(session), within=60)
        time.sleep(13)  # the first firing gives up after 8 seconds; to look for the user would wait for the lock
    wait_until(lambda: not own_harness.has_user(spec.username), within=60)
    assert_ended(own_harness, spec, session)
    removal = own_harness.adapter().drop_user(spec.username, spec.level)
    assert "the server's own event had ended it" in removal.notes[0]


def test_event_locks_the_user_where_the_bot_may_not_kill_any_more(own_harness: EngineHarness) -> None:
    spec = create_user(own_harness, own_harness.reading, remaining=4.0)
    session = connect(own_harness, spec)
    kill = "CONNECTION ADMIN" if own_harness.is_mariadb else "CONNECTION_ADMIN"
    own_harness.server.run(own_harness.rights[kill])
    wait_until(lambda: is_locked(own_harness, spec.username), within=60)
    own_harness.server.run(f"GRANT {kill} ON *.* TO `{own_harness.bot}`@`%`")
    wait_until(lambda: not own_harness.has_user(spec.username), within=60)
    assert_ended(own_harness, spec, session)


@pytest.mark.parametrize("what", ["role", "schema", "database"])
def test_end_works_where_an_administrator_dropped_what_it_uses(own_harness: EngineHarness, what: str) -> None:
    server, level = own_harness.server, own_harness.writing
    before = own_harness.adapter().level_state(level)
    spec = create_user(own_harness, level)
    session = connect(own_harness, spec)
    dropped = {
        "role": f"DROP ROLE {own_harness.server_role(own_harness.writer)}",
        "schema": f"DROP DATABASE {own_harness.ops_schema}",
        "database": f"DROP DATABASE {own_harness.database}",
    }
    server.run(dropped[what])
    own_harness.adapter().drop_user(spec.username, level, before)
    assert not own_harness.has_user(spec.username)
    assert not is_alive(session)
