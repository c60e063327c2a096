"""Users who keep the bot out: full servers, long commands, long queues and long answers. The end succeeds nevertheless."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from redis.exceptions import RedisError

from adapters.base import LoginRefused, Rejected, Secrets, ServerDown, UserSpec
from adapters.contract import wait_until
from adapters.redis import Redis, nodes
from adapters.redis.links import held_links, sightings
from adapters.redis.session import to_clients
from tests.contract.redis.harness import READING, WRITING, EngineHarness, Session
from tests.servers.redis import REDIS, VALKEY, Flavour, RedisServer

CONNECTIONS = 60
MANY = 2_000


@pytest.fixture(params=[REDIS, VALKEY], ids=lambda flavour: flavour.name)
def harness(request: pytest.FixtureRequest, started: Callable[..., RedisServer]) -> EngineHarness:
    flavour: Flavour = request.param
    return EngineHarness((started(flavour, extra=f"maxclients {CONNECTIONS}\n"),))


def fill(harness: EngineHarness, spec: UserSpec) -> list[Session]:
    """Take all connections of the server."""
    sessions = list[Session]()
    with suppress(LoginRefused):
        while True:
            sessions.append(harness.login(spec.username, spec.password))
    assert len(sessions) > CONNECTIONS / 2
    return sessions


def ids(harness: EngineHarness, name: str) -> set[str]:
    return {row["id"] for row in to_clients(harness.server.run_unparsed("CLIENT", "LIST")) if row.get("user") == name}


# All connections are taken.


def test_connections_that_have_left_the_user_do_not_keep_the_bot_out(harness: EngineHarness) -> None:
    """After RESET a connection has no user, so the drop does not close it, and the server stays full."""
    adapter, spec = harness.adapter(), harness.spec(READING)
    adapter.create_user(spec)
    for session in (sessions := fill(harness, spec)):
        session.execute("RESET")
    assert not adapter.drop_user(spec.username, READING).was_absent
    with pytest.raises(RedisError, match="Authentication required"):
        sessions[0].execute("HLEN", "shop:customers")
    for session in sessions:
        session.close()
    assert not harness.has_user(spec.username)


def test_two_users_who_fill_the_server_are_both_dropped_at_once(harness: EngineHarness) -> None:
    """Only one thread at a time has the held connection. The other one waits for it."""
    adapter, specs = harness.adapter(), [harness.spec(READING) for _ in range(4)]
    for spec in specs:
        adapter.create_user(spec)
    sessions = fill(harness, specs[0])
    with ThreadPoolExecutor(4) as pool:
        removals = list(pool.map(lambda spec: adapter.drop_user(spec.username, READING), specs))
    assert [removal.was_absent for removal in removals] == [False] * 4
    assert not any(session.is_alive() for session in sessions)


def test_the_look_at_all_users_renews_the_held_connection(harness: EngineHarness) -> None:
    """The server closed the connection that was held since the user was created."""
    adapter, spec = harness.adapter(), harness.spec(READING)
    adapter.create_user(spec)
    harness.server.run("CLIENT", "KILL", "USER", harness.bot)
    assert adapter.list_users()
    sessions = fill(harness, spec)
    assert adapter.drop_user(spec.username, READING).sessions_ended == len(sessions)


def test_a_held_connection_that_the_server_closed_is_not_used(harness: EngineHarness) -> None:
    adapter, spec = harness.adapter(), harness.spec(READING)
    adapter.create_user(spec)
    harness.server.run("CLIENT", "KILL", "USER", harness.bot)
    assert not adapter.drop_user(spec.username, READING).was_absent
    adapter.create_user(harness.spec(READING))
    harness.server.restart()
    assert len(adapter.list_users()) == 1


def test_one_connection_is_held_for_each_node(harness: EngineHarness) -> None:
    adapter = harness.adapter()
    for _ in range(5):
        spec = harness.spec(READING)
        adapter.create_user(spec)
        adapter.list_users()
        adapter.drop_user(spec.username, READING)
    wait_until(lambda: len(ids(harness, harness.bot)) == 1)
    held_links.clear()
    wait_until(lambda: not ids(harness, harness.bot))
    assert not [sighting for sighting in sightings if sighting.ledger == harness.ledger]


def test_a_new_password_of_the_bot_closes_the_held_connection(harness: EngineHarness) -> None:
    """A connection that logged in with the old password is not used for a URL with the new one."""
    adapter, spec = harness.adapter(), harness.spec(READING)
    adapter.create_user(spec)
    wrong = Redis(adapter.target, Secrets(admin_url=harness.server.url(harness.bot, "another0password")))
    with pytest.raises(Rejected, match="does not let"):
        wrong.drop_user(spec.username, READING)
    sessions = fill(harness, spec)
    with pytest.raises((ServerDown, Rejected)):
        wrong.drop_user(spec.username, READING)
    assert sessions[0].is_alive(), "the held connection was not used"


# Long commands and long queues.


@contextmanager
def busy(harness: EngineHarness, spec: UserSpec, *, sessions: int, queued: int) -> Iterator[list[threading.Thread]]:
    """Sessions that send many slow commands in one packet each, without waiting for an answer."""
    for first in range(0, 20_000, 1000):
        harness.server.run("SADD", "shop:numbers", *range(first, first + 1000))
    began = time.monotonic()
    harness.server.run("SUNION", *["shop:numbers"] * 20)
    count = max(20, int(20 * 0.3 / (time.monotonic() - began)))
    command = ["SUNIONSTORE", "shop:copy", *["shop:numbers"] * count]
    held = [harness.login(spec.username, spec.password) for _ in range(sessions)]
    threads = [threading.Thread(target=send_queue, args=(one, command, queued)) for one in held]
    for thread in threads:
        thread.start()
    try:
        yield threads
    finally:
        harness.server.run("ACL", "DELUSER", spec.username)
        for thread in threads:
            thread.join(60)


def send_queue(session: Session, command: list[str], queued: int) -> None:
    """Commands that are short in bytes and long in time. The server runs all of them before it serves anybody else."""
    with suppress(RedisError, OSError):
        session.connection._sock.settimeout(None)
        session.connection.send_packed_command(session.connection.pack_commands([command] * queued))
        while True:
            session.connection.read_response(timeout=None)


def test_order_that_was_sent_is_run_after_the_bot_stopped_waiting(
    harness: EngineHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bot gives up after a moment, as it would after DROP_SECONDS. Nobody tries again, and the user ends all the same."""
    adapter, spec = harness.adapter(identity=harness.adapter().identity()), harness.spec(WRITING)
    adapter.create_user(spec)
    with busy(harness, spec, sessions=3, queued=4), monkeypatch.context() as patched:
        patched.setattr(nodes, "DROP_SECONDS", 0.2)
        patched.setattr(nodes, "HURRY_SECONDS", 0.05)
        time.sleep(0.2)  # until the server runs a command
        with pytest.raises(ServerDown, match="was sent, and the server runs it as soon as"):
            adapter.drop_user(spec.username, WRITING)
        wait_until(lambda: not harness.has_user(spec.username))
    assert not ids(harness, spec.username)
    assert adapter.drop_user(spec.username, WRITING).was_absent


