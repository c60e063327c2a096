"""What the facts of these two servers say would go wrong, one at a time."""

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


def found(harness: EngineHarness, words: str, *levels: Level) -> list[Finding]:
    health = harness.adapter().check(levels or (harness.reading,))
    return [finding for finding in (*health.problems, *health.warnings) if words in finding.what]


def is_locked(harness: EngineHarness, username: str) -> bool:
    """As the server's own SHOW CREATE USER has it."""
    return "ACCOUNT LOCK" in harness.server.query(f"SHOW CREATE USER `{username}`@`%`")[0][0]


def wide(*privileges: str, on: str = "*") -> Level:
    return Level(name="wide", grants=(Grant(on=(on,), privileges=privileges),))


def give(harness: EngineHarness, *privileges: str) -> None:
    """So that the bot can give them."""
    name = harness.database.replace("_", "\\_")
    harness.server.run(f"GRANT {', '.join(privileges)} ON `{name}`.* TO `{harness.bot}`@`%` WITH GRANT OPTION")


# Names.


def test_an_underscore_in_a_databases_name_is_no_wildcard(own_harness: EngineHarness) -> None:
    give(own_harness, "SELECT")
    beside = own_harness.database.replace("my_shop", "myXshop")
    own_harness.server.run(f"CREATE DATABASE {beside}", f"CREATE TABLE {beside}.customers (id INT)")
    spec = own_harness.spec(wide("SELECT"))
    own_harness.adapter().create_user(spec)
    session = own_harness.login(spec.username, spec.password)
    assert session.read() == 100
    with pytest.raises(Denied):
        session._asked(f"SELECT COUNT(*) FROM {beside}.customers")
    session.close()
    own_harness.adapter().drop_user(spec.username, spec.level)


@pytest.mark.parametrize("name", ["x`; DROP TABLE customers; -- ", "x' OR ''='", 'x"y', "no\\such", "%"])
def test_hostile_names_in_levels_are_inert(harness: EngineHarness, name: str) -> None:
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


def test_a_user_of_another_host_is_somebody_elses(harness: EngineHarness) -> None:
    spec = harness.spec(harness.reading)
    harness.server.run(
        f"CREATE USER `{spec.username}`@`localhost` IDENTIFIED BY 'known0Password'",
        f"GRANT SELECT ON {harness.database}.* TO `{spec.username}`@`localhost`",
    )
    session = harness.login(spec.username, "known0Password")
    for verb in (
        lambda: harness.adapter().create_user(spec),
        lambda: harness.adapter().drop_user(spec.username, spec.level),
    ):
        with pytest.raises(ForeignUser):
            verb()
    assert session.is_alive()
    session.close()
    harness.server.run(f"DROP USER `{spec.username}`@`localhost`")


def test_a_user_whose_name_differs_by_case_is_somebody_elses(own_harness: EngineHarness) -> None:
    """The process list compares without case, and accounts differ by it: by the adapter and by the server's own event."""
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


def test_anonymous_accounts_are_found(own_harness: EngineHarness) -> None:
    own_harness.server.run("CREATE USER ''@'anonymous.example.com'")
    warned = found(own_harness, "anonymous account for anonymous.example.com")
    assert [f.is_fatal for f in warned] == [False]
    assert warned[0].remedy is not None
    own_harness.server.run(warned[0].remedy.rstrip(";"))
    assert found(own_harness, "anonymous.example.com") == []


# Levels.


@pytest.mark.parametrize("right", ["CREATE USER", "SUPER", "FILE", "PROCESS"])
def test_a_mighty_role_is_never_given(own_harness: EngineHarness, right: str) -> None:
    own_harness.server.run(f"GRANT {right} ON *.* TO {own_harness.server_role(own_harness.reader)}")
    spec = own_harness.spec(own_harness.reading)
    with pytest.raises(Rejected, match="could outlive the grant"):
        own_harness.adapter().create_user(spec)
    assert not own_harness.has_user(spec.username)
    assert found(own_harness, "could outlive the grant")


