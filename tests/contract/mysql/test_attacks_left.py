"""Things that a user leaves behind: prepared transactions, objects defined by the level's role, rights passed on. And sessions that are hard to kill."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import Any

import pymysql
import pytest

from adapters.base import AdapterError, Level, PrivilegeGrant, Rejected
from adapters.harness import wait_until
from adapters.mysql.levels import danger, managed_role
from tests.contract.mysql.harness import EngineHarness
from tests.contract.mysql.hostile import assert_ended, closed_after_test, connect, create_user, run, succeeds
from tests.open_faults import open_fault, require
from tests.soak import soak_only


def escaped(harness: EngineHarness) -> str:
    return harness.database.replace("_", "\\_")


def connect_as_other(harness: EngineHarness, *rights: str) -> pymysql.Connection[Any]:
    """A permanent account with few rights."""
    name = f"mallory_{harness.bot}"
    harness.server.run(f"CREATE USER {name} IDENTIFIED BY 'Known0Password'", *(f"GRANT {r} TO {name}" for r in rights))
    return closed_after_test(harness.server.connect(name, "Known0Password"))


# Prepared transactions.


def test_prepared_transaction_is_on_the_receipt_with_its_rollback(own_harness: EngineHarness) -> None:
    """It keeps its locks, and anybody who knows its name may commit it."""
    xid = f"x{own_harness.bot}"
    spec = create_user(own_harness, own_harness.writing)
    session = connect(own_harness, spec)
    for statement in (f"XA START '{xid}','b'", "UPDATE orders SET customer = 666 WHERE id = 1", f"XA END '{xid}','b'"):
        run(session, statement)
    run(session, f"XA PREPARE '{xid}','b'")
    session.close()
    removal = own_harness.adapter().drop_user(spec.username, spec.level)
    assert_ended(own_harness, spec)
    notes = [note for note in removal.notes if note.startswith("prepared XA transactions are open")]
    assert notes
    statements = notes[0].partition(": ")[2].split("; ")
    mine = [s for s in statements if xid.encode().hex() in s.lower() or f"'{xid}'" in s]
    assert len(mine) == 1
    own_harness.server.run(mine[0])
    assert own_harness.server.query(f"SELECT customer FROM {own_harness.database}.orders WHERE id = 1") == [(1,)]
    own_harness.server.run(f"UPDATE {own_harness.database}.orders SET customer = 5 WHERE id = 1")
    second = create_user(own_harness, own_harness.writing)
    assert xid not in str(own_harness.adapter().drop_user(second.username, second.level).notes)


def test_bot_that_cannot_see_prepared_transactions_ends_users_and_check_warns(own_harness: EngineHarness) -> None:
    if own_harness.is_mariadb:
        pytest.skip("MariaDB shows prepared transactions to everybody")
    own_harness.server.run(f"REVOKE XA_RECOVER_ADMIN ON *.* FROM `{own_harness.bot}`@`%`")
    warnings = [f for f in own_harness.adapter().check([own_harness.reading]).warnings if "prepared XA" in f.what]
    assert [f.remedy for f in warnings] == [f"GRANT XA_RECOVER_ADMIN ON *.* TO '{own_harness.bot}'@'%';"]
    spec = create_user(own_harness, own_harness.writing)
    own_harness.adapter().drop_user(spec.username, spec.level)
    assert_ended(own_harness, spec)


# Objects of the level's role.


@pytest.fixture
def scratch(own_harness: EngineHarness) -> str:
    """A schema in which a level may create views and that others may read."""
    if not own_harness.is_mariadb:
        pytest.skip("MySQL has no DEFINER = CURRENT_ROLE")
    return own_harness.server.new_database("scratch")


LEFT = {
    "view": ("CREATE VIEW", "CREATE DEFINER=CURRENT_ROLE VIEW {scratch}.left_one AS SELECT * FROM {shop}.customers"),
    "routine": (
        "CREATE ROUTINE",
        "CREATE DEFINER=CURRENT_ROLE PROCEDURE {scratch}.left_one() SQL SECURITY DEFINER UPDATE {shop}.orders SET customer = 777 WHERE id = 2",
    ),
    "event": (
        "EVENT",
        "CREATE DEFINER=CURRENT_ROLE EVENT {scratch}.left_one ON SCHEDULE EVERY 1 HOUR STARTS CURRENT_TIMESTAMP + INTERVAL 1 DAY DO DELETE FROM {shop}.orders",
    ),
    "trigger": (
        "CREATE, TRIGGER",
        "CREATE TABLE {scratch}.t (id INT); CREATE DEFINER=CURRENT_ROLE TRIGGER {scratch}.left_one BEFORE INSERT ON {scratch}.t FOR EACH ROW DELETE FROM {shop}.orders",
    ),
}


@pytest.mark.parametrize("is_compared", [True, False])
@pytest.mark.parametrize("kind", LEFT)
def test_object_defined_by_the_levels_role_is_on_the_receipt(
    own_harness: EngineHarness, scratch: str, kind: str, is_compared: bool
) -> None:
    """Grants of older versions have no state to compare with."""
    right, statements = LEFT[kind]
    own_harness.server.run(f"GRANT SELECT, {right} ON {scratch}.* TO {own_harness.writer}")
    before = own_harness.adapter().level_state(own_harness.writing) if is_compared else None
    spec = create_user(own_harness, own_harness.writing)
    session = connect(own_harness, spec)
    for statement in statements.format(scratch=scratch, shop=own_harness.database).split("; "):
        run(session, statement)
    removal = own_harness.adapter().drop_user(spec.username, spec.level, before)
    require(not own_harness.has_user(spec.username), "the user is dropped")
    exists = (
        own_harness.server.query(f"SHOW {kind.upper()}S FROM {scratch}") if kind in ("event", "trigger") else [(1,)]
    )
    assert not exists or f"{scratch}.left_one ({kind})" in " ".join(removal.notes)


def test_view_defined_by_a_managed_role_does_not_work_after_the_end(own_harness: EngineHarness, scratch: str) -> None:
    level = Level(
        name="views",
        grants=(
            PrivilegeGrant(on=(f"{own_harness.database}.*",), privileges=("SELECT",)),
            PrivilegeGrant(on=(f"{scratch}.*",), privileges=("CREATE VIEW", "SELECT")),
        ),
    )
    for given, place in (("SELECT", escaped(own_harness)), ("CREATE VIEW, SELECT", scratch.replace("_", "\\_"))):
        own_harness.server.run(f"GRANT {given} ON `{place}`.* TO `{own_harness.bot}`@`%` WITH GRANT OPTION")
    first, second = create_user(own_harness, level), create_user(own_harness, level)
    run(
        connect(own_harness, first),
        f"CREATE DEFINER=CURRENT_ROLE VIEW {scratch}.v AS SELECT * FROM {own_harness.database}.customers",
    )
    reader = connect_as_other(own_harness, f"SELECT ON {scratch}.*")
    require(succeeds(reader, f"SELECT COUNT(*) FROM {scratch}.v"), "other accounts can read through the view")
    removal = own_harness.adapter().drop_user(first.username, level)
    works_on = succeeds(reader, f"SELECT COUNT(*) FROM {scratch}.v")
    own_harness.adapter().drop_user(second.username, level)
    require(
        not own_harness.has_user(str(managed_role(own_harness.target(), level))),
        "the role is dropped with its last user",
    )
    assert not works_on or f"{scratch}.v (view)" in " ".join(removal.notes)


# Rights that may be passed on.


PASSED_ON = {
    "procedure": "EXECUTE, ALTER ROUTINE ON PROCEDURE {shop}.p",
    "table": "SELECT ON {shop}.customers",
    "column": "SELECT (id) ON {shop}.customers",
    "blank": "SELECT ON `{blank}`.*",
    "blank-table": "SELECT ON `{blank}`.`a t`",
    "dash": "SELECT ON `{dash}`.*",
}


@pytest.mark.parametrize("what", PASSED_ON)
def test_role_with_grant_option_is_refused(own_harness: EngineHarness, what: str) -> None:
    server, tag = own_harness.server, own_harness.bot[4:]
    places = {"shop": own_harness.database, "blank": f"orders eu {tag}", "dash": f"orders-eu-{tag}"}
    server.run(
        f"CREATE PROCEDURE {own_harness.database}.p() SELECT 1",
        f"CREATE DATABASE `{places['blank']}`",
        f"CREATE DATABASE `{places['dash']}`",
        f"CREATE TABLE `{places['blank']}`.`a t` (id INT)",
        f"GRANT {PASSED_ON[what].format(**places)} TO {own_harness.server_role(own_harness.reader)} WITH GRANT OPTION",
    )
    with own_harness.adapter().server.session() as connection:
        assert danger(own_harness.adapter().server, connection, own_harness.reader)
    spec = own_harness.spec(own_harness.reading)
    with pytest.raises(Rejected, match="may give its rights to others"):
        own_harness.adapter().create_user(spec)
    assert not own_harness.has_user(spec.username)
    assert [f for f in own_harness.adapter().check([own_harness.reading]).problems if "give its rights" in f.what]


BACKSLASH = open_fault(
    "U6", "on MySQL a level on a whole database gives no access if the name has a backslash and no _"
)


@pytest.mark.parametrize(
    "database",
    [
        "orders-prod {}",
        "Orders Prod {}",
        "per%cent {}",
        "Ünïcode {}",
        "tick`ed {}",
        "back\\slash {}",
    ],
)
def test_names_that_need_quotes_work_in_levels(
    own_harness: EngineHarness, database: str, request: pytest.FixtureRequest
) -> None:
    if "\\" in database and not own_harness.is_mariadb:
        request.applymarker(BACKSLASH)
    name = database.format(own_harness.bot[4:])
    quoted = "`" + name.replace("`", "``") + "`"
    pattern = "".join("\\" + c if c in "_%\\" else c for c in quoted)
    bot = f"`{own_harness.bot}`@`%`"
    own_harness.server.run(
        f"CREATE DATABASE {quoted}",
        f"CREATE TABLE {quoted}.`order` (id INT)",
        f"GRANT SELECT ON {pattern}.* TO {bot} WITH GRANT OPTION",
        f"GRANT SELECT ON {quoted}.`order` TO {bot} WITH GRANT OPTION",
    )
    for on in (f"{name}.*", f"{name}.order"):
        level = Level(name="odd", grants=(PrivilegeGrant(on=(on,), privileges=("SELECT",)),))
        assert own_harness.adapter().check([level]).problems == ()
        spec = create_user(own_harness, level)
        session = closed_after_test(own_harness.server.connect(spec.username, spec.password))
        assert succeeds(session, f"SELECT COUNT(*) FROM {quoted}.`order`")
        own_harness.adapter().drop_user(spec.username, level)
        assert_ended(own_harness, spec)


# Sessions that are hard to kill.


STUBBORN = {
    "sleep": ("SELECT SLEEP(1000)",) * 2,
    "benchmark": ("SELECT BENCHMARK(1000000000000, SHA2(REPEAT('x', 1000), 512))",) * 2,
    "regexp": ("SELECT REGEXP_LIKE(REPEAT('a', 40), '(a+)+b')", "SELECT REPEAT('a', 40) REGEXP '(a+)+b'"),
    "join": ("SELECT COUNT(*) FROM customers a, customers b, customers c, customers d, customers e",) * 2,
    "recursion": ("WITH RECURSIVE c AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM c) SELECT COUNT(*) FROM c",) * 2,
    "unread": ("SELECT REPEAT('x', 100000) FROM customers a, customers b, customers c, customers d",) * 2,
    "large": (
        "SELECT COUNT(*) FROM (SELECT AES_ENCRYPT(REPEAT('x', 10000000), 'k') FROM customers a, customers b, customers c) z",
    )
    * 2,
}


@soak_only
@pytest.mark.timeout(600)
@pytest.mark.parametrize("what", STUBBORN)
def test_session_that_is_hard_to_kill_is_ended(own_harness: EngineHarness, what: str) -> None:
    spec = create_user(own_harness, own_harness.reading)
    session = connect(own_harness, spec)
    deep = "max_recursive_iterations" if own_harness.is_mariadb else "cte_max_recursion_depth"
    run(session, f"SET SESSION {deep} = 4294967295")
    statement = STUBBORN[what][own_harness.is_mariadb]
    if what == "unread":
        session._execute_command(3, statement)
    else:
        threading.Thread(target=lambda: succeeds(session, statement), daemon=True).start()
    wait_until(lambda: _runs(own_harness, spec.username), within=60)
    time.sleep(1)  # until the statement is well under way; the server does not show its progress
    _drop_until_gone(own_harness, spec.username, spec.level)
    assert not _runs(own_harness, spec.username)
    assert not own_harness.has_user(spec.username)


@soak_only
@pytest.mark.timeout(900)
def test_end_waits_for_a_long_rollback(own_harness: EngineHarness) -> None:
    """Meanwhile the login is blocked, and drop_user raises."""
    own_harness.server.run(
        f"GRANT CREATE ON `{escaped(own_harness)}`.* TO {own_harness.server_role(own_harness.writer)}"
    )
    spec = create_user(own_harness, own_harness.writing)
    session = connect(own_harness, spec)
    run(session, "CREATE TABLE big (id INT AUTO_INCREMENT PRIMARY KEY, t VARCHAR(200))")
    run(
        session,
        "INSERT INTO big (t) SELECT REPEAT('x', 200) FROM customers a, customers b, (SELECT 1 FROM customers LIMIT 50) c",
    )
    run(session, "START TRANSACTION")
    session._execute_command(3, "UPDATE big SET t = REPEAT('y', 200)")
    time.sleep(5)  # until there is enough to roll back
    _drop_until_gone(own_harness, spec.username, spec.level)
    assert not own_harness.has_user(spec.username)
    assert not _runs(own_harness, spec.username), (
        "the session's answer may still be in its socket, so the process list counts"
    )


def _runs(harness: EngineHarness, username: str) -> bool:
    return bool(harness.server.query("SELECT 1 FROM information_schema.processlist WHERE user = %s", username))


def _drop_until_gone(harness: EngineHarness, username: str, level: Level) -> None:
    """Repeat the end, as the revocation does."""
    deadline = time.monotonic() + 300
    while harness.has_user(username) and time.monotonic() < deadline:
        with suppress(AdapterError):
            harness.adapter().drop_user(username, level)
