"""Behaviour of the two servers that could break a grant or its end, one case per test."""

from __future__ import annotations

import os
import secrets
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pymysql
import pytest

from adapters.base import (
    Enforced,
    Finding,
    ForeignUser,
    Grant,
    Level,
    LoginRefused,
    Rejected,
    Secrets,
    ServerDown,
    Tls,
    UserSpec,
)
from adapters.harness import Denied, wait_until
from adapters.mysql import MySQLFamily
from adapters.mysql.levels import managed_role
from tests.contract.mysql.harness import BOT_PASSWORD, EngineHarness, build
from tests.servers import mysql as servers
from tests.servers.mysql import MySQLServer


def findings(harness: EngineHarness, text: str, *levels: Level) -> list[Finding]:
    health = harness.adapter().check(levels or (harness.reading,))
    return [finding for finding in (*health.problems, *health.warnings) if text in finding.what]


def is_locked(harness: EngineHarness, username: str) -> bool:
    """Read from SHOW CREATE USER."""
    return "ACCOUNT LOCK" in harness.server.query(f"SHOW CREATE USER `{username}`@`%`")[0][0]


def level_with(*privileges: str, on: str = "*") -> Level:
    return Level(name="wide", grants=(Grant(on=(on,), privileges=privileges),))


def grant_to_bot(harness: EngineHarness, *privileges: str) -> None:
    """Grant the privileges to the bot with grant option."""
    name = harness.database.replace("_", "\\_")
    harness.server.run(f"GRANT {', '.join(privileges)} ON `{name}`.* TO `{harness.bot}`@`%` WITH GRANT OPTION")


# Names.


def test_underscore_in_a_database_name_is_no_wildcard(own_harness: EngineHarness) -> None:
    grant_to_bot(own_harness, "SELECT")
    beside = own_harness.database.replace("my_shop", "myXshop")
    own_harness.server.run(f"CREATE DATABASE {beside}", f"CREATE TABLE {beside}.customers (id INT)")
    spec = own_harness.spec(level_with("SELECT"))
    own_harness.adapter().create_user(spec)
    session = own_harness.login(spec.username, spec.password)
    assert session.read() == 100
    with pytest.raises(Denied):
        session._query(f"SELECT COUNT(*) FROM {beside}.customers")
    session.close()
    own_harness.adapter().drop_user(spec.username, spec.level)


@pytest.mark.parametrize("name", ["x`; DROP TABLE customers; -- ", "x' OR ''='", 'x"y', "no\\such", "%"])
def test_hostile_names_in_levels_are_quoted_or_refused(harness: EngineHarness, name: str) -> None:
    for level in (
        Level(name="x", roles=(name,)),
        Level(name="x", grants=(Grant(on=(name,), privileges=("SELECT",)),)),
        Level(name="x", grants=(Grant(on=("customers",), privileges=(name,)),)),
    ):
        spec = harness.spec(level)
        with pytest.raises(Rejected):
            harness.adapter().create_user(spec)
        harness.adapter().check([level])
        assert not harness.has_user(spec.username) or is_locked(harness, spec.username)
        harness.adapter().drop_user(spec.username, spec.level)
    assert harness.server.query(f"SELECT COUNT(*) FROM {harness.database}.customers") == [(100,)]


def test_user_with_another_host_is_foreign(harness: EngineHarness) -> None:
    spec = harness.spec(harness.reading)
    harness.server.run(
        f"CREATE USER `{spec.username}`@`localhost` IDENTIFIED BY 'known0Password'",
        f"GRANT SELECT ON {harness.database}.* TO `{spec.username}`@`localhost`",
    )
    session = harness.login(spec.username, "known0Password")
    for change in (
        lambda: harness.adapter().create_user(spec),
        lambda: harness.adapter().drop_user(spec.username, spec.level),
    ):
        with pytest.raises(ForeignUser):
            change()
    assert session.is_alive()
    session.close()
    harness.server.run(f"DROP USER `{spec.username}`@`localhost`")


