"""The event with which the server ends a user, and objects that a user leaves behind."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pymysql
import pytest

from adapters.base import (
    Enforced,
    LoginRefused,
    Rejected,
    Secrets,
)
from adapters.harness import wait_until
from tests.contract.mysql.harness import BOT_PASSWORD, EngineHarness
from tests.contract.mysql.hostile import findings, grant_to_bot, is_locked, level_with


def test_user_with_an_end_in_the_past_cannot_log_in(harness: EngineHarness) -> None:
    """The server drops an event with a time in the past without an error."""
    spec = harness.spec(harness.reading, remaining=-60)
    harness.adapter().create_user(spec)
    with pytest.raises(LoginRefused):
        harness.login(spec.username, spec.password)
    wait_until(lambda: not harness.has_user(spec.username))
    assert not harness.adapter().drop_user(spec.username, spec.level).was_absent


def test_event_kills_running_statements_and_is_on_the_receipt(harness: EngineHarness) -> None:
    """The bot does nothing between the create and the end."""
    spec = harness.spec(harness.narrow, remaining=1)
    harness.adapter().create_user(spec)
    session = harness.login(spec.username, spec.password)
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(session.work, 20)
        with pytest.raises(pymysql.MySQLError):
            work.result(timeout=120)
    wait_until(lambda: not harness.has_user(spec.username))
    removal = harness.adapter().drop_user(spec.username, spec.level)
    assert "the server's own event had ended it at" in removal.notes[0]
    assert (removal.was_absent, removal.sessions_ended) == (False, 0)
    assert harness.server.query("SELECT 1 FROM information_schema.events WHERE event_name = %s", spec.username) == []


def test_check_reports_no_enforcement_while_the_scheduler_is_off(own_harness: EngineHarness) -> None:
    assert own_harness.adapter().check().enforced is Enforced.SESSIONS
    own_harness.server.run("SET GLOBAL event_scheduler = OFF")
    try:
        assert own_harness.adapter().check().enforced is Enforced.NOTHING
        assert [f.is_fatal for f in findings(own_harness, "event scheduler is off")] == [False]
        spec = own_harness.spec(own_harness.reading)
        own_harness.adapter().create_user(spec)
        assert own_harness.adapter().drop_user(spec.username, spec.level).was_absent is False
    finally:
        own_harness.server.run("SET GLOBAL event_scheduler = ON")


def test_user_whose_event_failed_keeps_its_mark(own_harness: EngineHarness) -> None:
    """The bot's account was created again, so the event fired without a definer and did nothing. The mark must survive that."""
    spec = own_harness.spec(own_harness.reading, remaining=1)
    own_harness.adapter().create_user(spec)
    server, ops, bot = own_harness.server, own_harness.ops_schema, own_harness.bot
    grants = [row[0] for row in server.query(f"SHOW GRANTS FOR `{bot}`@`%`")]
    create = server.query(f"SHOW CREATE USER `{bot}`@`%`")[0][0]
    if not own_harness.is_mariadb:
        create = f"CREATE USER `{bot}`@`%` IDENTIFIED BY '{BOT_PASSWORD}'"
    server.run(f"DROP USER `{bot}`@`%`")
    fired = f"SELECT 1 FROM information_schema.events WHERE event_schema = '{ops}' AND last_executed IS NOT NULL"
    gone = f"SELECT 1 FROM information_schema.events WHERE event_schema = '{ops}' AND status = 'ENABLED'"
    wait_until(lambda: bool(server.query(fired)) or not server.query(gone))
    assert own_harness.has_user(spec.username)
    server.run(create, *(grant for grant in grants if "GRANT PROXY" not in grant and "SET DEFAULT ROLE" not in grant))
    assert not own_harness.adapter().drop_user(spec.username, spec.level).was_absent
    assert not own_harness.has_user(spec.username)


def test_event_fires_after_dbaccess_acts(harness: EngineHarness) -> None:
    """With the grace period of the real adapter."""
    engine = harness.engine.__mro__[1]
    assert engine.grace.total_seconds() >= 30
    adapter = engine(harness.target(), Secrets(admin_url=harness.server.url(harness.bot, BOT_PASSWORD)))
    spec = harness.spec(harness.reading, remaining=600)
    adapter.create_user(spec)
    at = harness.server.query(
        "SELECT TIMESTAMPDIFF(SECOND, UTC_TIMESTAMP(), starts) FROM information_schema.events WHERE event_name = %s",
        spec.username,
    )[0][0]
    assert abs(at - 600 - engine.grace.total_seconds()) < 10
    adapter.drop_user(spec.username, spec.level)


# Objects that a user leaves behind.


def test_definer_stays_locked_and_is_reported(own_harness: EngineHarness) -> None:
    """MySQL refuses to drop a user that is a definer (4006); MariaDB drops it."""
    grant_to_bot(own_harness, "SELECT", "CREATE VIEW", "SHOW VIEW", "DROP")
    if not own_harness.is_mariadb:
        own_harness.server.run(f"REVOKE ALLOW_NONEXISTENT_DEFINER ON *.* FROM `{own_harness.bot}`@`%`")
        assert findings(own_harness, "locked but not dropped")
    spec = own_harness.spec(level_with("SELECT", "CREATE VIEW"))
    own_harness.adapter().create_user(spec)
    session = own_harness.login(spec.username, spec.password)
    session._query("CREATE VIEW left_view AS SELECT * FROM customers")
    adapter = own_harness.adapter()
    if not own_harness.is_mariadb:
        with pytest.raises(Rejected, match=r"definer of .*left_view \(view\)") as caught:
            adapter.drop_user(spec.username, spec.level)
        assert caught.value.remedy is not None
        assert is_locked(own_harness, spec.username)
        assert not session.is_alive()
        statement = caught.value.remedy.partition(";")[0]
        own_harness.server.run(statement)
    removal = adapter.drop_user(spec.username, spec.level)
    assert f"left behind: {own_harness.database}.left_view (view)" in removal.notes
    assert not session.is_alive()
    assert not own_harness.has_user(spec.username)


@pytest.mark.parametrize("privilege", ["EVENT", "TRIGGER", "CREATE ROUTINE", "ALL"])
def test_check_warns_of_a_role_whose_objects_outlive_the_user(own_harness: EngineHarness, privilege: str) -> None:
    """An event runs as its creator, also after lock and kill."""
    assert not findings(own_harness, "goes on without its creator", own_harness.writing)
    name = own_harness.database.replace("_", "\\_")
    own_harness.server.run(f"GRANT {privilege} ON `{name}`.* TO {own_harness.server_role(own_harness.writer)}")
    warnings = findings(own_harness, "goes on without its creator", own_harness.writing)
    assert warnings
    for finding in warnings:
        assert finding.remedy is not None
        own_harness.server.run(finding.remedy.rstrip(";"))
    assert not findings(own_harness, "goes on without its creator", own_harness.writing)
