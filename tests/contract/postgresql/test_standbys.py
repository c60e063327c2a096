"""Sessions on streaming standbys: ended there, counted, and waited for when a standby lags or does not answer."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import psycopg
import pytest
from psycopg import sql

from adapters.base import Level, LoginRefused, Rejected, Secrets, Unreachable, UserSpec
from adapters.contract import Died, everything_on, wait_until
from adapters.postgresql import PostgreSQL, standbys
from tests.conftest import had
from tests.contract.postgresql.bench import (
    BOT_PASSWORD,
    Bench,
    Login,
    build,
    dies_after,
    make_login,
    readonly,
    support,
    writer,
)
from tests.servers import postgresql as servers
from tests.servers.postgresql import PostgresServer

had_here = contextmanager(had)


@dataclass(frozen=True)
class Pair:
    primary: PostgresServer
    standby: PostgresServer

    def catch_up(self) -> None:
        with self.primary.admin() as c:
            (end,) = c.execute("SELECT pg_current_wal_flush_lsn()").fetchone() or ("0/0",)
        with self.standby.admin() as c:
            wait_until(lambda: c.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", (end,)).fetchone() == (True,))

    @contextmanager
    def lagging(self) -> Iterator[None]:
        with self.standby.admin() as c:
            c.execute("SELECT pg_wal_replay_pause()")
            wait_until(lambda: c.execute("SELECT pg_get_wal_replay_pause_state()").fetchone() == ("paused",))
        try:
            yield
        finally:
            with self.standby.admin() as c:
                c.execute("SELECT pg_wal_replay_resume()")


@pytest.fixture(scope="module", params=[15, 18], ids=["postgresql15", "postgresql18"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    with (
        had_here(lambda: servers.start(request.param)) as primary,
        had_here(lambda: servers.start_standby(primary)) as standby,
    ):
        yield Pair(primary, standby)


@pytest.fixture(params=["admin role", "own login"])
def bench(request: pytest.FixtureRequest, pair: Pair) -> Bench:
    found = build(pair.primary, with_owner=request.param == "admin role")
    pair.catch_up()
    return replace(found, standbys=(pair.standby,))


@contextmanager
def impatient() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(standbys, "SESSIONS_WITHIN", 1.0)
        yield


_logins: list[Login] = []


@pytest.fixture(autouse=True)
def _hang_up() -> Iterator[None]:
    yield
    while _logins:
        _logins.pop().close()


def login_at(server: PostgresServer, spec: UserSpec, database: str) -> Login:
    """A session that is closed when the test is over."""
    try:
        url = server.url(spec.username, spec.password, database)
        login = Login(psycopg.connect(url, autocommit=True, connect_timeout=5))
    except psycopg.OperationalError as error:
        raise LoginRefused(str(error)) from None
    _logins.append(login)
    return login


def opened(bench: Bench, pair: Pair, level: Level | None = None) -> tuple[UserSpec, Login]:
    """A user, and its session on the standby."""
    spec = bench.spec(level or readonly())
    bench.adapter().create_user(spec)
    pair.catch_up()
    session = login_at(pair.standby, spec, bench.database)
    assert session.read() == 1000
    return spec, session


def test_a_session_on_the_standby_ends(bench: Bench, pair: Pair) -> None:
    spec, there = opened(bench, pair, support())
    again = login_at(pair.standby, spec, bench.database)
    here = login_at(pair.primary, spec, bench.database)
    (activity,) = bench.adapter().activity([spec.username])
    assert (activity.sessions, activity.clients) == (3, ("127.0.0.1",))
    began = time.monotonic()
    receipt = bench.adapter().drop_user(spec.username, spec.level)
    assert time.monotonic() - began < 1.0
    assert not any(session.is_alive() for session in (there, again, here))
    assert receipt.sessions_ended == 3
    assert receipt.notes == ("On the standby behind env:STANDBY_1: 2 sessions ended, none left.",)
    assert not bench.role_exists(spec.username)
    with pytest.raises(LoginRefused):
        login_at(pair.standby, spec, bench.database)
    (quiet,) = bench.adapter().activity([spec.username])
    assert quiet.sessions == 0


def test_what_runs_on_the_standby_ends(bench: Bench, pair: Pair) -> None:
    spec, there = opened(bench, pair)
    ended: list[float] = []

    def work() -> None:
        with pytest.raises(psycopg.OperationalError):
            there.work(60)
        ended.append(time.monotonic())

    thread = threading.Thread(target=work)
    thread.start()
    began = time.monotonic()
    bench.adapter().drop_user(spec.username, spec.level)
    thread.join(10)
    assert ended
    assert ended[0] - began < 1.0


def test_a_standby_that_is_down_is_named_and_waited_for(bench: Bench, pair: Pair) -> None:
    spec, _ = opened(bench, pair)
    here = login_at(pair.primary, spec, bench.database)
    pair.standby.stop()
    try:
        for verb in (
            lambda: bench.adapter().drop_user(spec.username, spec.level),
            lambda: bench.adapter().activity([spec.username]),
        ):
            with pytest.raises(Unreachable, match="the standby behind env:STANDBY_1: no connection") as silent:
                verb()
            assert BOT_PASSWORD not in everything_on(silent.value)
            assert "postgresql://" not in everything_on(silent.value)
        assert not here.is_alive(), "what can be ended is ended"
        with pytest.raises(LoginRefused):
            login_at(pair.primary, spec, bench.database)
        assert bench.role_exists(spec.username), "by its oid the next run finds what is left on the standby"
    finally:
        pair.standby.start()
    pair.catch_up()
    with pytest.raises(LoginRefused):
        login_at(pair.standby, spec, bench.database)
    receipt = bench.adapter().drop_user(spec.username, spec.level)
    assert receipt.notes == ("On the standby behind env:STANDBY_1: 0 sessions ended, none left.",)
    assert not bench.role_exists(spec.username)


def test_a_standby_that_is_frozen_holds_up_nothing_else(pair: Pair) -> None:
    bench = replace(build(pair.primary), standbys=(pair.standby,))
    pair.catch_up()
    spec, there = opened(bench, pair)
    here = login_at(pair.primary, spec, bench.database)
    assert pair.standby.process is not None
    pair.standby.process.send_signal(signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(1) as pool:
            began = time.monotonic()
            drop = pool.submit(bench.adapter().drop_user, spec.username, spec.level)
            wait_until(lambda: not here.is_alive())
            assert time.monotonic() - began < 1.0
            with pytest.raises(Unreachable, match="env:STANDBY_1"):
                drop.result(timeout=20)
    finally:
        pair.standby.process.send_signal(signal.SIGCONT)
    bench.adapter().drop_user(spec.username, spec.level)
    assert not there.is_alive()


def test_one_that_is_down_does_not_spare_the_other(bench: Bench, pair: Pair) -> None:
    spec, there = opened(bench, pair)
    gone = replace(pair.standby, port=servers.free_port())
    both = replace(bench, standbys=(gone, pair.standby))
    with pytest.raises(Unreachable, match="env:STANDBY_1"):
        both.adapter().drop_user(spec.username, spec.level)
    assert not there.is_alive()
    receipt = bench.adapter().drop_user(spec.username, spec.level)
    assert not receipt.was_absent


def test_a_standby_that_lags(bench: Bench, pair: Pair) -> None:
    """It still lets the user in: the drop ends what is there, and does not say it is done."""
    spec, there = opened(bench, pair)
    with pair.lagging(), impatient():
        with pytest.raises(Unreachable, match=r"env:STANDBY_1: it lags behind the primary"):
            bench.adapter().drop_user(spec.username, spec.level)
        assert not there.is_alive()
        late = login_at(pair.standby, spec, bench.database)
        assert late.read() == 1000
    pair.catch_up()
    assert late.is_alive(), "that its login is blocked does not end a session"
    receipt = bench.adapter().drop_user(spec.username, spec.level)
    assert receipt.sessions_ended == 1
    assert not late.is_alive()


def test_what_the_primary_commits_late(bench: Bench, pair: Pair) -> None:
    """With ``synchronous_commit = off`` the login is blocked before that is written; what is there must still be seen."""
    spec, there = opened(bench, pair)
    with pair.primary.admin() as c:
        c.execute(sql.SQL("ALTER ROLE {} SET synchronous_commit = off").format(sql.Identifier(bench.bot)))
    with pair.lagging(), impatient():
        with pytest.raises(Unreachable, match="lags"):
            bench.adapter().drop_user(spec.username, spec.level)
        assert not there.is_alive()
    assert not bench.adapter().drop_user(spec.username, spec.level).was_absent


def test_a_user_the_standby_has_not_heard_of_yet(bench: Bench, pair: Pair) -> None:
    """Absent there is not gone: it would appear, with its password, and could log in before it is blocked there too."""
    spec = bench.spec(readonly())
    with pair.lagging(), impatient():
        bench.adapter().create_user(spec)
        with pytest.raises(Unreachable, match="lags"):
            bench.adapter().drop_user(spec.username, spec.level)
        with bench.superuser() as c:
            c.execute(sql.SQL("DROP OWNED BY {n}; DROP ROLE {n}").format(n=sql.Identifier(spec.username)))
        with pytest.raises(Unreachable, match="lags"):
            bench.adapter().drop_user(spec.username, spec.level)
    assert bench.adapter().drop_user(spec.username, spec.level).was_absent


def test_the_drop_waits_for_a_standby_that_is_a_little_late(bench: Bench, pair: Pair) -> None:
    spec, there = opened(bench, pair)
    resumed = threading.Timer(1.0, lambda: _resume(pair.standby))
    with pair.lagging():
        resumed.start()
        receipt = bench.adapter().drop_user(spec.username, spec.level)
    resumed.join()
    assert receipt.sessions_ended == 1
    assert not there.is_alive()


def _resume(standby: PostgresServer) -> None:
    with standby.admin() as c:
        c.execute("SELECT pg_wal_replay_resume()")


def test_a_storm_of_logins_on_the_standby(bench: Bench, pair: Pair) -> None:
    for _ in range(3):
        spec, first = opened(bench, pair)
        sessions, is_over = [first], threading.Event()
        threads = [threading.Thread(target=storm, args=(bench, pair, spec, sessions, is_over)) for _ in range(8)]
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda sessions=sessions: len(sessions) > 3)  # type: ignore[misc]
            receipt = bench.adapter().drop_user(spec.username, spec.level)
            assert sessions_left(pair.standby) == []
        finally:
            is_over.set()
            for thread in threads:
                thread.join()
        assert receipt.sessions_ended >= 4
        assert not any(session.is_alive() for session in sessions)
        assert sessions_left(pair.standby) == []


def storm(bench: Bench, pair: Pair, spec: UserSpec, sessions: list[Login], is_over: threading.Event) -> None:
    while not is_over.is_set():
        try:
            sessions.append(login_at(pair.standby, spec, bench.database))
        except LoginRefused:
            continue


def sessions_left(standby: PostgresServer) -> list[tuple[Any, ...]]:
    """Of users that begin as a bench's do, and of users that are no more."""
    with standby.admin() as c:
        return c.execute(
            "SELECT pid, usename FROM pg_stat_activity a WHERE usesysid IS NOT NULL AND"
            " (usename ~ '^j[0-9a-f]{6}_' OR NOT EXISTS (SELECT 1 FROM pg_roles r WHERE r.oid = a.usesysid))"
        ).fetchall()


