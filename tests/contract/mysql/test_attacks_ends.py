"""Users that hold up their own end: by locks on the accounts, by the server's backup locks, by logins that stop half way."""

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
"""An end takes less than one; with every lock tried once it takes ten."""

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
        pytest.skip("MariaDB's accounts have no rows that could be locked")
    return statements.split("; ")


def give_locks(harness: EngineHarness) -> None:
    """What a role for dumps has, and more: given by an administrator after the user was made."""
    role = harness.server_role(harness.reader)
    harness.server.run(f"GRANT SELECT, LOCK TABLES, RELOAD ON *.* TO {role}")
    if not harness.is_mariadb:
        harness.server.run(f"GRANT BACKUP_ADMIN ON *.* TO {role}")


def hold(harness: EngineHarness, session: pymysql.Connection[object], name: str) -> None:
    for statement in hold_of(harness, name):
        run(session, statement)


@pytest.mark.parametrize("name", HOLDS)
def test_a_lock_of_its_own_does_not_keep_a_user(own_harness: EngineHarness, name: str) -> None:
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
def test_nor_from_the_servers_own_end(own_harness: EngineHarness, name: str) -> None:
    """FLUSH TABLES WITH READ LOCK and backup locks stop the server's scheduler altogether, so no role may have what they take (see below)."""
    spec = create_user(own_harness, own_harness.reading, remaining=3.0)
    give_locks(own_harness)
    holder, other = connect(own_harness, spec), connect(own_harness, spec)
    hold(own_harness, holder, name)
    wait_until(lambda: not own_harness.has_user(spec.username), within=60)
    assert_ended(own_harness, spec, holder, other)


def test_a_user_who_locks_again_and_again_is_ended(own_harness: EngineHarness) -> None:
    spec = create_user(own_harness, own_harness.reading)
    give_locks(own_harness)
    lock, is_over, locked = hold_of(own_harness, "accounts")[0], threading.Event(), threading.Event()

    def again_and_again() -> None:
        while not is_over.is_set():
            with suppress(pymysql.MySQLError, OSError), closing(connect(own_harness, spec)) as session:
                run(session, lock)
                locked.set()
                is_over.wait(60) if is_alive(session) else None

    threads = [threading.Thread(target=again_and_again) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        require(locked.wait(30), "somebody has the lock")
        own_harness.adapter().drop_user(spec.username, spec.level)
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    assert_ended(own_harness, spec)


@pytest.mark.parametrize("name", ["accounts", "rows", "everything", "backup"])
def test_somebody_elses_lock_is_named_with_what_frees_it(own_harness: EngineHarness, name: str) -> None:
    """And whatever can be ended before the lock is ended."""
    spec = create_user(own_harness, own_harness.reading)
    session = connect(own_harness, spec)
    with metadata_locks_shown(own_harness), closing(closed_after_test(own_harness.server.admin())) as backup:
        hold(own_harness, backup, name)
        with pytest.raises(Blocked) as no:
            own_harness.adapter().drop_user(spec.username, spec.level)
        assert not is_alive(session)
        assert f"connection {backup.thread_id()} of tester holds " in no.value.what
        assert no.value.remedy is not None
        assert f"KILL {backup.thread_id()};" in no.value.remedy
        run(own_harness.server.admin(), f"KILL {backup.thread_id()}")
        own_harness.adapter().drop_user(spec.username, spec.level)
    assert_ended(own_harness, spec)


def test_a_bot_that_cannot_see_locks_says_how_it_could(own_harness: EngineHarness) -> None:
    if not own_harness.is_mariadb:
        own_harness.server.run(f"REVOKE SELECT ON performance_schema.* FROM `{own_harness.bot}`@`%`")
        warned = own_harness.adapter().check([own_harness.reading]).warnings
        assert [f.remedy for f in warned if "cannot see who holds a lock" in f.what]
    spec = create_user(own_harness, own_harness.reading)
    with closing(closed_after_test(own_harness.server.admin())) as backup:
        hold(own_harness, backup, "accounts")
        with pytest.raises(Blocked, match="does not say whose it is") as no:
            own_harness.adapter().drop_user(spec.username, spec.level)
        assert f"{backup.thread_id()} of tester" in no.value.what
    own_harness.adapter().drop_user(spec.username, spec.level)
    assert_ended(own_harness, spec)


@pytest.mark.parametrize("name", ["accounts", "rows"])
def test_a_new_password_and_a_moved_end_do_not_wait_for_the_user(own_harness: EngineHarness, name: str) -> None:
    """The session that holds it goes; the others live on."""
    spec = create_user(own_harness, own_harness.reading)
    give_locks(own_harness)
    other = connect(own_harness, spec)
    with metadata_locks_shown(own_harness):
        for verb in (
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
            verb()
            holder.close()
    assert can_log_in(own_harness, spec.username, "Another0Password0Long")
    assert is_alive(other)
    own_harness.adapter().drop_user(spec.username, spec.level)
    assert_ended(own_harness, spec, other)


def test_nor_for_somebody_else_without_saying_so(own_harness: EngineHarness) -> None:
    spec = create_user(own_harness, own_harness.reading)
    with metadata_locks_shown(own_harness), closing(closed_after_test(own_harness.server.admin())) as backup:
        hold(own_harness, backup, "accounts")
        with pytest.raises(ServerDown, match=f"KILL {backup.thread_id()};"):
            own_harness.adapter().set_password(spec.username, "Another0Password0Long")
    own_harness.adapter().drop_user(spec.username, spec.level)


@pytest.mark.parametrize(
    "right", ["LOCK TABLES", "RELOAD", "BACKUP_ADMIN", "FLUSH_TABLES", "XA_RECOVER_ADMIN", "INDEX"]
)
def test_a_role_that_could_hold_up_ends_is_never_given(own_harness: EngineHarness, right: str) -> None:
    """By what is allowed on the whole server, not by a list of what is not."""
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
def test_a_pattern_that_takes_in_the_servers_own_is_never_given(own_harness: EngineHarness, on: str) -> None:
    """The schema of the events too: with EVENT there a user would move its own end."""
    place = on.replace("{ops}", own_harness.ops_schema)
    own_harness.server.run(f"GRANT EVENT, UPDATE ON {place}.* TO {own_harness.server_role(own_harness.reader)}")
    with pytest.raises(Rejected, match="where the server keeps its accounts or their ends"):
        own_harness.adapter().create_user(own_harness.spec(own_harness.reading))


def test_a_login_that_began_before_the_end_is_no_session_after_it(own_harness: EngineHarness) -> None:
    """MySQL judges it by a copy of the account that was made when it began."""
    spec = create_user(own_harness, own_harness.reading)
    assert can_log_in(own_harness, spec.username, spec.password)
    login = HalfOpenLogin(own_harness, spec)
    own_harness.adapter().drop_user(spec.username, spec.level)
    session = login.finish()
    assert session is None or not is_alive(session)
    assert_ended(own_harness, spec)


def test_nor_after_the_servers_own_end(own_harness: EngineHarness) -> None:
    spec = create_user(own_harness, own_harness.reading, remaining=2.0)
    assert can_log_in(own_harness, spec.username, spec.password)
    login = HalfOpenLogin(own_harness, spec)
    wait_until(lambda: not own_harness.has_user(spec.username), within=60)
    session = login.finish()
    assert session is None or not is_alive(session)
    assert_ended(own_harness, spec)


def test_a_read_only_server_still_ends_sessions(own_harness: EngineHarness) -> None:
    """The address leads to a replica, or the primary is being changed over: the account cannot be locked there, and what is open goes."""
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