def test_user_whose_name_differs_in_case_is_foreign(own_harness: EngineHarness) -> None:
    """The process list compares names without case; accounts are compared with case. Neither the adapter nor the event touches the other user."""
    spec, fleeting = own_harness.spec(own_harness.reading), own_harness.spec(own_harness.reading, remaining=1)
    for one in (spec, fleeting):
        own_harness.adapter().create_user(one)
        own_harness.server.run(f"CREATE USER `{one.username.upper()}`@`%` IDENTIFIED BY 'Known0Password'")
    others = [own_harness.server.connect(one.username.upper(), "Known0Password") for one in (spec, fleeting)]
    mine = own_harness.login(spec.username, spec.password)
    assert own_harness.adapter().activity([spec.username])[0].sessions == 1
    assert own_harness.adapter().drop_user(spec.username, spec.level).sessions_ended == 1
    assert not mine.is_alive()
    wait_until(lambda: not own_harness.has_user(fleeting.username))
    for other in others:
        with other.cursor() as cursor:
            cursor.execute("SELECT 1")
        other.close()


def test_check_reports_anonymous_accounts(own_harness: EngineHarness) -> None:
    own_harness.server.run("CREATE USER ''@'anonymous.example.com'")
    warnings = findings(own_harness, "anonymous account for anonymous.example.com")
    assert [f.is_fatal for f in warnings] == [False]
    assert warnings[0].remedy is not None
    own_harness.server.run(warnings[0].remedy.rstrip(";"))
    assert findings(own_harness, "anonymous.example.com") == []


# Levels.


@pytest.mark.parametrize("right", ["CREATE USER", "SUPER", "FILE", "PROCESS"])
def test_role_with_a_dangerous_right_is_refused(own_harness: EngineHarness, right: str) -> None:
    own_harness.server.run(f"GRANT {right} ON *.* TO {own_harness.server_role(own_harness.reader)}")
    spec = own_harness.spec(own_harness.reading)
    with pytest.raises(Rejected, match="could outlive the grant"):
        own_harness.adapter().create_user(spec)
    assert not own_harness.has_user(spec.username)
    assert findings(own_harness, "could outlive the grant")


@pytest.mark.parametrize(
    ("privilege", "is_dangerous"),
    [
        ("INSERT ON *.*", True),
        ("UPDATE ON mysql.*", True),
        ("DELETE ON mysql.db", True),
        ("INSERT ON `%`.*", True),
        ("SELECT ON mysql.*", False),
        ("SELECT ON *.*", False),
        ("UPDATE ON {shop}.*", False),
    ],
)
def test_role_that_can_write_accounts_is_refused(
    own_harness: EngineHarness, privilege: str, is_dangerous: bool
) -> None:
    role = own_harness.server_role(own_harness.reader)
    own_harness.server.run(f"GRANT {privilege.replace('{shop}', own_harness.database)} TO {role}")
    spec = own_harness.spec(own_harness.reading)
    if is_dangerous:
        with pytest.raises(Rejected, match="could outlive the grant"):
            own_harness.adapter().create_user(spec)
    else:
        own_harness.adapter().create_user(spec)
    own_harness.adapter().drop_user(spec.username, spec.level)


def test_level_on_system_schemas_is_refused(own_harness: EngineHarness) -> None:
    for on in ("mysql.user", "mysql.*", f"{own_harness.ops_schema}.*"):
        with pytest.raises(Rejected, match="cannot give anything"):
            own_harness.adapter().create_user(own_harness.spec(level_with("SELECT", on=on)))


