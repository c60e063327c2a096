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
    Grant,
    Level,
    LoginRefused,
    NotOurs,
    Rejected,
    Secrets,
    Tls,
    Unreachable,
    UserSpec,
)
from adapters.bench import Denied, wait_until
from adapters.mysql_family import MySQLFamily
from adapters.mysql_family.levels import kept_role
from tests.contract.mysql_family.bench import BOT_PASSWORD, Bench, build
from tests.servers import mysql as servers
from tests.servers.mysql import MySQLServer


def found(bench: Bench, words: str, *levels: Level) -> list[Finding]:
    health = bench.adapter().check(levels or (bench.reading,))
    return [finding for finding in (*health.problems, *health.warnings) if words in finding.what]


def is_locked(bench: Bench, username: str) -> bool:
    """As the server's own SHOW CREATE USER has it."""
    return "ACCOUNT LOCK" in bench.server.asked(f"SHOW CREATE USER `{username}`@`%`")[0][0]


def wide(*privileges: str, on: str = "*") -> Level:
    return Level(name="wide", grants=(Grant(on=(on,), privileges=privileges),))


def give(bench: Bench, *privileges: str) -> None:
    """So that the bot can give them."""
    name = bench.database.replace("_", "\\_")
    bench.server.run(f"GRANT {', '.join(privileges)} ON `{name}`.* TO `{bench.bot}`@`%` WITH GRANT OPTION")


# Names.


def test_an_underscore_in_a_databases_name_is_no_wildcard(own_bench: Bench) -> None:
    give(own_bench, "SELECT")
    beside = own_bench.database.replace("my_shop", "myXshop")
    own_bench.server.run(f"CREATE DATABASE {beside}", f"CREATE TABLE {beside}.customers (id INT)")
    spec = own_bench.spec(wide("SELECT"))
    own_bench.adapter().create_user(spec)
    session = own_bench.login(spec.username, spec.password)
    assert session.read() == 100
    with pytest.raises(Denied):
        session._asked(f"SELECT COUNT(*) FROM {beside}.customers")
    session.close()
    own_bench.adapter().drop_user(spec.username, spec.level)


@pytest.mark.parametrize("name", ["x`; DROP TABLE customers; -- ", "x' OR ''='", 'x"y', "no\\such", "%"])
def test_hostile_names_in_levels_are_inert(bench: Bench, name: str) -> None:
    for level in (
        Level(name="x", roles=(name,)),
        Level(name="x", grants=(Grant(on=(name,), privileges=("SELECT",)),)),
        Level(name="x", grants=(Grant(on=("customers",), privileges=(name,)),)),
    ):
        spec = bench.spec(level)
        with pytest.raises(Rejected):
            bench.adapter().create_user(spec)
        bench.adapter().check([level])
        assert not bench.has_user(spec.username) or is_locked(bench, spec.username)
        bench.adapter().drop_user(spec.username, spec.level)
    assert bench.server.asked(f"SELECT COUNT(*) FROM {bench.database}.customers") == [(100,)]


def test_a_user_of_another_host_is_somebody_elses(bench: Bench) -> None:
    spec = bench.spec(bench.reading)
    bench.server.run(
        f"CREATE USER `{spec.username}`@`localhost` IDENTIFIED BY 'known0Password'",
        f"GRANT SELECT ON {bench.database}.* TO `{spec.username}`@`localhost`",
    )
    session = bench.login(spec.username, "known0Password")
    for verb in (
        lambda: bench.adapter().create_user(spec),
        lambda: bench.adapter().drop_user(spec.username, spec.level),
    ):
        with pytest.raises(NotOurs):
            verb()
    assert session.is_alive()
    session.close()
    bench.server.run(f"DROP USER `{spec.username}`@`localhost`")


