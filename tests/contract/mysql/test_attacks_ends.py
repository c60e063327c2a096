"""Users that try to hold up their own end: by locks on the tables of accounts, by backup locks, by half-open logins."""

from __future__ import annotations

import threading
import time
from contextlib import closing, suppress

import pymysql
import pytest

from adapters.base import Blocked, Level, Rejected, ServerDown
from adapters.harness import wait_until
from tests.contract.mysql.harness import EngineHarness
from tests.contract.mysql.hostile import (
    HalfOpenLogin,
    assert_ended,
    can_log_in,
    closed_after_test,
    connect,
    create_user,
    is_alive,
    metadata_locks_shown,
    run,
)
from tests.open_faults import require

SECONDS = 30.0
"""The limit for one end. An end takes less than a second, and ten with a retry at every lock."""

HOLDS = {
    "accounts": ("LOCK TABLES mysql.user READ", "LOCK TABLES mysql.global_priv READ"),
    "accounts-written": ("LOCK TABLES mysql.user WRITE", "LOCK TABLES mysql.global_priv WRITE"),
    "privileges": ("LOCK TABLES mysql.db READ", "LOCK TABLES mysql.db READ, mysql.roles_mapping READ"),
    "events": ("LOCK TABLES mysql.component READ", "LOCK TABLES mysql.event READ"),
    "rows": ("START TRANSACTION; SELECT * FROM mysql.user FOR UPDATE", None),
    "flushed": ("FLUSH TABLES mysql.user WITH READ LOCK", None),
    "everything": ("FLUSH TABLES WITH READ LOCK", "FLUSH TABLES WITH READ LOCK"),
    "backup": ("LOCK INSTANCE FOR BACKUP", "BACKUP STAGE START; BACKUP STAGE FLUSH; BACKUP STAGE BLOCK_COMMIT"),
}


def hold_of(harness: EngineHarness, name: str) -> list[str]:
    statements = HOLDS[name][harness.is_mariadb]
    if statements is None:
        pytest.skip("MariaDB's tables of accounts have no row locks")
    return statements.split("; ")


def give_locks(harness: EngineHarness) -> None:
    """The rights of a role for dumps, and more. An administrator grants them after the user was created."""
    role = harness.server_role(harness.reader)
    harness.server.run(f"GRANT SELECT, LOCK TABLES, RELOAD ON *.* TO {role}")
    if not harness.is_mariadb:
        harness.server.run(f"GRANT BACKUP_ADMIN ON *.* TO {role}")


def hold(harness: EngineHarness, session: pymysql.Connection[object], name: str) -> None:
    for statement in hold_of(harness, name):
        run(session, statement)


@pytest.mark.parametrize("name", HOLDS)
def test_lock_held_by_the_user_does_not_hold_up_its_end(own_harness: EngineHarness, name: str) -> None:
    spec = create_user(own_harness, own_harness.reading)
    give_locks(own_harness)
    holder, other = connect(own_harness, spec), connect(own_harness, spec)
    hold(own_harness, holder, name)
    began = time.monotonic()
    removal = own_harness.adapter().drop_user(spec.username, spec.level)
    assert time.monotonic() - began < SECONDS
    assert removal.sessions_ended == 2
    assert_ended(own_harness, spec, holder, other)


@pytest.mark.parametrize("name", ["accounts", "accounts-written", "privileges"])
def test_lock_held_by_the_user_does_not_hold_up_the_event(own_harness: EngineHarness, name: str) -> None:
    """FLUSH TABLES WITH READ LOCK and backup locks stop the server's scheduler, so roles with these rights are refused (see below)."""
    spec = create_user(own_harness, own_harness.reading, remaining=3.0)
    give_locks(own_harness)
    holder, other = connect(own_harness, spec), connect(own_harness, spec)
    hold(own_harness, holder, name)
    wait_until(lambda: not own_harness.has_user(spec.username), within=60)
    assert_ended(own_harness, spec, holder, other)


