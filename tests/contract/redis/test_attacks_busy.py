"""A user with read rights keeps the server busy or takes all of its connections. The drop must succeed nevertheless."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
from redis.exceptions import RedisError

from adapters.base import AdapterError, LoginRefused, UserSpec
from adapters.redis import Redis, nodes
from tests.contract.redis.harness import READING, EngineHarness, Session
from tests.open_faults import require
from tests.servers.redis import REDIS, VALKEY, Flavour, RedisServer
from tests.soak import soak_only

FLAVOURS = (REDIS, VALKEY)
ELEMENTS, SAMPLE = 100_000, 100
COMMAND_SECONDS = 16.0
"""Longer than the bot waits for one answer."""
SESSIONS = 3
"""The server runs one command of each connection in turn, so the bot's command waits for this many."""
TRIES = 2
CONNECTIONS = 60


@pytest.fixture(params=FLAVOURS, ids=lambda flavour: flavour.name)
def flavour(request: pytest.FixtureRequest) -> Flavour:
    found: Flavour = request.param
    return found


def heavy_command(harness: EngineHarness) -> list[str]:
    """A command that keeps this server busy for about COMMAND_SECONDS."""
    for first in range(0, ELEMENTS, 1000):
        harness.server.run("SADD", "shop:numbers", *range(first, first + 1000))
    began = time.monotonic()
    harness.server.run("SUNION", *["shop:numbers"] * SAMPLE)
    return ["SUNION", *["shop:numbers"] * int(SAMPLE * COMMAND_SECONDS / (time.monotonic() - began))]


def repeat(session: Session, command: list[str], is_over: threading.Event) -> None:
    """Run the command again and again until the session ends."""
    with suppress(RedisError, OSError):
        while not is_over.is_set():
            session.execute(*command)


@contextmanager
def busy_server(harness: EngineHarness, spec: UserSpec) -> Iterator[list[threading.Thread]]:
    """Several sessions send one heavy command after another, each in a thread that ends with its session. The server is killed at the end."""
    command, is_over = heavy_command(harness), threading.Event()
    sessions = [harness.login(spec.username, spec.password) for _ in range(SESSIONS)]
    for session in sessions:
        session.connection._sock.settimeout(None)
    threads = [threading.Thread(target=repeat, args=(session, command, is_over)) for session in sessions]
    for thread in threads:
        thread.start()
    try:
        yield threads
    finally:
        is_over.set()
        harness.server.stop(signal.SIGKILL)
        for thread in threads:
            thread.join()


def is_dropped(adapter: Redis, spec: UserSpec, *, tries: int) -> bool:
    """Whether one of ``tries`` drops succeeded."""
    for _ in range(tries):
        with suppress(AdapterError):
            adapter.drop_user(spec.username, READING)
            return True
    return False


@soak_only
@pytest.mark.timeout(900)
def test_drop_succeeds_between_long_commands(
    flavour: Flavour, started: Callable[..., RedisServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bot's time limit for one answer is far below the duration of a command on any machine."""
    monkeypatch.setattr(nodes, "ANSWER_SECONDS", 2)
    harness = EngineHarness((started(flavour),))
    adapter, spec = harness.adapter(), harness.spec(READING)
    adapter.create_user(spec)
    with busy_server(harness, spec) as threads:
        time.sleep(COMMAND_SECONDS)  # until each session has run a command or waits to run one
        require(all(thread.is_alive() for thread in threads), "all sessions are busy")
        assert is_dropped(adapter, spec, tries=TRIES)
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)


def test_drop_succeeds_where_the_user_has_taken_all_connections(
    flavour: Flavour, started: Callable[..., RedisServer]
) -> None:
    """The bot could have held a connection since it created the user."""
    harness = EngineHarness((started(flavour, extra=f"maxclients {CONNECTIONS}\n"),))
    adapter, spec = harness.adapter(), harness.spec(READING)
    adapter.create_user(spec)
    sessions = list[Session]()
    with suppress(LoginRefused):
        while True:
            sessions.append(harness.login(spec.username, spec.password))
    require(len(sessions) > CONNECTIONS / 2, "the user has nearly all connections")
    is_gone = is_dropped(adapter, spec, tries=2)
    alive = [session for session in sessions if session.is_alive()]
    for session in sessions:
        session.close()
    assert is_gone
    assert alive == []