def test_a_user_whose_name_differs_by_case_is_somebody_elses(own_bench: Bench) -> None:
    """The process list compares without case, and accounts differ by it: by the adapter and by the server's own event."""
    spec, fleeting = own_bench.spec(own_bench.reading), own_bench.spec(own_bench.reading, remaining=1)
    for one in (spec, fleeting):
        own_bench.adapter().create_user(one)
        own_bench.server.run(f"CREATE USER `{one.username.upper()}`@`%` IDENTIFIED BY 'Known0Password'")
    others = [own_bench.server.connect(one.username.upper(), "Known0Password") for one in (spec, fleeting)]
    mine = own_bench.login(spec.username, spec.password)
    assert own_bench.adapter().activity([spec.username])[0].sessions == 1
    assert own_bench.adapter().drop_user(spec.username, spec.level).sessions_ended == 1
    assert not mine.is_alive()
    wait_until(lambda: not own_bench.has_user(fleeting.username))
    for other in others:
        with other.cursor() as cursor:
            cursor.execute("SELECT 1")
        other.close()


def test_anonymous_accounts_are_found(own_bench: Bench) -> None:
    own_bench.server.run("CREATE USER ''@'anonymous.example.com'")
    warned = found(own_bench, "anonymous account for anonymous.example.com")
    assert [f.is_fatal for f in warned] == [False]
    assert warned[0].mend is not None
    own_bench.server.run(warned[0].mend.rstrip(";"))
    assert found(own_bench, "anonymous.example.com") == []


# Levels.


@pytest.mark.parametrize("right", ["CREATE USER", "SUPER", "FILE", "PROCESS"])
def test_a_mighty_role_is_never_given(own_bench: Bench, right: str) -> None:
    own_bench.server.run(f"GRANT {right} ON *.* TO {own_bench.server_role(own_bench.reader)}")
    spec = own_bench.spec(own_bench.reading)
    with pytest.raises(Rejected, match="could outlive the grant"):
        own_bench.adapter().create_user(spec)
    assert not own_bench.has_user(spec.username)
    assert found(own_bench, "could outlive the grant")


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
def test_a_role_that_writes_accounts_is_never_given(own_bench: Bench, given: str, is_mighty: bool) -> None:
    role = own_bench.server_role(own_bench.reader)
    own_bench.server.run(f"GRANT {given.replace('{shop}', own_bench.database)} TO {role}")
    spec = own_bench.spec(own_bench.reading)
    if is_mighty:
        with pytest.raises(Rejected, match="could outlive the grant"):
            own_bench.adapter().create_user(spec)
    else:
        own_bench.adapter().create_user(spec)
    own_bench.adapter().drop_user(spec.username, spec.level)


def test_a_level_gives_nothing_of_the_servers_own(own_bench: Bench) -> None:
    for on in ("mysql.user", "mysql.*", f"{own_bench.ops_schema}.*"):
        with pytest.raises(Rejected, match="cannot give anything"):
            own_bench.adapter().create_user(own_bench.spec(wide("SELECT", on=on)))


def test_a_mighty_role_behind_a_role_is_never_given(own_bench: Bench) -> None:
    role = own_bench.server_role
    own_bench.server.run(
        f"GRANT CREATE USER ON *.* TO {role(own_bench.writer)}",
        f"GRANT {role(own_bench.writer)} TO {role(own_bench.reader)}",
    )
    with pytest.raises(Rejected, match=f"through {own_bench.writer}"):
        own_bench.adapter().create_user(own_bench.spec(own_bench.reading))


@pytest.mark.parametrize(
    "word", ["EVENT", "TRIGGER", "CREATE ROUTINE", "ALL", "GRANT OPTION", "SUPER", "SELECT, UPDATE", ""]
)
def test_what_a_level_may_not_give(bench: Bench, word: str) -> None:
    with pytest.raises(Rejected, match="cannot give"):
        bench.adapter().create_user(bench.spec(wide(word)))


def test_a_kept_role_is_made_equal_and_goes_when_nobody_has_it(own_bench: Bench) -> None:
    level = own_bench.narrow
    role = kept_role(own_bench.target(), level)
    assert role is not None
    first, second = own_bench.spec(level), own_bench.spec(level)
    adapter = own_bench.adapter()
    adapter.create_user(first)
    own_bench.server.run(f"GRANT SELECT ON `{own_bench.database}`.orders TO {own_bench.server_role(role)}")
    give(own_bench, "SELECT")
    adapter.create_user(second)
    session = own_bench.login(second.username, second.password)
    with pytest.raises(Denied):
        session.read_beside()
    session.close()
    adapter.drop_user(first.username, level)
    assert own_bench.has_user(role)
    adapter.drop_user(second.username, level)
    assert not own_bench.has_user(role)


