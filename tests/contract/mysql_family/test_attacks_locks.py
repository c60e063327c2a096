"""Locks that any account may take, and ends and grants that do not wait for them."""

from __future__ import annotations

import time
from contextlib import closing

import pymysql
import pytest

from adapters.base import Unreachable
from adapters.mysql_family.levels import LOCK, kept_role
from tests.contract.mysql_family.bench import BOT_PASSWORD, Bench
from tests.contract.mysql_family.hostile import assert_ended, connected, is_alive, made, run
from tests.contract.mysql_family.test_edges import pair, replicated, wait_for_login, with_replica
from tests.open_faults import require
from tests.servers.mysql import MySQLServer

__all__ = ["pair", "replicated"]

SECONDS = 30.0


def take(session: pymysql.Connection[object]) -> None:
    require(run(session, f"SELECT GET_LOCK('{LOCK}', 0)") == [(1,)], "the lock is taken")


def test_an_end_reaches_the_replicas_whoever_has_the_lock(replicated: tuple[Bench, MySQLServer]) -> None:
    """By an account that nobody gave anything."""
    bench, replica = replicated
    both = with_replica(bench, replica.url(bench.bot, BOT_PASSWORD))
    spec = made(bench, bench.narrow)
    there = wait_for_login(replica, spec)
    name = f"anybody_{bench.bot}"
    bench.server.run(f"CREATE USER {name} IDENTIFIED BY 'Known0Password'")
    with closing(bench.server.connect(name, "Known0Password")) as squatter:
        take(squatter)
        began = time.monotonic()
        receipt = both.drop_user(spec.username, spec.level)
        assert time.monotonic() - began < SECONDS
    assert "sessions were ended on the replica env:REPLICA, too" in receipt.notes
    assert not is_alive(there)
    assert_ended(bench, spec)


@pytest.mark.parametrize("sessions", [1, 5])
def test_a_grant_does_not_wait_for_a_user_who_takes_the_lock(own_bench: Bench, sessions: int) -> None:
    """With further sessions that wait for it behind the first."""
    squatter = made(own_bench, own_bench.reading)
    held = [connected(own_bench, squatter) for _ in range(sessions)]
    take(held[0])
    for session in held[1:]:
        session._execute_command(3, f"SELECT GET_LOCK('{LOCK}', 600)")
    began = time.monotonic()
    spec = made(own_bench, own_bench.narrow)
    assert time.monotonic() - began < SECONDS
    assert not is_alive(held[0])
    own_bench.adapter().drop_user(spec.username, spec.level)
    role = kept_role(own_bench.target(), own_bench.narrow)
    assert role is not None
    assert not own_bench.has_user(role)
    own_bench.adapter().drop_user(squatter.username, squatter.level)


def test_the_bots_own_grants_are_not_killed_for_it(own_bench: Bench) -> None:
    """They wait for one another; one that hangs is said by its connection."""
    with closing(own_bench.server.connect(own_bench.bot, BOT_PASSWORD)) as own:
        take(own)
        spec = own_bench.spec(own_bench.narrow)
        with pytest.raises(Unreachable, match=f"by connection {own.thread_id()}"):
            own_bench.adapter().create_user(spec)
        assert is_alive(own)
        receipt = own_bench.adapter().drop_user(spec.username, spec.level)
        assert receipt.was_absent


def test_a_role_that_could_not_be_tidied_up_is_a_note(own_bench: Bench) -> None:
    spec = made(own_bench, own_bench.narrow)
    session = connected(own_bench, spec)
    role = kept_role(own_bench.target(), own_bench.narrow)
    with closing(own_bench.server.connect(own_bench.bot, BOT_PASSWORD)) as own:
        take(own)
        receipt = own_bench.adapter().drop_user(spec.username, spec.level)
    assert [note for note in receipt.notes if "the role kept for its level may be left" in note]
    assert_ended(own_bench, spec, session)
    assert role is not None
    assert own_bench.has_user(role)
    later = made(own_bench, own_bench.narrow)
    own_bench.adapter().drop_user(later.username, later.level)
    assert not own_bench.has_user(role)