@pytest.mark.parametrize(
    ("given", "is_mighty"),
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
def test_a_role_that_writes_accounts_is_never_given(own_harness: EngineHarness, given: str, is_mighty: bool) -> None:
    role = own_harness.server_role(own_harness.reader)
    own_harness.server.run(f"GRANT {given.replace('{shop}', own_harness.database)} TO {role}")
    spec = own_harness.spec(own_harness.reading)
    if is_mighty:
        with pytest.raises(Rejected, match="could outlive the grant"):
            own_harness.adapter().create_user(spec)
    else:
        own_harness.adapter().create_user(spec)
    own_harness.adapter().drop_user(spec.username, spec.level)


def test_a_level_gives_nothing_of_the_servers_own(own_harness: EngineHarness) -> None:
    for on in ("mysql.user", "mysql.*", f"{own_harness.ops_schema}.*"):
        with pytest.raises(Rejected, match="cannot give anything"):
            own_harness.adapter().create_user(own_harness.spec(wide("SELECT", on=on)))


def test_a_mighty_role_behind_a_role_is_never_given(own_harness: EngineHarness) -> None:
    role = own_harness.server_role
    own_harness.server.run(
        f"GRANT CREATE USER ON *.* TO {role(own_harness.writer)}",
        f"GRANT {role(own_harness.writer)} TO {role(own_harness.reader)}",
    )
    with pytest.raises(Rejected, match=f"through {own_harness.writer}"):
        own_harness.adapter().create_user(own_harness.spec(own_harness.reading))


@pytest.mark.parametrize(
    "word", ["EVENT", "TRIGGER", "CREATE ROUTINE", "ALL", "GRANT OPTION", "SUPER", "SELECT, UPDATE", ""]
)
def test_what_a_level_may_not_give(harness: EngineHarness, word: str) -> None:
    with pytest.raises(Rejected, match="cannot give"):
        harness.adapter().create_user(harness.spec(wide(word)))


def test_a_kept_role_is_made_equal_and_goes_when_nobody_has_it(own_harness: EngineHarness) -> None:
    level = own_harness.narrow
    role = managed_role(own_harness.target(), level)
    assert role is not None
    first, second = own_harness.spec(level), own_harness.spec(level)
    adapter = own_harness.adapter()
    adapter.create_user(first)
    own_harness.server.run(f"GRANT SELECT ON `{own_harness.database}`.orders TO {own_harness.server_role(role)}")
    give(own_harness, "SELECT")
    adapter.create_user(second)
    session = own_harness.login(second.username, second.password)
    with pytest.raises(Denied):
        session.read_beside()
    session.close()
    adapter.drop_user(first.username, level)
    assert own_harness.has_user(role)
    adapter.drop_user(second.username, level)
    assert not own_harness.has_user(role)


def test_several_roles_and_grants_in_one_level(own_harness: EngineHarness) -> None:
    level = Level(name="both", roles=(own_harness.reader, own_harness.writer), grants=own_harness.narrow.grants)
    spec = own_harness.spec(level)
    own_harness.adapter().create_user(spec)
    session = own_harness.login(spec.username, spec.password)
    assert session.read_beside() == 100
    session.write()
    session.close()
    own_harness.adapter().drop_user(spec.username, level)


def test_kept_roles_in_parallel(own_harness: EngineHarness) -> None:
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


def test_limits_are_the_servers(harness: EngineHarness) -> None:
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


def test_an_end_in_the_past_lets_nobody_in(harness: EngineHarness) -> None:
    """The server would throw away an event of the past without an error."""
    spec = harness.spec(harness.reading, remaining=-60)
    harness.adapter().create_user(spec)
    with pytest.raises(LoginRefused):
        harness.login(spec.username, spec.password)
    wait_until(lambda: not harness.has_user(spec.username))
    assert not harness.adapter().drop_user(spec.username, spec.level).was_absent


def test_the_event_kills_what_runs_and_says_so(harness: EngineHarness) -> None:
    """Nothing of dbaccess acts between the create and the end."""
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


def test_a_scheduler_that_is_off_is_no_enforcement(own_harness: EngineHarness) -> None:
    assert own_harness.adapter().check().enforced is Enforced.SESSIONS
    own_harness.server.run("SET GLOBAL event_scheduler = OFF")
    try:
        assert own_harness.adapter().check().enforced is Enforced.NOTHING
        assert [f.is_fatal for f in found(own_harness, "event scheduler is off")] == [False]
        spec = own_harness.spec(own_harness.reading)
        own_harness.adapter().create_user(spec)
        assert own_harness.adapter().drop_user(spec.username, spec.level).was_absent is False
    finally:
        own_harness.server.run("SET GLOBAL event_scheduler = ON")


def test_a_user_whose_event_could_do_nothing_is_still_ours(own_harness: EngineHarness) -> None:
    """The bot's login was rotated: its events fire without a definer. The mark must outlive that."""
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


def test_the_event_comes_after_dbaccess(harness: EngineHarness) -> None:
    """By the real engine's own grace; what list_users says is the end itself."""
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


# What a user can leave.


def test_a_definer_stays_locked_and_is_reported(own_harness: EngineHarness) -> None:
    """MySQL refuses to drop whoever defined something (4006); MariaDB drops them."""
    give(own_harness, "SELECT", "CREATE VIEW", "SHOW VIEW", "DROP")
    if not own_harness.is_mariadb:
        own_harness.server.run(f"REVOKE ALLOW_NONEXISTENT_DEFINER ON *.* FROM `{own_harness.bot}`@`%`")
        assert found(own_harness, "locked but not dropped")
    spec = own_harness.spec(wide("SELECT", "CREATE VIEW"))
    own_harness.adapter().create_user(spec)
    session = own_harness.login(spec.username, spec.password)
    session._asked("CREATE VIEW left_view AS SELECT * FROM customers")
    adapter = own_harness.adapter()
    if not own_harness.is_mariadb:
        with pytest.raises(Rejected, match=r"definer of .*left_view \(view\)") as no:
            adapter.drop_user(spec.username, spec.level)
        assert no.value.remedy is not None
        assert is_locked(own_harness, spec.username)
        assert not session.is_alive()
        statement = no.value.remedy.partition(";")[0]
        own_harness.server.run(statement)
    removal = adapter.drop_user(spec.username, spec.level)
    assert f"left behind: {own_harness.database}.left_view (view)" in removal.notes
    assert not session.is_alive()
    assert not own_harness.has_user(spec.username)


@pytest.mark.parametrize("word", ["EVENT", "TRIGGER", "CREATE ROUTINE", "ALL"])
def test_a_role_whose_makings_go_on_is_named(own_harness: EngineHarness, word: str) -> None:
    """An event runs as its maker after lock and kill."""
    assert not found(own_harness, "goes on without its maker", own_harness.writing)
    name = own_harness.database.replace("_", "\\_")
    own_harness.server.run(f"GRANT {word} ON `{name}`.* TO {own_harness.server_role(own_harness.writer)}")
    warned = found(own_harness, "goes on without its maker", own_harness.writing)
    assert warned
    for finding in warned:
        assert finding.remedy is not None
        own_harness.server.run(finding.remedy.rstrip(";"))
    assert not found(own_harness, "goes on without its maker", own_harness.writing)


# The server.


def test_a_read_only_server_is_refused(own_harness: EngineHarness) -> None:
    """A bot with CONNECTION_ADMIN could make users there that the primary does not know."""
    spec = own_harness.spec(own_harness.reading)
    own_harness.adapter().create_user(spec)
    own_harness.server.run("SET GLOBAL read_only = 1")
    try:
        assert found(own_harness, "read-only")
        for verb in (
            lambda: own_harness.adapter().create_user(own_harness.spec(own_harness.reading)),
            lambda: own_harness.adapter().drop_user(spec.username, spec.level),
        ):
            with pytest.raises(ServerDown, match="read-only"):
                verb()
    finally:
        own_harness.server.run("SET GLOBAL read_only = 0")
    own_harness.adapter().drop_user(spec.username, spec.level)


def test_a_password_never_expires_by_itself(own_harness: EngineHarness) -> None:
    """MariaDB lets an expired user in, who then sets a password of their own."""
    own_harness.server.run("SET GLOBAL default_password_lifetime = 1")
    try:
        spec = own_harness.spec(own_harness.reading)
        own_harness.adapter().create_user(spec)
        assert "PASSWORD EXPIRE NEVER" in own_harness.server.query(f"SHOW CREATE USER `{spec.username}`@`%`")[0][0]
    finally:
        own_harness.server.run("SET GLOBAL default_password_lifetime = 0")
    own_harness.adapter().drop_user(spec.username, spec.level)


def test_users_speak_tls_where_they_are_told_to(own_harness: EngineHarness) -> None:
    """MySQL makes itself a certificate; MariaDB 10.11 has none here, so the bot itself is refused."""
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


def test_a_server_that_is_frozen_is_given_up(own_harness: EngineHarness) -> None:
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
def test_an_admin_url_that_cannot_be_read(harness: EngineHarness, url: str) -> None:
    with pytest.raises(Rejected, match="env:UNUSED cannot be read") as no:
        harness.engine(harness.target(), Secrets(admin_url=url))
    assert "Pw0Secret" not in str(no.value)


def test_a_wrong_password_of_the_bot(harness: EngineHarness) -> None:
    wrong = harness.engine(harness.target(), Secrets(admin_url=harness.server.url(harness.bot, "Wrong0Password")))
    with pytest.raises(Rejected, match="refused the bot's own login") as no:
        wrong.identity()
    assert "Wrong0Password" not in str(no.value)
    assert no.value.remedy is not None


def test_the_procedure_does_one_thing_only(own_harness: EngineHarness) -> None:
    """What the DBA runs with all rights must not lend them."""
    if not own_harness.is_mariadb:
        pytest.skip("MySQL needs none")
    with own_harness.server.connect(own_harness.bot, BOT_PASSWORD) as connection, connection.cursor() as cursor:
        for user, role in (("root", own_harness.reader), (f"{own_harness.prefix}1_a_0000", "somebody_elses")):
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
        made = [servers.start(flavour, "--log-bin=bin", f"--server-id={n}") for n in (1, 2)]
    except servers.NoServer as missing:
        if os.environ.get("REQUIRE_SERVERS"):
            raise
        pytest.skip(str(missing))
    primary, replica = made
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
    for server in made:
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
    """The user reaches the replica a moment later."""
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


def test_a_replica_that_nobody_named_is_said(replicated: tuple[EngineHarness, MySQLServer]) -> None:
    harness, _ = replicated
    spec = harness.spec(harness.reading)
    harness.adapter().create_user(spec)
    assert (
        "1 replicas read from this server and are not named"
        in harness.adapter().drop_user(spec.username, spec.level).notes[0]
    )
    assert found(harness, "1 replicas read from this server and 0 are named")


def test_a_replica_that_is_away_is_tried_again(replicated: tuple[EngineHarness, MySQLServer]) -> None:
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
def test_a_replica_whose_url_is_bad_keeps_no_login_open(harness: EngineHarness, url: str) -> None:
    spec, bad = harness.spec(harness.reading), with_replica(harness, url)
    bad.create_user(spec)
    session = harness.login(spec.username, spec.password)
    with pytest.raises(Rejected, match="the admin URL behind env:REPLICA cannot be read") as no:
        bad.drop_user(spec.username, spec.level)
    assert "Pw0Secret" not in str(no.value)
    assert not session.is_alive()
    assert not harness.has_user(spec.username)
    assert [f for f in bad.check().problems if "env:REPLICA" in f.what]


def test_secrets_are_in_no_log(own_harness: EngineHarness) -> None:
    """With an odd password in the admin URL, too."""
    odd = f"p@ss/w:rd%{secrets.token_hex(4)}"
    own_harness.server.run(f"CREATE USER odd_{own_harness.bot} IDENTIFIED BY '{odd}'")
    adapter = own_harness.engine(
        own_harness.target(),
        Secrets(
            admin_url=f"mysql://odd_{own_harness.bot}:{odd.replace('%', '%25').replace('@', '%40').replace('/', '%2F').replace(':', '%3A')}@127.0.0.1:{own_harness.server.port}/"
        ),
    )
    assert adapter.identity()
    with pytest.raises(Rejected) as no:
        adapter.create_user(own_harness.spec(own_harness.reading))
    assert odd not in f"{no.value!r} {no.value.__context__!r}"