def test_dangerous_right_through_another_role_is_refused(own_harness: EngineHarness) -> None:
    role = own_harness.server_role
    own_harness.server.run(
        f"GRANT CREATE USER ON *.* TO {role(own_harness.writer)}",
        f"GRANT {role(own_harness.writer)} TO {role(own_harness.reader)}",
    )
    with pytest.raises(Rejected, match=f"through {own_harness.writer}"):
        own_harness.adapter().create_user(own_harness.spec(own_harness.reading))


@pytest.mark.parametrize(
    "privilege", ["EVENT", "TRIGGER", "CREATE ROUTINE", "ALL", "GRANT OPTION", "SUPER", "SELECT, UPDATE", ""]
)
def test_privilege_that_no_level_may_grant_is_refused(harness: EngineHarness, privilege: str) -> None:
    with pytest.raises(Rejected, match="cannot give"):
        harness.adapter().create_user(harness.spec(level_with(privilege)))


def test_managed_role_is_made_equal_to_its_level_and_dropped_with_its_last_user(own_harness: EngineHarness) -> None:
    level = own_harness.narrow
    role = managed_role(own_harness.target(), level)
    assert role is not None
    first, second = own_harness.spec(level), own_harness.spec(level)
    adapter = own_harness.adapter()
    adapter.create_user(first)
    own_harness.server.run(f"GRANT SELECT ON `{own_harness.database}`.orders TO {own_harness.server_role(role)}")
    grant_to_bot(own_harness, "SELECT")
    adapter.create_user(second)
    session = own_harness.login(second.username, second.password)
    with pytest.raises(Denied):
        session.read_beside()
    session.close()
    adapter.drop_user(first.username, level)
    assert own_harness.has_user(role)
    adapter.drop_user(second.username, level)
    assert not own_harness.has_user(role)


def test_level_with_several_roles_and_grants_works(own_harness: EngineHarness) -> None:
    level = Level(name="both", roles=(own_harness.reader, own_harness.writer), grants=own_harness.narrow.grants)
    spec = own_harness.spec(level)
    own_harness.adapter().create_user(spec)
    session = own_harness.login(spec.username, spec.password)
    assert session.read_beside() == 100
    session.write()
    session.close()
    own_harness.adapter().drop_user(spec.username, level)


def test_users_of_a_managed_role_can_be_created_in_parallel(own_harness: EngineHarness) -> None:
    specs = [own_harness.spec(own_harness.narrow) for _ in range(16)]
    adapter = own_harness.adapter()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(adapter.create_user, specs))
        for spec in specs:
            session = own_harness.login(spec.username, spec.password)
            assert session.read() == 100
            session.close()
        list(pool.map(lambda spec: adapter.drop_user(spec.username, spec.level), specs))
    assert not any(own_harness.has_user(spec.username) for spec in specs)


def test_server_enforces_the_limits_in_settings(harness: EngineHarness) -> None:
    spec = harness.spec(replace(harness.reading, settings={"max_user_connections": "2"}))
    harness.adapter().create_user(spec)
    sessions = [harness.login(spec.username, spec.password) for _ in range(2)]
    with pytest.raises(LoginRefused, match="max_user_connections"):
        harness.login(spec.username, spec.password)
    for session in sessions:
        session.close()
    harness.adapter().drop_user(spec.username, spec.level)
    with pytest.raises(Rejected, match="no setting statement_timeout"):
        harness.adapter().create_user(harness.spec(replace(harness.reading, settings={"statement_timeout": "5min"})))


# The end.


def test_user_with_an_end_in_the_past_cannot_log_in(harness: EngineHarness) -> None:
    """The server drops an event with a time in the past without an error."""
    spec = harness.spec(harness.reading, remaining=-60)
    harness.adapter().create_user(spec)
    with pytest.raises(LoginRefused):
        harness.login(spec.username, spec.password)
    wait_until(lambda: not harness.has_user(spec.username))
    assert not harness.adapter().drop_user(spec.username, spec.level).was_absent