def test_several_roles_and_grants_in_one_level(own_bench: Bench) -> None:
    level = Level(name="both", roles=(own_bench.reader, own_bench.writer), grants=own_bench.narrow.grants)
    spec = own_bench.spec(level)
    own_bench.adapter().create_user(spec)
    session = own_bench.login(spec.username, spec.password)
    assert session.read_beside() == 100
    session.write()
    session.close()
    own_bench.adapter().drop_user(spec.username, level)


def test_kept_roles_in_parallel(own_bench: Bench) -> None:
    specs = [own_bench.spec(own_bench.narrow) for _ in range(16)]
    adapter = own_bench.adapter()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(adapter.create_user, specs))
        for spec in specs:
            session = own_bench.login(spec.username, spec.password)
            assert session.read() == 100
            session.close()
        list(pool.map(lambda spec: adapter.drop_user(spec.username, spec.level), specs))
    assert not any(own_bench.has_user(spec.username) for spec in specs)


def test_limits_are_the_servers(bench: Bench) -> None:
    spec = bench.spec(replace(bench.reading, settings={"max_user_connections": "2"}))
    bench.adapter().create_user(spec)
    sessions = [bench.login(spec.username, spec.password) for _ in range(2)]
    with pytest.raises(LoginRefused, match="max_user_connections"):
        bench.login(spec.username, spec.password)
    for session in sessions:
        session.close()
    bench.adapter().drop_user(spec.username, spec.level)
    with pytest.raises(Rejected, match="no setting statement_timeout"):
        bench.adapter().create_user(bench.spec(replace(bench.reading, settings={"statement_timeout": "5min"})))


# The end.


def test_an_end_in_the_past_lets_nobody_in(bench: Bench) -> None:
    """The server would throw away an event of the past without an error."""
    spec = bench.spec(bench.reading, remaining=-60)
    bench.adapter().create_user(spec)
    with pytest.raises(LoginRefused):
        bench.login(spec.username, spec.password)
    wait_until(lambda: not bench.has_user(spec.username))
    assert not bench.adapter().drop_user(spec.username, spec.level).was_absent


def test_the_event_kills_what_runs_and_says_so(bench: Bench) -> None:
    """Nothing of dbaccess acts between the create and the end."""
    spec = bench.spec(bench.narrow, remaining=1)
    bench.adapter().create_user(spec)
    session = bench.login(spec.username, spec.password)
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(session.work, 20)
        with pytest.raises(pymysql.MySQLError):
            work.result(timeout=120)
    wait_until(lambda: not bench.has_user(spec.username))
    receipt = bench.adapter().drop_user(spec.username, spec.level)
    assert "the server's own event had ended it at" in receipt.notes[0]
    assert (receipt.was_absent, receipt.sessions_ended) == (False, 0)
    assert bench.server.asked("SELECT 1 FROM information_schema.events WHERE event_name = %s", spec.username) == []


def test_a_scheduler_that_is_off_is_no_enforcement(own_bench: Bench) -> None:
    assert own_bench.adapter().check().enforced is Enforced.SESSIONS
    own_bench.server.run("SET GLOBAL event_scheduler = OFF")
    try:
        assert own_bench.adapter().check().enforced is Enforced.NOTHING
        assert [f.is_fatal for f in found(own_bench, "event scheduler is off")] == [False]
        spec = own_bench.spec(own_bench.reading)
        own_bench.adapter().create_user(spec)
        assert own_bench.adapter().drop_user(spec.username, spec.level).was_absent is False
    finally:
        own_bench.server.run("SET GLOBAL event_scheduler = ON")


