"""Sessions on replicas, and replicas that are missing, away or misconfigured."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pymysql
import pytest

from adapters.base import (
    Rejected,
    Secrets,
    ServerDown,
    UserSpec,
)
from adapters.harness import wait_until
from adapters.mysql import MySQLFamily
from tests.contract.mysql.harness import BOT_PASSWORD, EngineHarness, build
from tests.contract.mysql.hostile import findings
from tests.servers import mysql as servers
from tests.servers.mysql import MySQLServer


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