def test_drop_killed_after_each_statement(pair: Pair) -> None:
    bench = replace(build(pair.primary), standbys=(pair.standby,))
    pair.catch_up()
    spec, _ = opened(bench, pair)
    with dies_after(None) as ran:
        bench.adapter().drop_user(spec.username, spec.level)
    for step in range(1, len(ran) + 1):
        spec, there = opened(bench, pair)
        with dies_after(step), pytest.raises(Died):
            bench.adapter().drop_user(spec.username, spec.level)
        bench.adapter().drop_user(spec.username, spec.level)
        assert not there.is_alive(), f"after step {step}"
        assert not bench.role_exists(spec.username), f"after step {step}"


def test_another_server_in_its_place(bench: Bench, pair: Pair, postgresql16: PostgresServer) -> None:
    with postgresql16.admin() as c:
        make_login(c, bench.bot)
    spec = bench.spec(readonly())
    bench.adapter().create_user(spec)
    elsewhere = Secrets(
        admin_url=bench.secrets().admin_url, replicas=(postgresql16.url(bench.bot, BOT_PASSWORD, "postgres"),)
    )
    with pytest.raises(Rejected, match="behind env:STANDBY_1 is another server") as no:
        PostgreSQL(bench.target(), elsewhere).drop_user(spec.username, spec.level)
    assert no.value.mend is not None
    assert "env:STANDBY_1" in no.value.mend
    bench.adapter().drop_user(spec.username, spec.level)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda url: url.replace(BOT_PASSWORD, "wrong"), "env:STANDBY_1: the server refused the bot's own login"),
        (lambda _: "mysql://nowhere", "env:STANDBY_1 cannot be read"),
    ],
    ids=["password", "url"],
)
def test_an_address_that_is_wrong(bench: Bench, pair: Pair, spoil: Callable[[str], str], says: str) -> None:
    """The primary's sessions and login end all the same."""
    spec, _ = opened(bench, pair)
    here = login_at(pair.primary, spec, bench.database)
    spoiled = Secrets(admin_url=bench.secrets().admin_url, replicas=(spoil(bench.secrets().replicas[0]),))
    with pytest.raises(Rejected, match=says) as no:
        PostgreSQL(bench.target(), spoiled).drop_user(spec.username, spec.level)
    assert spoiled.replicas[0] not in everything_on(no.value)
    assert not here.is_alive()
    bench.adapter().drop_user(spec.username, spec.level)