def test_bot_that_has_just_started_makes_progress_with_each_try(
    harness: EngineHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds no connection. Each try waits less than one turn of the server, and the next one goes on where it stopped."""
    adapter, spec = harness.adapter(), harness.spec(WRITING)
    adapter.create_user(spec)
    held_links.clear()
    sightings.clear()
    with busy(harness, spec, sessions=4, queued=8) as threads, monkeypatch.context() as patched:
        patched.setattr(nodes, "DROP_SECONDS", 0.3)
        patched.setattr(nodes, "HURRY_SECONDS", 0.05)
        time.sleep(0.2)
        for tries in itertools.count(1):
            with suppress(ServerDown):
                adapter.drop_user(spec.username, WRITING)
                break
            assert tries < 500
            assert len(ids_of_bot_on(harness)) <= 3 or not any(thread.is_alive() for thread in threads)
    assert not harness.has_user(spec.username)


def ids_of_bot_on(harness: EngineHarness) -> list[Any]:
    """The connections that the bot keeps open."""
    return [link for _, link in held_links._links.values() if link.driver.is_connected]


def test_huge_transaction_delays_the_end_only_while_it_runs(harness: EngineHarness) -> None:
    adapter, spec = harness.adapter(), harness.spec(READING)
    adapter.create_user(spec)
    session = harness.login(spec.username, spec.password)
    session.execute("MULTI")
    session.connection._sock.settimeout(None)
    for _ in range(MANY):
        session.execute("HGETALL", "shop:customers")
    session.connection.send_command("EXEC")
    began = time.monotonic()
    assert adapter.drop_user(spec.username, READING).sessions_ended == 1
    assert time.monotonic() - began < nodes.DROP_SECONDS
    session.close()


def test_session_that_never_reads_its_answers_is_closed(harness: EngineHarness) -> None:
    """The answers fill the memory of the server for this client."""
    adapter, spec = harness.adapter(), harness.spec(READING)
    adapter.create_user(spec)
    session = harness.login(spec.username, spec.password)
    session.connection.send_packed_command(session.connection.pack_commands([("HGETALL", "shop:customers")] * MANY))
    assert adapter.drop_user(spec.username, READING).sessions_ended == 1
    assert not ids(harness, spec.username)
    session.close()


def test_limit_of_answers_does_not_prevent_the_end(harness: EngineHarness) -> None:
    """The user makes the list of clients longer than any answer may be."""
    adapter, spec = harness.adapter(), harness.spec(READING)
    adapter.create_user(spec)
    sessions = [harness.login(spec.username, spec.password) for _ in range(20)]
    for session in sessions:
        session.execute("CLIENT", "SETNAME", "x" * 10_000)
    harness.server.run("CONFIG", "SET", "client-output-buffer-limit", "normal 60000 60000 1")
    assert adapter.drop_user(spec.username, READING).sessions_ended == len(sessions)
    assert not any(session.is_alive() for session in sessions)


@pytest.mark.parametrize("count", [1, 80])
def test_connections_that_never_log_in_do_not_keep_the_bot_out(harness: EngineHarness, count: int) -> None:
    adapter, spec = harness.adapter(), harness.spec(READING)
    adapter.create_user(spec)
    session = harness.login(spec.username, spec.password)
    idle = [socket.create_connection((harness.server.host, harness.server.port)) for _ in range(count)]
    assert adapter.drop_user(spec.username, READING).sessions_ended == 1
    assert not session.is_alive()
    for one in idle:
        one.close()