def test_a_user_whose_event_could_do_nothing_is_still_ours(own_bench: Bench) -> None:
    """The bot's login was rotated: its events fire without a definer. The mark must outlive that."""
    spec = own_bench.spec(own_bench.reading, remaining=1)
    own_bench.adapter().create_user(spec)
    server, ops, bot = own_bench.server, own_bench.ops_schema, own_bench.bot
    grants = [row[0] for row in server.asked(f"SHOW GRANTS FOR `{bot}`@`%`")]
    create = server.asked(f"SHOW CREATE USER `{bot}`@`%`")[0][0]
    if not own_bench.is_mariadb:
        create = f"CREATE USER `{bot}`@`%` IDENTIFIED BY '{BOT_PASSWORD}'"
    server.run(f"DROP USER `{bot}`@`%`")
    fired = f"SELECT 1 FROM information_schema.events WHERE event_schema = '{ops}' AND last_executed IS NOT NULL"
    gone = f"SELECT 1 FROM information_schema.events WHERE event_schema = '{ops}' AND status = 'ENABLED'"
    wait_until(lambda: bool(server.asked(fired)) or not server.asked(gone))
    assert own_bench.has_user(spec.username)
    server.run(create, *(grant for grant in grants if "GRANT PROXY" not in grant and "SET DEFAULT ROLE" not in grant))
    assert not own_bench.adapter().drop_user(spec.username, spec.level).was_absent
    assert not own_bench.has_user(spec.username)


def test_the_event_comes_after_dbaccess(bench: Bench) -> None:
    """By the real engine's own grace; what list_users says is the end itself."""
    engine = bench.engine.__mro__[1]
    assert engine.grace.total_seconds() >= 30
    adapter = engine(bench.target(), Secrets(admin_url=bench.server.url(bench.bot, BOT_PASSWORD)))
    spec = bench.spec(bench.reading, remaining=600)
    adapter.create_user(spec)
    at = bench.server.asked(
        "SELECT TIMESTAMPDIFF(SECOND, UTC_TIMESTAMP(), execute_at) FROM information_schema.events WHERE event_name = %s",
        spec.username,
    )[0][0]
    assert abs(at - 600 - engine.grace.total_seconds()) < 10
    adapter.drop_user(spec.username, spec.level)


# What a user can leave.


def test_a_definer_stays_locked_and_is_reported(own_bench: Bench) -> None:
    """MySQL refuses to drop whoever defined something (4006); MariaDB drops them."""
    give(own_bench, "SELECT", "CREATE VIEW", "SHOW VIEW", "DROP")
    if not own_bench.is_mariadb:
        own_bench.server.run(f"REVOKE ALLOW_NONEXISTENT_DEFINER ON *.* FROM `{own_bench.bot}`@`%`")
        assert found(own_bench, "locked but not dropped")
    spec = own_bench.spec(wide("SELECT", "CREATE VIEW"))
    own_bench.adapter().create_user(spec)
    session = own_bench.login(spec.username, spec.password)
    session._asked("CREATE VIEW left_view AS SELECT * FROM customers")
    adapter = own_bench.adapter()
    if not own_bench.is_mariadb:
        with pytest.raises(Rejected, match=r"definer of .*left_view \(view\)") as no:
            adapter.drop_user(spec.username, spec.level)
        assert no.value.mend is not None
        assert is_locked(own_bench, spec.username)
        assert not session.is_alive()
        statement = no.value.mend.partition(";")[0]
        own_bench.server.run(statement)
    receipt = adapter.drop_user(spec.username, spec.level)
    assert f"left behind: {own_bench.database}.left_view (view)" in receipt.notes
    assert not session.is_alive()
    assert not own_bench.has_user(spec.username)


@pytest.mark.parametrize("word", ["EVENT", "TRIGGER", "CREATE ROUTINE", "ALL"])
def test_a_role_whose_makings_go_on_is_named(own_bench: Bench, word: str) -> None:
    """An event runs as its maker after lock and kill."""
    assert not found(own_bench, "goes on without its maker", own_bench.writing)
    name = own_bench.database.replace("_", "\\_")
    own_bench.server.run(f"GRANT {word} ON `{name}`.* TO {own_bench.server_role(own_bench.writer)}")
    warned = found(own_bench, "goes on without its maker", own_bench.writing)
    assert warned
    for finding in warned:
        assert finding.mend is not None
        own_bench.server.run(finding.mend.rstrip(";"))
    assert not found(own_bench, "goes on without its maker", own_bench.writing)


# The server.