def test_one_that_became_a_server_of_its_own(pair: Pair) -> None:
    """It will never hear that the login is blocked: nobody may say that the user is gone."""
    bench = build(pair.primary)
    spec = bench.spec(writer())
    bench.adapter().create_user(spec)
    with had_here(lambda: servers.start_standby(pair.primary)) as split:
        with split.admin() as c:
            c.execute("SELECT pg_promote()")
        bench = replace(bench, standbys=(split,))
        there = login_at(split, spec, bench.database)
        there.write()
        with impatient(), pytest.raises(Rejected, match=r"env:STANDBY_1: it is no standby any more") as no:
            bench.adapter().drop_user(spec.username, spec.level)
        assert not there.is_alive()
        with split.admin() as c:
            c.execute((no.value.mend or "").split("there: ")[1].encode())
        assert not bench.adapter().drop_user(spec.username, spec.level).was_absent


def test_an_absent_user_is_looked_for_there_too(bench: Bench, pair: Pair) -> None:
    spec, there = opened(bench, pair)
    with bench.superuser() as c:
        c.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(spec.username)))
    pair.catch_up()
    receipt = bench.adapter().drop_user(spec.username, spec.level)
    assert receipt.was_absent
    (note,) = [note for note in receipt.notes if "on the standby behind env:STANDBY_1" in note]
    with pair.standby.admin() as c:
        c.execute(note.split("To end them: ")[1].encode())
    wait_until(lambda: not there.is_alive())