def test_event_kills_running_statements_and_is_on_the_receipt(harness: EngineHarness) -> None:
    """Dbaccess does nothing between the create and the end."""
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
        "SELECT TIMESTAMPDIFF(SECOND, UTC_TIMESTAMP(), execute_at) FROM information_schema.events WHERE event_name = %s",
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


# The server.


def test_read_only_server_is_refused(own_harness: EngineHarness) -> None:
    """A bot with CONNECTION_ADMIN could create users there that the primary does not know."""
    spec = own_harness.spec(own_harness.reading)
    own_harness.adapter().create_user(spec)
    own_harness.server.run("SET GLOBAL read_only = 1")
    try:
        assert findings(own_harness, "read-only")
        for change in (
            lambda: own_harness.adapter().create_user(own_harness.spec(own_harness.reading)),
            lambda: own_harness.adapter().drop_user(spec.username, spec.level),
        ):
            with pytest.raises(ServerDown, match="read-only"):
                change()
    finally:
        own_harness.server.run("SET GLOBAL read_only = 0")
    own_harness.adapter().drop_user(spec.username, spec.level)


def test_password_never_expires_by_itself(own_harness: EngineHarness) -> None:
    """MariaDB lets a user with an expired password in, who can then set a new one."""
    own_harness.server.run("SET GLOBAL default_password_lifetime = 1")
    try:
        spec = own_harness.spec(own_harness.reading)
        own_harness.adapter().create_user(spec)
        assert "PASSWORD EXPIRE NEVER" in own_harness.server.query(f"SHOW CREATE USER `{spec.username}`@`%`")[0][0]
    finally:
        own_harness.server.run("SET GLOBAL default_password_lifetime = 0")
    own_harness.adapter().drop_user(spec.username, spec.level)


def test_user_must_use_tls_where_the_target_requires_it(own_harness: EngineHarness) -> None:
    """MySQL creates a certificate for itself. MariaDB 10.11 has none here, so the bot itself is refused."""
    required = own_harness.adapter(tls=Tls(mode="require"))
    spec = own_harness.spec(own_harness.reading)
    if own_harness.is_mariadb:
        with pytest.raises(Rejected, match="tls"):
            required.create_user(spec)
        return
    required.create_user(spec)
    required.login(spec.username, spec.password, spec.level).close()
    with pytest.raises(LoginRefused):
        own_harness.adapter(tls=Tls(mode="disable")).login(spec.username, spec.password, spec.level)
    required.drop_user(spec.username, spec.level)
    authority = str(own_harness.server.folder / "data" / "ca.pem")
    assert own_harness.adapter(tls=Tls(mode="verify-ca", ca=authority)).identity()
    for mode, ca in (("verify-full", authority), ("verify-ca", None), ("verify-ca", "/no/such/file")):
        with pytest.raises(Rejected):
            own_harness.adapter(tls=Tls(mode=mode, ca=ca)).identity()


def test_call_to_a_frozen_server_times_out(own_harness: EngineHarness) -> None:
    process = own_harness.server.process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    began = time.monotonic()
    try:
        with pytest.raises(ServerDown):
            own_harness.adapter().identity()
        assert time.monotonic() - began < 60
    finally:
        os.kill(process.pid, signal.SIGCONT)


@pytest.mark.parametrize(
    "url",
    [
        "mysql://",
        "postgresql://u:Pw0Secret@h/d",
        "mysql://u:Pw0Secret@h:port/d",
        "nonsense",
        "mysql://u:Pw0Secret@h/d?x=1",
    ],
)
def test_unreadable_admin_url_is_refused_without_its_password(harness: EngineHarness, url: str) -> None:
    with pytest.raises(Rejected, match="env:UNUSED cannot be read") as caught:
        harness.engine(harness.target(), Secrets(admin_url=url))
    assert "Pw0Secret" not in str(caught.value)


