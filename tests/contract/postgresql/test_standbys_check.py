"""The findings of ``check`` about standbys."""

from __future__ import annotations

import subprocess
from dataclasses import replace

import pytest

from adapters.base import Rejected, Secrets
from adapters.contract import wait_until
from adapters.postgresql import PostgreSQL
from tests.contract.postgresql.harness import (
    BOT_PASSWORD,
    EngineHarness,
    build,
    make_login,
    readonly,
)
from tests.contract.postgresql.standby_pair import Pair, had_here, opened
from tests.servers import postgresql as servers


@pytest.fixture
def harness(paired: EngineHarness) -> EngineHarness:
    return paired


def check(harness: EngineHarness) -> tuple[list[str], list[str]]:
    """The problems, and the warnings about standbys."""
    health = harness.adapter().check([readonly()])
    return [f.what for f in health.problems], [f.what for f in health.warnings if "standby" in f.what]


def test_check_accepts_a_healthy_standby(harness: EngineHarness, pair: Pair) -> None:
    health = harness.adapter().check([readonly()])
    assert check(harness) == ([], [])
    assert any("env:STANDBY_1 answers" in f.what for f in health.findings)
    assert check(replace(harness, standbys=()))[1] == [
        "1 standby servers are attached and none is named: sessions on the others are not ended by dbaccess"
    ]


def test_check_names_a_standby_that_is_down(harness: EngineHarness, pair: Pair) -> None:
    gone = replace(harness, standbys=(replace(pair.standby, port=servers.free_port()),))
    (problem,), _ = check(gone)
    assert problem.startswith("the standby behind env:STANDBY_1: no connection")


def test_check_names_a_server_that_is_no_standby(harness: EngineHarness, pair: Pair) -> None:
    (problem,), _ = check(replace(harness, standbys=(pair.primary,)))
    assert problem == "the standby behind env:STANDBY_1 is no standby: it accepts writes of its own"


def test_check_warns_of_a_paused_or_delayed_standby(harness: EngineHarness, pair: Pair) -> None:
    with pair.lagging():
        assert any("env:STANDBY_1 has paused" in text for text in check(harness)[1])
    with pair.standby.admin() as c:
        c.execute("ALTER SYSTEM SET recovery_min_apply_delay = '5min'")
        c.execute("SELECT pg_reload_conf()")
        try:
            wait_until(lambda: any("is kept 5min behind" in text for text in check(harness)[1]))
        finally:
            c.execute("ALTER SYSTEM RESET recovery_min_apply_delay")
            c.execute("SELECT pg_reload_conf()")


def test_another_login_on_the_standby_needs_pg_signal_backend(pair: Pair) -> None:
    """Where the bot acts as its own login, only that login is a member of the users that it creates."""
    harness = build(pair.primary, with_owner=False)
    second = f"second_{harness.bot}"
    with pair.primary.admin() as c:
        make_login(c, second)
        c.execute(f"GRANT CONNECT ON DATABASE {harness.database} TO {second}".encode())
    pair.catch_up()
    harness = replace(harness, standbys=(pair.standby,))
    secrets = Secrets(
        admin_url=harness.secrets().admin_url, replicas=(pair.standby.url(second, BOT_PASSWORD, harness.database),)
    )
    adapter = PostgreSQL(harness.target(), secrets)
    spec, there = opened(harness, pair)
    (problem,) = adapter.check([readonly()]).problems
    assert problem.what == "the standby behind env:STANDBY_1: the bot may not end sessions there"
    with pytest.raises(Rejected, match="may not end the user's sessions") as rejected:
        adapter.drop_user(spec.username, spec.level)
    assert rejected.value.remedy == f"GRANT pg_signal_backend TO {second};"
    assert (problem.remedy or "").startswith(rejected.value.remedy)
    with pair.primary.admin() as c:
        c.execute(rejected.value.remedy.encode())
    pair.catch_up()
    assert not adapter.check([readonly()]).problems
    assert adapter.drop_user(spec.username, spec.level).sessions_ended == 1
    assert not there.is_alive()


def test_a_logical_subscriber_is_no_standby() -> None:
    """A logical subscriber has none of this server's users, so it is no replica to name."""
    with had_here(lambda: servers.start(15, extra="wal_level = logical\n")) as server:
        harness = build(server)
        reads = [str(servers.binaries(15) / "pg_recvlogical"), "-d", server.superuser_url(), "-S", "subscriber"]
        subprocess.run([*reads, "--create-slot", "-P", "test_decoding"], check=True)
        process = subprocess.Popen([*reads, "--start", "-f", "/dev/null"], stderr=subprocess.DEVNULL)
        try:
            with server.admin() as c:
                wait_until(lambda: c.execute("SELECT count(*) FROM pg_stat_replication").fetchone() == (1,))
            assert check(harness) == ([], [])
            spec = harness.spec(readonly())
            harness.adapter().create_user(spec)
            assert harness.adapter().drop_user(spec.username, spec.level).notes == ()
        finally:
            process.terminate()
            process.wait()
