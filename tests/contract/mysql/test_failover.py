"""A replica that was promoted: users of the former primary are ended there, by the bot and by their events."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace

import pytest

from adapters.base import Adapter, Secrets, UserSpec, WrongServer
from adapters.harness import wait_until
from tests.contract.mysql.harness import BOT_PASSWORD, EngineHarness, build
from tests.contract.mysql.hostile import assert_ended, can_log_in, create_user
from tests.servers import mysql as servers
from tests.servers.mysql import MySQLServer


@pytest.fixture(params=["mysql", "mariadb"])
def promotable(request: pytest.FixtureRequest) -> Iterator[tuple[EngineHarness, MySQLServer]]:
    """A primary, and a replica that follows it by GTID."""
    is_mysql = request.param == "mysql"
    flavour = servers.MYSQL if is_mysql else servers.MARIADB
    further = ("--gtid-mode=ON", "--enforce-gtid-consistency=ON") if is_mysql else ()
    servers_started = list[MySQLServer]()
    try:
        for number in (1, 2):
            servers_started.append(servers.start(flavour, f"--server-id={number}", "--log-bin=b", *further))
    except servers.NoServer as missing:
        if os.environ.get("REQUIRE_SERVERS"):
            raise
        pytest.skip(str(missing))
    primary, replica = servers_started
    follow(primary, replica, is_mysql=is_mysql)
    yield build(primary), replica
    for server in servers_started:
        server.remove()


def follow(primary: MySQLServer, replica: MySQLServer, *, is_mysql: bool) -> None:
    keyword, reset = ("SOURCE", "RESET BINARY LOGS AND GTIDS") if is_mysql else ("MASTER", "RESET MASTER")
    where = f"{keyword}_HOST='127.0.0.1', {keyword}_PORT={primary.port}, {keyword}_USER='{servers.ROOT}', {keyword}_PASSWORD='{servers.PASSWORD}'"
    primary.run(reset)
    if is_mysql:
        start = (
            f"CHANGE REPLICATION SOURCE TO {where}, SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1",
            "START REPLICA",
        )
    else:
        start = f"CHANGE MASTER TO {where}, MASTER_USE_GTID=slave_pos", "START SLAVE"
    replica.run(reset, *start, "SET GLOBAL read_only = 1")


def promote(replica: MySQLServer, *, is_mysql: bool) -> None:
    keyword = "REPLICA" if is_mysql else "SLAVE"
    further = ("SET GLOBAL super_read_only = 0",) if is_mysql else ()
    replica.run(f"STOP {keyword}", f"RESET {keyword} ALL", *further, "SET GLOBAL read_only = 0")


def replicated_users(harness: EngineHarness, replica: MySQLServer, *remaining: float) -> list[UserSpec]:
    """Users on the primary, once the replica has them and their events."""
    harness.server.run("SET GLOBAL event_scheduler = OFF")
    specs = [create_user(harness, harness.reading, remaining=seconds) for seconds in remaining]
    event = "SELECT 1 FROM information_schema.events WHERE event_name = %s"
    there = replace(harness, server=replica)
    wait_until(lambda: all(replica.query(event, spec.username) for spec in specs))
    wait_until(lambda: all(can_log_in(there, spec.username, spec.password) for spec in specs))
    return specs


def after_failover(harness: EngineHarness, replica: MySQLServer, identity: str | None) -> Adapter:
    """The adapter of the promoted server, with the identity that the grant froze."""
    harness.server.stop()
    promote(replica, is_mysql=not harness.is_mariadb)
    secrets = Secrets(admin_url=replica.url(harness.bot, BOT_PASSWORD, harness.database))
    return harness.engine(harness.target(identity=identity), secrets)


def test_end_survives_a_failover(promotable: tuple[EngineHarness, MySQLServer]) -> None:
    """The bot ends one user; the server ends the other one once its event is enabled again."""
    harness, replica = promotable
    identity = harness.adapter().identity()
    first, second = replicated_users(harness, replica, 600.0, 1.0)
    after, promoted = after_failover(harness, replica, identity), replace(harness, server=replica)
    after.drop_user(first.username, first.level)
    assert_ended(promoted, first)
    warnings = [f for f in after.check([harness.reading]).warnings if "came by replication" in f.what]
    assert [f.remedy for f in warnings] == [f"ALTER EVENT {harness.ops_schema}.{second.username} ENABLE;"]
    assert after.drop_leftovers() == [f"the event of {second.username}, which came by replication, was enabled"]
    wait_until(lambda: not promoted.has_user(second.username), within=60)
    assert_ended(promoted, second)
    assert not [f for f in after.check([harness.reading]).warnings if "came by replication" in f.what]
    assert "the server's own event had ended it" in after.drop_user(second.username, second.level).notes[0]


def test_heir_is_known_after_its_first_grant(promotable: tuple[EngineHarness, MySQLServer]) -> None:
    """The record then lists both servers, and a grant of either is ended on the new one."""
    harness, replica = promotable
    before = harness.adapter().identity()
    (spec,) = replicated_users(harness, replica, 600.0)
    now = after_failover(harness, replica, None).identity()
    assert now != before
    for identity in (before, now):
        secrets = Secrets(admin_url=replica.url(harness.bot, BOT_PASSWORD, harness.database))
        harness.engine(harness.target(identity=identity), secrets).drop_user(spec.username, spec.level)
    assert_ended(replace(harness, server=replica), spec)


def test_replica_that_was_not_promoted_is_another_server(promotable: tuple[EngineHarness, MySQLServer]) -> None:
    """A user that was dropped there alone would live on."""
    harness, replica = promotable
    identity = harness.adapter().identity()
    (spec,) = replicated_users(harness, replica, 600.0)
    replica.run("SET GLOBAL read_only = 0")
    secrets = Secrets(admin_url=replica.url(harness.bot, BOT_PASSWORD, harness.database))
    with pytest.raises(WrongServer):
        harness.engine(harness.target(identity=identity), secrets).drop_user(spec.username, spec.level)
    assert harness.has_user(spec.username)
    harness.adapter().drop_user(spec.username, spec.level)


def test_restored_copy_is_another_server(own_harness: EngineHarness) -> None:
    """There the events, and the record of the servers among them, were created by the copy itself."""
    adapter = own_harness.adapter()
    adapter.identity()
    record = f"`{own_harness.ops_schema}`.dbaccess_identity"
    own_harness.server.run(f"ALTER EVENT {record} DO SELECT 'the-identity-of-another-server'")
    with pytest.raises(WrongServer):
        own_harness.adapter(identity="the-identity-of-another-server").list_users()
