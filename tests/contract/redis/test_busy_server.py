"""Servers that are busy with a script, frozen or full. A drop ends the script if it can; otherwise the error says what to do.

The servers answer ``BUSY`` after 0.3 seconds instead of 5.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from redis.connection import AbstractConnection
from redis.exceptions import RedisError

from adapters.base import LoginRefused, ServerDown
from adapters.contract import wait_until
from adapters.redis import nodes
from adapters.redis.links import held_links
from tests.contract.redis.harness import READING, RIGHTS, EngineHarness, Session, make_bot
from tests.servers.redis import REDIS, REDIS8, VALKEY, Flavour, RedisServer

WRITES_AND_LOOPS = "redis.call('SET', KEYS[1], '1') while true do end"
LOOPS = "while true do end"


@pytest.fixture(params=[REDIS, REDIS8, VALKEY], ids=lambda flavour: flavour.name)
def busy(request: pytest.FixtureRequest, started: Callable[..., RedisServer]) -> EngineHarness:
    flavour: Flavour = request.param
    return EngineHarness((started(flavour),))


@contextmanager
def running(server: RedisServer, *arguments: str, times: int = 1) -> Iterator[None]:
    """Run a script of another client, ``times`` times in a row on one connection, until the end of the block."""
    with server.connect() as client, ThreadPoolExecutor(1) as pool:
        connection = client.connection_pool.make_connection()
        connection.connect()
        for _ in range(times):
            connection.send_command(*arguments)
        wait_until(lambda: is_busy(server))
        answers = pool.submit(read_answers, connection, times)
        try:
            yield
        finally:
            connection.disconnect()
            answers.result(timeout=120)


def read_answers(connection: Any, times: int) -> None:
    for _ in range(times):
        with suppress(RedisError, OSError, ValueError):
            connection.read_response()


def is_busy(server: RedisServer) -> bool:
    try:
        server.run("PING")
    except RedisError as error:
        return "BUSY" in str(error)
    return False


@pytest.mark.parametrize("times", [1, 5])
def test_drop_kills_a_running_script(busy: EngineHarness, times: int) -> None:
    adapter, spec = busy.adapter(), busy.spec(READING)
    adapter.create_user(spec)
    session = busy.login(spec.username, spec.password)
    with running(busy.server, "EVAL", LOOPS, "0", times=times):
        with pytest.raises(ServerDown, match="BUSY"):
            adapter.create_user(busy.spec(READING))
        assert adapter.drop_user(spec.username, READING).sessions_ended == 1
    assert not session.is_alive()
    assert not busy.has_user(spec.username)


def test_drop_kills_a_running_function(busy: EngineHarness) -> None:
    adapter, spec = busy.adapter(), busy.spec(READING)
    adapter.create_user(spec)
    code = f"#!lua name=lib\nredis.register_function('spin', function() {LOOPS} end)"
    busy.server.run("FUNCTION", "LOAD", code)
    with running(busy.server, "FCALL", "spin", "0"):
        assert not adapter.drop_user(spec.username, READING).was_absent
    assert not busy.has_user(spec.username)


def test_drop_names_a_script_that_cannot_be_killed_because_it_wrote(busy: EngineHarness) -> None:
    adapter, spec = busy.adapter(), busy.spec(READING)
    adapter.create_user(spec)
    with running(busy.server, "EVAL", WRITES_AND_LOOPS, "1", "k"):
        with pytest.raises(ServerDown, match="a script that has written"):
            adapter.drop_user(spec.username, READING)
        with suppress(RedisError):
            busy.server.run("SHUTDOWN", "NOSAVE")
        busy.server.stop()
    busy.start()
    assert not adapter.drop_user(spec.username, READING).was_absent


def test_drop_names_the_right_to_kill_scripts_where_the_bot_lacks_it(busy: EngineHarness) -> None:
    adapter, spec = busy.adapter(), busy.spec(READING)
    adapter.create_user(spec)
    make_bot(busy.server, busy.bot, [r for r in RIGHTS if r not in ("script|kill", "function|kill")])
    assert [w for w in adapter.check().warnings if "script|kill" in w.what]
    with running(busy.server, "EVAL", LOOPS, "0"):
        with pytest.raises(ServerDown, match=r"\+script\|kill"):
            adapter.drop_user(spec.username, READING)
        busy.server.run("SCRIPT", "KILL")
        wait_until(lambda: not is_busy(busy.server))
    assert not adapter.drop_user(spec.username, READING).was_absent


def test_user_of_a_create_whose_answer_was_lost_is_dropped(
    busy: EngineHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is frozen after it received the statement. When it continues, it runs the create before the drop."""
    spec, process = busy.spec(READING), busy.server.process
    assert process is not None
    original: Any = AbstractConnection.send_command

    def send_command(self: Any, *arguments: Any, **how: Any) -> None:
        if arguments[:2] == ("ACL", "SETUSER"):
            process.send_signal(signal.SIGSTOP)
        original(self, *arguments, **how)

    with monkeypatch.context() as patched:
        patched.setattr(nodes, "ANSWER_SECONDS", 0.5)
        patched.setattr(nodes, "DROP_SECONDS", 0.5)
        patched.setattr(AbstractConnection, "send_command", send_command)
        try:
            with pytest.raises(ServerDown) as caught:
                busy.adapter().create_user(spec)
            with pytest.raises(ServerDown):
                busy.adapter().drop_user(spec.username, READING)
        finally:
            process.send_signal(signal.SIGCONT)
    assert caught.value.is_ambiguous
    assert not busy.adapter().drop_user(spec.username, READING).was_absent, "the create did run"
    time.sleep(0.3)  # long enough for a command that runs late
    assert not busy.has_user(spec.username)


def test_drop_on_a_server_without_free_connections_is_server_down_with_a_remedy(
    started: Callable[..., RedisServer],
) -> None:
    """Redis has no limit of connections per user, so one user can take all of them. A bot that has just started holds no connection."""
    harness = EngineHarness((started(extra="maxclients 20"),))
    adapter, spec = harness.adapter(), harness.spec(READING)
    adapter.create_user(spec)
    held_links.clear()
    sessions = list[Session]()
    with suppress(LoginRefused):
        while True:
            sessions.append(harness.login(spec.username, spec.password))
    assert len(sessions) >= 15
    with pytest.raises(ServerDown, match="CONFIG SET maxclients"):
        adapter.drop_user(spec.username, READING)
    for session in sessions[:5]:
        session.close()
    assert adapter.drop_user(spec.username, READING).sessions_ended >= len(sessions) - 5
    assert not any(session.is_alive() for session in sessions[5:])
