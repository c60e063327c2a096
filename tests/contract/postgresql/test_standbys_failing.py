"""Standbys that lag, are down, or are other servers: the adapter names them, and returns no removal before they have ended the user."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from psycopg import sql

from adapters.base import LoginRefused, Rejected, Secrets, ServerDown
from adapters.contract import everything_on, wait_until
from adapters.postgresql import PostgreSQL
from tests.contract.postgresql.harness import (
    BOT_PASSWORD,
    EngineHarness,
    build,
    make_login,
    readonly,
    writer,
)
from tests.contract.postgresql.standby_pair import Pair, had_here, login_at, opened, short_session_limit
from tests.servers import postgresql as servers
from tests.servers.postgresql import PostgresServer


@pytest.fixture
def harness(paired: EngineHarness) -> EngineHarness:
    return paired


def test_a_standby_that_is_down_is_named_and_delays_the_drop(harness: EngineHarness, pair: Pair) -> None:
    spec, _ = opened(harness, pair)
    here = login_at(pair.primary, spec, harness.database)
    pair.standby.stop()
    try:
        for verb in (
            lambda: harness.adapter().drop_user(spec.username, spec.level),
            lambda: harness.adapter().activity([spec.username]),
        ):
            with pytest.raises(ServerDown, match="the standby behind env:STANDBY_1: no connection") as down:
                verb()
            assert BOT_PASSWORD not in everything_on(down.value)
            assert "postgresql://" not in everything_on(down.value)
        assert not here.is_alive(), "what can be ended is ended"
        with pytest.raises(LoginRefused):
            login_at(pair.primary, spec, harness.database)
        assert harness.role_exists(spec.username), "by its oid the next run finds what is left on the standby"
    finally:
        pair.standby.start()
    pair.catch_up()
    with pytest.raises(LoginRefused):
        login_at(pair.standby, spec, harness.database)
    removal = harness.adapter().drop_user(spec.username, spec.level)
    assert removal.notes == ("On the standby behind env:STANDBY_1: 0 sessions ended, none left.",)
    assert not harness.role_exists(spec.username)


def test_a_frozen_standby_does_not_delay_the_primary(pair: Pair) -> None:
    harness = replace(build(pair.primary), standbys=(pair.standby,))
    pair.catch_up()
    spec, there = opened(harness, pair)
    here = login_at(pair.primary, spec, harness.database)
    assert pair.standby.process is not None
    pair.standby.process.send_signal(signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(1) as pool:
            drop = pool.submit(harness.adapter().drop_user, spec.username, spec.level)
            wait_until(lambda: not here.is_alive())
            assert not drop.done(), "it goes on waiting for the standby"
            with pytest.raises(ServerDown, match="env:STANDBY_1"):
                drop.result(timeout=120)
    finally:
        pair.standby.process.send_signal(signal.SIGCONT)
    harness.adapter().drop_user(spec.username, spec.level)
    assert not there.is_alive()


def test_a_standby_that_is_down_does_not_spare_the_other(harness: EngineHarness, pair: Pair) -> None:
    spec, there = opened(harness, pair)
    gone = replace(pair.standby, port=servers.free_port())
    both = replace(harness, standbys=(gone, pair.standby))
    with pytest.raises(ServerDown, match="env:STANDBY_1"):
        both.adapter().drop_user(spec.username, spec.level)
    assert not there.is_alive()
    removal = harness.adapter().drop_user(spec.username, spec.level)
    assert not removal.was_absent


def test_a_lagging_standby_prevents_the_removal(harness: EngineHarness, pair: Pair) -> None:
    """A lagging standby still accepts the login: the drop ends the sessions there, and raises ServerDown."""
    spec, there = opened(harness, pair)
    with pair.lagging(), short_session_limit():
        with pytest.raises(ServerDown, match=r"env:STANDBY_1: it lags behind the primary"):
            harness.adapter().drop_user(spec.username, spec.level)
        assert not there.is_alive()
        late = login_at(pair.standby, spec, harness.database)
        assert late.read() == 1000
    pair.catch_up()
    assert late.is_alive(), "that its login is blocked does not end a session"
    removal = harness.adapter().drop_user(spec.username, spec.level)
    assert removal.sessions_ended == 1
    assert not late.is_alive()


def test_a_late_commit_on_the_primary_is_waited_for(harness: EngineHarness, pair: Pair) -> None:
    """With ``synchronous_commit = off`` the block of the login is written late. The sessions on the standby are ended nevertheless."""
    spec, there = opened(harness, pair)
    with pair.primary.admin() as c:
        c.execute(sql.SQL("ALTER ROLE {} SET synchronous_commit = off").format(sql.Identifier(harness.bot)))
    with pair.lagging(), short_session_limit():
        with pytest.raises(ServerDown, match="lags"):
            harness.adapter().drop_user(spec.username, spec.level)
        assert not there.is_alive()
    assert not harness.adapter().drop_user(spec.username, spec.level).was_absent


def test_a_user_that_is_not_replicated_yet_is_waited_for(harness: EngineHarness, pair: Pair) -> None:
    """A user that is absent on the standby may still be replicated, with its password, and could log in before the block is replicated."""
    spec = harness.spec(readonly())
    with pair.lagging(), short_session_limit():
        harness.adapter().create_user(spec)
        with pytest.raises(ServerDown, match="lags"):
            harness.adapter().drop_user(spec.username, spec.level)
        with harness.superuser() as c:
            c.execute(sql.SQL("DROP OWNED BY {n}; DROP ROLE {n}").format(n=sql.Identifier(spec.username)))
        with pytest.raises(ServerDown, match="lags"):
            harness.adapter().drop_user(spec.username, spec.level)
    assert harness.adapter().drop_user(spec.username, spec.level).was_absent


def test_the_drop_waits_for_a_short_lag(harness: EngineHarness, pair: Pair) -> None:
    spec, there = opened(harness, pair)
    resumed = threading.Timer(1.0, lambda: _resume(pair.standby))
    with pair.lagging():
        resumed.start()
        removal = harness.adapter().drop_user(spec.username, spec.level)
    resumed.join()
    assert removal.sessions_ended == 1
    assert not there.is_alive()


def _resume(standby: PostgresServer) -> None:
    with standby.admin() as c:
        c.execute("SELECT pg_wal_replay_resume()")


def test_another_server_as_standby_is_rejected(
    harness: EngineHarness, pair: Pair, postgresql16: PostgresServer
) -> None:
    with postgresql16.admin() as c:
        make_login(c, harness.bot)
    spec = harness.spec(readonly())
    harness.adapter().create_user(spec)
    elsewhere = Secrets(
        admin_url=harness.secrets().admin_url, replicas=(postgresql16.url(harness.bot, BOT_PASSWORD, "postgres"),)
    )
    with pytest.raises(Rejected, match="behind env:STANDBY_1 is another server") as rejected:
        PostgreSQL(harness.target(), elsewhere).drop_user(spec.username, spec.level)
    assert rejected.value.remedy is not None
    assert "env:STANDBY_1" in rejected.value.remedy
    harness.adapter().drop_user(spec.username, spec.level)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda url: url.replace(BOT_PASSWORD, "wrong"), "env:STANDBY_1: the server refused the bot's own login"),
        (lambda _: "mysql://nowhere", "env:STANDBY_1 cannot be read"),
    ],
    ids=["password", "url"],
)
def test_a_wrong_standby_address_does_not_spare_the_primary(
    harness: EngineHarness, pair: Pair, spoil: Callable[[str], str], says: str
) -> None:
    """The sessions and the login on the primary are ended nevertheless."""
    spec, _ = opened(harness, pair)
    here = login_at(pair.primary, spec, harness.database)
    spoiled = Secrets(admin_url=harness.secrets().admin_url, replicas=(spoil(harness.secrets().replicas[0]),))
    with pytest.raises(Rejected, match=says) as rejected:
        PostgreSQL(harness.target(), spoiled).drop_user(spec.username, spec.level)
    assert spoiled.replicas[0] not in everything_on(rejected.value)
    assert not here.is_alive()
    harness.adapter().drop_user(spec.username, spec.level)


def test_a_promoted_standby_is_rejected_with_a_remedy(pair: Pair) -> None:
    """A promoted standby never replicates the block of the login, so the adapter returns no removal."""
    harness = build(pair.primary)
    spec = harness.spec(writer())
    harness.adapter().create_user(spec)
    with had_here(lambda: servers.start_standby(pair.primary)) as split:
        with split.admin() as c:
            c.execute("SELECT pg_promote()")
        harness = replace(harness, standbys=(split,))
        there = login_at(split, spec, harness.database)
        there.write()
        with (
            short_session_limit(),
            pytest.raises(Rejected, match=r"env:STANDBY_1: it is no standby any more") as rejected,
        ):
            harness.adapter().drop_user(spec.username, spec.level)
        assert not there.is_alive()
        with split.admin() as c:
            c.execute((rejected.value.remedy or "").split("there: ")[1].encode())
        assert not harness.adapter().drop_user(spec.username, spec.level).was_absent