def test_a_read_only_server_is_refused(own_bench: Bench) -> None:
    """A bot with CONNECTION_ADMIN could make users there that the primary does not know."""
    spec = own_bench.spec(own_bench.reading)
    own_bench.adapter().create_user(spec)
    own_bench.server.run("SET GLOBAL read_only = 1")
    try:
        assert found(own_bench, "read-only")
        for verb in (
            lambda: own_bench.adapter().create_user(own_bench.spec(own_bench.reading)),
            lambda: own_bench.adapter().drop_user(spec.username, spec.level),
        ):
            with pytest.raises(Unreachable, match="read-only"):
                verb()
    finally:
        own_bench.server.run("SET GLOBAL read_only = 0")
    own_bench.adapter().drop_user(spec.username, spec.level)


def test_a_password_never_expires_by_itself(own_bench: Bench) -> None:
    """MariaDB lets an expired user in, who then sets a password of their own."""
    own_bench.server.run("SET GLOBAL default_password_lifetime = 1")
    try:
        spec = own_bench.spec(own_bench.reading)
        own_bench.adapter().create_user(spec)
        assert "PASSWORD EXPIRE NEVER" in own_bench.server.asked(f"SHOW CREATE USER `{spec.username}`@`%`")[0][0]
    finally:
        own_bench.server.run("SET GLOBAL default_password_lifetime = 0")
    own_bench.adapter().drop_user(spec.username, spec.level)


def test_users_speak_tls_where_they_are_told_to(own_bench: Bench) -> None:
    """MySQL makes itself a certificate; MariaDB 10.11 has none here, so the bot itself is refused."""
    required = own_bench.adapter(tls=Tls(mode="require"))
    spec = own_bench.spec(own_bench.reading)
    if own_bench.is_mariadb:
        with pytest.raises(Rejected, match="tls"):
            required.create_user(spec)
        return
    required.create_user(spec)
    required.login(spec.username, spec.password, spec.level).close()
    with pytest.raises(LoginRefused):
        own_bench.adapter(tls=Tls(mode="disable")).login(spec.username, spec.password, spec.level)
    required.drop_user(spec.username, spec.level)
    authority = str(own_bench.server.folder / "data" / "ca.pem")
    assert own_bench.adapter(tls=Tls(mode="verify-ca", ca=authority)).identity()
    for mode, ca in (("verify-full", authority), ("verify-ca", None), ("verify-ca", "/no/such/file")):
        with pytest.raises(Rejected):
            own_bench.adapter(tls=Tls(mode=mode, ca=ca)).identity()


def test_a_server_that_is_frozen_is_given_up(own_bench: Bench) -> None:
    process = own_bench.server.process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    began = time.monotonic()
    try:
        with pytest.raises(Unreachable):
            own_bench.adapter().identity()
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
def test_an_admin_url_that_cannot_be_read(bench: Bench, url: str) -> None:
    with pytest.raises(Rejected, match="env:UNUSED cannot be read") as no:
        bench.engine(bench.target(), Secrets(admin_url=url))
    assert "Pw0Secret" not in str(no.value)


def test_a_wrong_password_of_the_bot(bench: Bench) -> None:
    wrong = bench.engine(bench.target(), Secrets(admin_url=bench.server.url(bench.bot, "Wrong0Password")))
    with pytest.raises(Rejected, match="refused the bot's own login") as no:
        wrong.identity()
    assert "Wrong0Password" not in str(no.value)
    assert no.value.mend is not None


def test_the_procedure_does_one_thing_only(own_bench: Bench) -> None:
    """What the DBA runs with all rights must not lend them."""
    if not own_bench.is_mariadb:
        pytest.skip("MySQL needs none")
    with own_bench.server.connect(own_bench.bot, BOT_PASSWORD) as connection, connection.cursor() as cursor:
        for user, role in (("root", own_bench.reader), (f"{own_bench.prefix}1_a_0000", "somebody_elses")):
            with pytest.raises(pymysql.MySQLError, match="may not set this default role"):
                cursor.execute(f"CALL {own_bench.ops_schema}.set_default_role(%s, %s)", (user, role))
    own_bench.server.run(f"CREATE ROLE other_{own_bench.reader}")
    spec = own_bench.spec(Level(name="x", roles=(f"other_{own_bench.reader}",)))
    own_bench.server.run(f"GRANT other_{own_bench.reader} TO `{own_bench.bot}`@`%` WITH ADMIN OPTION")
    with pytest.raises(Rejected, match="does not allow the role"):
        own_bench.adapter().create_user(spec)
    assert is_locked(own_bench, spec.username)
    own_bench.adapter().drop_user(spec.username, spec.level)


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
def replicated(pair: tuple[MySQLServer, MySQLServer]) -> tuple[Bench, MySQLServer]:
    bench, replica = build(pair[0]), pair[1]
    wait_until(lambda: bool(replica.asked("SELECT 1 FROM mysql.user WHERE user = %s", bench.writer)))
    return bench, replica