def test_user_that_repeats_its_locks_is_ended(own_harness: EngineHarness) -> None:
    spec = create_user(own_harness, own_harness.reading)
    give_locks(own_harness)
    lock, is_over, locked = hold_of(own_harness, "accounts")[0], threading.Event(), threading.Event()

    def repeat_the_lock() -> None:
        while not is_over.is_set():
            with suppress(pymysql.MySQLError, OSError), closing(connect(own_harness, spec)) as session:
                run(session, lock)
                locked.set()
                is_over.wait(60) if is_alive(session) else None

    threads = [threading.Thread(target=repeat_the_lock) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        require(locked.wait(30), "a session of the user holds the lock")
        own_harness.adapter().drop_user(spec.username, spec.level)
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    assert_ended(own_harness, spec)


@pytest.mark.parametrize("name", ["accounts", "rows", "everything", "backup"])
def test_lock_of_another_connection_is_named_with_its_remedy(own_harness: EngineHarness, name: str) -> None:
    """The sessions end before the lock is needed."""
    spec = create_user(own_harness, own_harness.reading)
    session = connect(own_harness, spec)
    with metadata_locks_shown(own_harness), closing(closed_after_test(own_harness.server.admin())) as backup:
        hold(own_harness, backup, name)
        with pytest.raises(Blocked) as caught:
            own_harness.adapter().drop_user(spec.username, spec.level)
        assert not is_alive(session)
        assert f"connection {backup.thread_id()} of tester holds " in caught.value.what
        assert caught.value.remedy is not None
        assert f"KILL {backup.thread_id()};" in caught.value.remedy
        run(own_harness.server.admin(), f"KILL {backup.thread_id()}")
        own_harness.adapter().drop_user(spec.username, spec.level)
    assert_ended(own_harness, spec)


def test_bot_that_cannot_see_locks_names_the_missing_right(own_harness: EngineHarness) -> None:
    if not own_harness.is_mariadb:
        own_harness.server.run(f"REVOKE SELECT ON performance_schema.* FROM `{own_harness.bot}`@`%`")
        warnings = own_harness.adapter().check([own_harness.reading]).warnings
        assert [f.remedy for f in warnings if "cannot see who holds a lock" in f.what]
    spec = create_user(own_harness, own_harness.reading)
    with closing(closed_after_test(own_harness.server.admin())) as backup:
        hold(own_harness, backup, "accounts")
        with pytest.raises(Blocked, match="does not say who holds it") as caught:
            own_harness.adapter().drop_user(spec.username, spec.level)
        assert f"{backup.thread_id()} of tester" in caught.value.what
    own_harness.adapter().drop_user(spec.username, spec.level)
    assert_ended(own_harness, spec)


@pytest.mark.parametrize("name", ["accounts", "rows"])
def test_new_password_and_new_expiry_do_not_wait_for_the_user(own_harness: EngineHarness, name: str) -> None:
    """The session that holds the lock is killed; the others live on."""
    spec = create_user(own_harness, own_harness.reading)
    give_locks(own_harness)
    other = connect(own_harness, spec)
    with metadata_locks_shown(own_harness):
        for change in (
            lambda: own_harness.adapter().set_password(spec.username, "Another0Password0Long"),
            lambda: own_harness.adapter().set_expiry(spec.username, 600.0),
        ):
            password = (
                "Another0Password0Long"
                if can_log_in(own_harness, spec.username, "Another0Password0Long")
                else spec.password
            )
            holder = closed_after_test(own_harness.server.connect(spec.username, password))
            hold(own_harness, holder, name)
            change()
            holder.close()
    assert can_log_in(own_harness, spec.username, "Another0Password0Long")
    assert is_alive(other)
    own_harness.adapter().drop_user(spec.username, spec.level)
    assert_ended(own_harness, spec, other)


def test_new_password_names_another_connection_that_holds_the_lock(own_harness: EngineHarness) -> None:
    spec = create_user(own_harness, own_harness.reading)
    with metadata_locks_shown(own_harness), closing(closed_after_test(own_harness.server.admin())) as backup:
        hold(own_harness, backup, "accounts")
        with pytest.raises(Blocked, match=f"KILL {backup.thread_id()};"):
            own_harness.adapter().set_password(spec.username, "Another0Password0Long")
    own_harness.adapter().drop_user(spec.username, spec.level)


@pytest.mark.parametrize(
    "right", ["LOCK TABLES", "RELOAD", "BACKUP_ADMIN", "FLUSH_TABLES", "XA_RECOVER_ADMIN", "INDEX"]
)
def test_role_that_could_hold_up_ends_is_refused(own_harness: EngineHarness, right: str) -> None:
    """The check is a list of what is allowed on the whole server, not of what is forbidden."""
    if own_harness.is_mariadb and "_" in right:
        pytest.skip("MariaDB has no such right")
    own_harness.server.run(
        f"GRANT SELECT, {right} ON *.* TO {own_harness.server_role(own_harness.reader)}"
        if "_" not in right
        else f"GRANT {right} ON *.* TO {own_harness.server_role(own_harness.reader)}"
    )
    spec = own_harness.spec(own_harness.reading)
    with pytest.raises(Rejected, match=f"{right} on the whole server"):
        own_harness.adapter().create_user(spec)
    assert not own_harness.has_user(spec.username)
    assert [f for f in own_harness.adapter().check([own_harness.reading]).problems if right in f.what]


@pytest.mark.parametrize("on", ["`mysq_`", "`my%`", "`_____`", "{ops}", "`%`"])
def test_role_with_a_pattern_that_matches_system_schemas_is_refused(own_harness: EngineHarness, on: str) -> None:
    """This includes the schema of the events: with EVENT there a user could move its own end."""
    place = on.replace("{ops}", own_harness.ops_schema)
    own_harness.server.run(f"GRANT EVENT, UPDATE ON {place}.* TO {own_harness.server_role(own_harness.reader)}")
    with pytest.raises(Rejected, match="where the server keeps its accounts or their events"):
        own_harness.adapter().create_user(own_harness.spec(own_harness.reading))


def test_login_that_began_before_the_end_is_no_session_after_it(own_harness: EngineHarness) -> None:
    """MySQL checks the login against a copy of the account from when the login began."""
    spec = create_user(own_harness, own_harness.reading)
    assert can_log_in(own_harness, spec.username, spec.password)
    login = HalfOpenLogin(own_harness, spec)
    own_harness.adapter().drop_user(spec.username, spec.level)
    session = login.finish()
    assert session is None or not is_alive(session)
    assert_ended(own_harness, spec)


def test_login_that_began_before_the_event_is_no_session_after_it(own_harness: EngineHarness) -> None:
    spec = create_user(own_harness, own_harness.reading, remaining=2.0)
    assert can_log_in(own_harness, spec.username, spec.password)
    login = HalfOpenLogin(own_harness, spec)
    wait_until(lambda: not own_harness.has_user(spec.username), within=60)
    session = login.finish()
    assert session is None or not is_alive(session)
    assert_ended(own_harness, spec)


def test_sessions_end_on_a_read_only_server(own_harness: EngineHarness) -> None:
    """The address leads to a replica, or the primary is being switched: the account cannot be locked there, but open sessions are killed."""
    spec = create_user(own_harness, own_harness.reading)
    session = connect(own_harness, spec)
    own_harness.server.run("SET GLOBAL read_only = 1")
    try:
        with pytest.raises(ServerDown, match="read-only"):
            own_harness.adapter().drop_user(spec.username, spec.level)
    finally:
        own_harness.server.run("SET GLOBAL read_only = 0")
    assert not is_alive(session)
    own_harness.adapter().drop_user(spec.username, Level(name="whatever"))
    assert_ended(own_harness, spec)