def test_wrong_password_of_the_bot_is_refused_with_a_remedy(harness: EngineHarness) -> None:
    wrong = harness.engine(harness.target(), Secrets(admin_url=harness.server.url(harness.bot, "Wrong0Password")))
    with pytest.raises(Rejected, match="refused the bot's own login") as caught:
        wrong.identity()
    assert "Wrong0Password" not in str(caught.value)
    assert caught.value.remedy is not None


def test_procedure_sets_only_allowed_roles_for_temporary_users(own_harness: EngineHarness) -> None:
    """The procedure runs with all rights of the DBA and must not pass them on."""
    if not own_harness.is_mariadb:
        pytest.skip("MySQL needs no procedure")
    with own_harness.server.connect(own_harness.bot, BOT_PASSWORD) as connection, connection.cursor() as cursor:
        for user, role in (("root", own_harness.reader), (f"{own_harness.prefix}1_a_0000", "other_role")):
            with pytest.raises(pymysql.MySQLError, match="may not set this default role"):
                cursor.execute(f"CALL {own_harness.ops_schema}.set_default_role(%s, %s)", (user, role))
    own_harness.server.run(f"CREATE ROLE other_{own_harness.reader}")
    spec = own_harness.spec(Level(name="x", roles=(f"other_{own_harness.reader}",)))
    own_harness.server.run(f"GRANT other_{own_harness.reader} TO `{own_harness.bot}`@`%` WITH ADMIN OPTION")
    with pytest.raises(Rejected, match="does not allow the role"):
        own_harness.adapter().create_user(spec)
    assert is_locked(own_harness, spec.username)
    own_harness.adapter().drop_user(spec.username, spec.level)


# Replicas.


@pytest.fixture(scope="module", params=["mysql", "mariadb"])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[MySQLServer, MySQLServer]]:
    """A primary and a replica that reads from it."""
    flavour = servers.MYSQL if request.param == "mysql" else servers.MARIADB
    try:
        started = [servers.start(flavour, "--log-bin=bin", f"--server-id={n}") for n in (1, 2)]
    except servers.NoServer as missing:
        if os.environ.get("REQUIRE_SERVERS"):
            raise
        pytest.skip(str(missing))
    primary, replica = started
    where = f"HOST='127.0.0.1', {{}}PORT={primary.port}, {{}}USER='{servers.ROOT}', {{}}PASSWORD='{servers.PASSWORD}'"
    if request.param == "mariadb":
        primary.run("RESET MASTER")
        replica.run(
            "RESET MASTER",
            f"CHANGE MASTER TO MASTER_{where.format(*['MASTER_'] * 3)}, MASTER_CONNECT_RETRY=1",
            "START SLAVE",
        )
    else:
        primary.run("RESET BINARY LOGS AND GTIDS")
        source = f"CHANGE REPLICATION SOURCE TO SOURCE_{where.format(*['SOURCE_'] * 3)}, GET_SOURCE_PUBLIC_KEY=1, SOURCE_CONNECT_RETRY=1"
        replica.run("RESET BINARY LOGS AND GTIDS", source, "START REPLICA")
    replica.run("SET GLOBAL read_only = 1")
    yield primary, replica
    for server in started:
        server.remove()


@pytest.fixture
def replicated(pair: tuple[MySQLServer, MySQLServer]) -> tuple[EngineHarness, MySQLServer]:
    harness, replica = build(pair[0]), pair[1]
    wait_until(lambda: bool(replica.query("SELECT 1 FROM mysql.user WHERE user = %s", harness.writer)))
    return harness, replica


def with_replica(harness: EngineHarness, url: str) -> MySQLFamily:
    return harness.engine(
        replace(harness.target(), replicas=("env:REPLICA",)),
        Secrets(admin_url=harness.server.url(harness.bot, BOT_PASSWORD), replicas=(url,)),
    )