def with_replica(bench: Bench, url: str) -> MySQLFamily:
    return bench.engine(
        replace(bench.target(), replicas=("env:REPLICA",)),
        Secrets(admin_url=bench.server.url(bench.bot, BOT_PASSWORD), replicas=(url,)),
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


def test_sessions_on_a_replica_are_ended(replicated: tuple[Bench, MySQLServer]) -> None:
    bench, replica = replicated
    spec = bench.spec(bench.reading)
    alone, both = bench.adapter(), with_replica(bench, replica.url(bench.bot, BOT_PASSWORD))
    alone.create_user(spec)
    there = wait_for_login(replica, spec)
    here = bench.login(spec.username, spec.password)
    assert both.activity([spec.username])[0].sessions == 2
    receipt = both.drop_user(spec.username, spec.level)
    assert receipt.sessions_ended == 2
    assert "sessions were ended on the replica env:REPLICA, too" in receipt.notes
    assert not here.is_alive()
    with pytest.raises(pymysql.MySQLError), there.cursor() as cursor:
        cursor.execute("SELECT 1")
    assert replica.asked("SELECT 1 FROM mysql.user WHERE user = %s", spec.username) == []


def test_a_replica_that_nobody_named_is_said(replicated: tuple[Bench, MySQLServer]) -> None:
    bench, _ = replicated
    spec = bench.spec(bench.reading)
    bench.adapter().create_user(spec)
    assert (
        "1 replicas read from this server and are not named"
        in bench.adapter().drop_user(spec.username, spec.level).notes[0]
    )
    assert found(bench, "1 replicas read from this server and 0 are named")


def test_a_replica_that_is_away_is_tried_again(replicated: tuple[Bench, MySQLServer]) -> None:
    bench, replica = replicated
    spec = bench.spec(bench.reading)
    both = with_replica(bench, replica.url(bench.bot, BOT_PASSWORD))
    both.create_user(spec)
    replica.stop()
    try:
        with pytest.raises(Unreachable, match="the replica env:REPLICA"):
            both.drop_user(spec.username, spec.level)
        assert not bench.has_user(spec.username)
    finally:
        replica.start()
        replica.run("SET GLOBAL read_only = 1")
    wait_until(lambda: not replica.asked("SELECT 1 FROM mysql.user WHERE user = %s", spec.username))
    both.drop_user(spec.username, spec.level)


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://u:Pw0Secret@h:port/"])
def test_a_replica_whose_url_is_bad_keeps_no_login_open(bench: Bench, url: str) -> None:
    spec, bad = bench.spec(bench.reading), with_replica(bench, url)
    bad.create_user(spec)
    session = bench.login(spec.username, spec.password)
    with pytest.raises(Rejected, match="the admin URL behind env:REPLICA cannot be read") as no:
        bad.drop_user(spec.username, spec.level)
    assert "Pw0Secret" not in str(no.value)
    assert not session.is_alive()
    assert not bench.has_user(spec.username)
    assert [f for f in bad.check().problems if "env:REPLICA" in f.what]


def test_secrets_are_in_no_log(own_bench: Bench) -> None:
    """With an odd password in the admin URL, too."""
    odd = f"p@ss/w:rd%{secrets.token_hex(4)}"
    own_bench.server.run(f"CREATE USER odd_{own_bench.bot} IDENTIFIED BY '{odd}'")
    adapter = own_bench.engine(
        own_bench.target(),
        Secrets(
            admin_url=f"mysql://odd_{own_bench.bot}:{odd.replace('%', '%25').replace('@', '%40').replace('/', '%2F').replace(':', '%3A')}@127.0.0.1:{own_bench.server.port}/"
        ),
    )
    assert adapter.identity()
    with pytest.raises(Rejected) as no:
        adapter.create_user(own_bench.spec(own_bench.reading))
    assert odd not in f"{no.value!r} {no.value.__context__!r}"