def test_a_standby_is_not_asked_to_make_or_end_users(bench: Bench, pair: Pair) -> None:
    spec, _ = opened(bench, pair)
    swapped = Secrets(admin_url=bench.secrets().replicas[0], replicas=(bench.secrets().admin_url,))
    with pytest.raises(Unreachable, match="standby now"):
        PostgreSQL(bench.target(), swapped).drop_user(spec.username, spec.level)
    with pytest.raises(Unreachable):
        PostgreSQL(bench.target(), swapped).create_user(bench.spec(readonly()))
    bench.adapter().drop_user(spec.username, spec.level)


def check(bench: Bench) -> tuple[list[str], list[str]]:
    """What is wrong with standbys, fatal or not."""
    health = bench.adapter().check([readonly()])
    return [f.what for f in health.problems], [f.what for f in health.warnings if "standby" in f.what]


def test_check_of_a_healthy_standby(bench: Bench, pair: Pair) -> None:
    health = bench.adapter().check([readonly()])
    assert check(bench) == ([], [])
    assert any("env:STANDBY_1 answers" in f.what for f in health.findings)
    assert check(replace(bench, standbys=()))[1] == [
        "1 standby servers are attached and none is named: sessions on the others are not ended by dbaccess"
    ]


def test_check_names_a_standby_that_is_down(bench: Bench, pair: Pair) -> None:
    gone = replace(bench, standbys=(replace(pair.standby, port=servers.free_port()),))
    (problem,), _ = check(gone)
    assert problem.startswith("the standby behind env:STANDBY_1: no connection")