def wait_for_login(server: MySQLServer, spec: UserSpec) -> Any:
    """A session on the replica, as soon as the user is replicated."""
    opened = list[Any]()

    def is_in() -> bool:
        with suppress(pymysql.MySQLError):
            opened.append(server.connect(spec.username, spec.password))
        return bool(opened)

    wait_until(is_in)
    return opened[0]


def test_sessions_on_a_replica_are_ended(replicated: tuple[EngineHarness, MySQLServer]) -> None:
    harness, replica = replicated
    spec = harness.spec(harness.reading)
    alone, both = harness.adapter(), with_replica(harness, replica.url(harness.bot, BOT_PASSWORD))
    alone.create_user(spec)
    there = wait_for_login(replica, spec)
    here = harness.login(spec.username, spec.password)
    assert both.activity([spec.username])[0].sessions == 2
    removal = both.drop_user(spec.username, spec.level)
    assert removal.sessions_ended == 2
    assert "sessions were ended on the replica env:REPLICA, too" in removal.notes
    assert not here.is_alive()
    with pytest.raises(pymysql.MySQLError), there.cursor() as cursor:
        cursor.execute("SELECT 1")
    assert replica.query("SELECT 1 FROM mysql.user WHERE user = %s", spec.username) == []


def test_replica_that_is_not_configured_is_reported(replicated: tuple[EngineHarness, MySQLServer]) -> None:
    harness, _ = replicated
    spec = harness.spec(harness.reading)
    harness.adapter().create_user(spec)
    assert (
        "1 replicas read from this server and are not named"
        in harness.adapter().drop_user(spec.username, spec.level).notes[0]
    )
    assert findings(harness, "1 replicas read from this server and 0 are named")


def test_end_is_repeated_until_the_replica_is_back(replicated: tuple[EngineHarness, MySQLServer]) -> None:
    harness, replica = replicated
    spec = harness.spec(harness.reading)
    both = with_replica(harness, replica.url(harness.bot, BOT_PASSWORD))
    both.create_user(spec)
    replica.stop()
    try:
        with pytest.raises(ServerDown, match="the replica env:REPLICA"):
            both.drop_user(spec.username, spec.level)
        assert not harness.has_user(spec.username)
    finally:
        replica.start()
        replica.run("SET GLOBAL read_only = 1")
    wait_until(lambda: not replica.query("SELECT 1 FROM mysql.user WHERE user = %s", spec.username))
    both.drop_user(spec.username, spec.level)


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://u:Pw0Secret@h:port/"])
def test_invalid_replica_url_does_not_hold_up_the_end(harness: EngineHarness, url: str) -> None:
    spec, bad = harness.spec(harness.reading), with_replica(harness, url)
    bad.create_user(spec)
    session = harness.login(spec.username, spec.password)
    with pytest.raises(Rejected, match="the admin URL behind env:REPLICA cannot be read") as caught:
        bad.drop_user(spec.username, spec.level)
    assert "Pw0Secret" not in str(caught.value)
    assert not session.is_alive()
    assert not harness.has_user(spec.username)
    assert [f for f in bad.check().problems if "env:REPLICA" in f.what]


def test_password_of_the_bot_is_in_no_error(own_harness: EngineHarness) -> None:
    """Also with special characters in the password of the admin URL."""
    password = f"p@ss/w:rd%{secrets.token_hex(4)}"
    own_harness.server.run(f"CREATE USER odd_{own_harness.bot} IDENTIFIED BY '{password}'")
    adapter = own_harness.engine(
        own_harness.target(),
        Secrets(
            admin_url=f"mysql://odd_{own_harness.bot}:{password.replace('%', '%25').replace('@', '%40').replace('/', '%2F').replace(':', '%3A')}@127.0.0.1:{own_harness.server.port}/"
        ),
    )
    assert adapter.identity()
    with pytest.raises(Rejected) as caught:
        adapter.create_user(own_harness.spec(own_harness.reading))
    assert password not in f"{caught.value!r} {caught.value.__context__!r}"
