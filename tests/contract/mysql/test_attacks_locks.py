"""The lock of managed roles, which any account may take: neither revocations nor grants wait for such an account."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pymysql
import pytest

from adapters.base import ServerDown, UserSpec
from adapters.mysql import MySQLFamily
from adapters.mysql.levels import MANAGED_ROLES_LOCK, managed_role
from tests.contract.mysql.harness import BOT_PASSWORD, EngineHarness, build
from tests.contract.mysql.hostile import assert_ended, connect, create_user, is_alive, run
from tests.contract.mysql.test_replicas import pair, replicated, wait_for_login, with_replica
from tests.open_faults import require
from tests.servers.mysql import MySQLServer

__all__ = ["pair", "replicated"]

SECONDS = 30.0


def take(session: pymysql.Connection[object]) -> None:
    require(run(session, f"SELECT GET_LOCK('{MANAGED_ROLES_LOCK}', 0)") == [(1,)], "the lock is taken")


def test_end_reaches_the_replicas_while_another_account_holds_the_lock(
    replicated: tuple[EngineHarness, MySQLServer],
) -> None:
    """The account has no privileges."""
    harness, replica = replicated
    both = with_replica(harness, replica.url(harness.bot, BOT_PASSWORD))
    spec = create_user(harness, harness.narrow)
    there = wait_for_login(replica, spec)
    name = f"anybody_{harness.bot}"
    harness.server.run(f"CREATE USER {name} IDENTIFIED BY 'Known0Password'")
    with closing(harness.server.connect(name, "Known0Password")) as squatter:
        take(squatter)
        began = time.monotonic()
        removal = both.drop_user(spec.username, spec.level)
        assert time.monotonic() - began < SECONDS
    assert "sessions were ended on the replica env:REPLICA, too" in removal.notes
    assert not is_alive(there)
    assert_ended(harness, spec)


@pytest.mark.parametrize("sessions", [1, 5])
def test_grant_does_not_wait_for_a_user_that_holds_the_lock(own_harness: EngineHarness, sessions: int) -> None:
    """Also with further sessions of the user that wait for the lock."""
    squatter = create_user(own_harness, own_harness.reading)
    held = [connect(own_harness, squatter) for _ in range(sessions)]
    take(held[0])
    for session in held[1:]:
        session._execute_command(3, f"SELECT GET_LOCK('{MANAGED_ROLES_LOCK}', 600)")
    began = time.monotonic()
    spec = create_user(own_harness, own_harness.narrow)
    assert time.monotonic() - began < SECONDS
    assert not is_alive(held[0])
    own_harness.adapter().drop_user(spec.username, spec.level)
    role = managed_role(own_harness.target(), own_harness.narrow)
    assert role is not None
    assert not own_harness.has_user(role)
    own_harness.adapter().drop_user(squatter.username, squatter.level)


def test_lock_of_the_bot_itself_is_not_killed(own_harness: EngineHarness) -> None:
    """Grants of one bot wait for one another. An error names the connection of a grant that hangs."""
    with closing(own_harness.server.connect(own_harness.bot, BOT_PASSWORD)) as own:
        take(own)
        spec = own_harness.spec(own_harness.narrow)
        with pytest.raises(ServerDown, match=f"by connection {own.thread_id()}"):
            own_harness.adapter().create_user(spec)
        assert is_alive(own)
        removal = own_harness.adapter().drop_user(spec.username, spec.level)
        assert removal.was_absent


def test_managed_role_that_could_not_be_dropped_is_noted(own_harness: EngineHarness) -> None:
    spec = create_user(own_harness, own_harness.narrow)
    session = connect(own_harness, spec)
    role = managed_role(own_harness.target(), own_harness.narrow)
    with closing(own_harness.server.connect(own_harness.bot, BOT_PASSWORD)) as own:
        take(own)
        removal = own_harness.adapter().drop_user(spec.username, spec.level)
    assert [note for note in removal.notes if "the managed role of its level may be left" in note]
    assert_ended(own_harness, spec, session)
    assert role is not None
    assert own_harness.has_user(role)
    later = create_user(own_harness, own_harness.narrow)
    own_harness.adapter().drop_user(later.username, later.level)
    assert not own_harness.has_user(role)


def test_two_bots_with_two_ledgers_do_not_disturb_each_other(mysql_family: MySQLServer) -> None:
    """Sixteen grants and sixteen ends at once. The managed role of each level is created, kept and dropped meanwhile."""
    bots = [build(mysql_family), build(mysql_family)]
    specs = [[bot.spec(level) for bot in bots for level in (bot.narrow, bot.reading) for _ in range(8)] for _ in "ab"]
    adapters = {bot.prefix: bot.adapter() for bot in bots}

    def adapter_of(spec: UserSpec) -> MySQLFamily:
        return next(adapter for prefix, adapter in adapters.items() if spec.username.startswith(prefix))

    def create(spec: UserSpec) -> None:
        adapter_of(spec).create_user(spec)

    def drop(spec: UserSpec) -> tuple[str, ...]:
        return adapter_of(spec).drop_user(spec.username, spec.level).notes

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(create, specs[0][::2]))
        later = [pool.submit(create, spec) for spec in specs[1][::2]]
        assert not [note for notes in pool.map(drop, specs[0][::2]) for note in notes]
        for each in later:
            each.result()
        assert not [note for notes in pool.map(drop, specs[1][::2]) for note in notes]
    for bot in bots:
        assert not bot.has_user(str(managed_role(bot.target(), bot.narrow)))