def test_check_names_one_that_is_no_standby(bench: Bench, pair: Pair) -> None:
    (problem,), _ = check(replace(bench, standbys=(pair.primary,)))
    assert problem == "the standby behind env:STANDBY_1 is no standby: it accepts writes of its own"


def test_check_says_that_a_standby_waits(bench: Bench, pair: Pair) -> None:
    with pair.lagging():
        assert any("env:STANDBY_1 has paused" in words for words in check(bench)[1])
    with pair.standby.admin() as c:
        c.execute("ALTER SYSTEM SET recovery_min_apply_delay = '5min'")
        c.execute("SELECT pg_reload_conf()")
        try:
            wait_until(lambda: any("is kept 5min behind" in words for words in check(bench)[1]))
        finally:
            c.execute("ALTER SYSTEM RESET recovery_min_apply_delay")
            c.execute("SELECT pg_reload_conf()")


def test_another_login_on_the_standby_needs_a_right_of_its_own(pair: Pair) -> None:
    """Where the bot acts as its own login, only that one is a member of the users it makes."""
    bench = build(pair.primary, with_owner=False)
    second = f"second_{bench.bot}"
    with pair.primary.admin() as c:
        make_login(c, second)
        c.execute(f"GRANT CONNECT ON DATABASE {bench.database} TO {second}".encode())
    pair.catch_up()
    bench = replace(bench, standbys=(pair.standby,))
    secrets = Secrets(
        admin_url=bench.secrets().admin_url, replicas=(pair.standby.url(second, BOT_PASSWORD, bench.database),)
    )
    adapter = PostgreSQL(bench.target(), secrets)
    spec, there = opened(bench, pair)
    (problem,) = adapter.check([readonly()]).problems
    assert problem.what == "the standby behind env:STANDBY_1: the bot may not end sessions there"
    with pytest.raises(Rejected, match="may not end the user's sessions") as no:
        adapter.drop_user(spec.username, spec.level)
    assert no.value.mend == f"GRANT pg_signal_backend TO {second};"
    assert (problem.mend or "").startswith(no.value.mend)
    with pair.primary.admin() as c:
        c.execute(no.value.mend.encode())
    pair.catch_up()
    assert not adapter.check([readonly()]).problems
    assert adapter.drop_user(spec.username, spec.level).sessions_ended == 1
    assert not there.is_alive()


def test_a_logical_subscriber_is_no_standby() -> None:
    """It has users of its own and none of this server's; nothing is to be named for it."""
    with had_here(lambda: servers.start(15, extra="wal_level = logical\n")) as server:
        bench = build(server)
        reads = [str(servers.binaries(15) / "pg_recvlogical"), "-d", server.superuser_url(), "-S", "subscriber"]
        subprocess.run([*reads, "--create-slot", "-P", "test_decoding"], check=True)
        process = subprocess.Popen([*reads, "--start", "-f", "/dev/null"], stderr=subprocess.DEVNULL)
        try:
            with server.admin() as c:
                wait_until(lambda: c.execute("SELECT count(*) FROM pg_stat_replication").fetchone() == (1,))
            assert check(bench) == ([], [])
            spec = bench.spec(readonly())
            bench.adapter().create_user(spec)
            assert bench.adapter().drop_user(spec.username, spec.level).notes == ()
        finally:
            process.terminate()
            process.wait()
