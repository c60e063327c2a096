"""A user who reads only, and keeps the server busy or takes every connection it has: its end gets through all the same."""

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
from tests.open_faults import open_fault, require
from tests.servers.redis import REDIS, VALKEY, Flavour, RedisServer
from tests.soak import soak_only

FLAVOURS = (REDIS, VALKEY)
ELEMENTS, SAMPLE = 100_000, 100
COMMAND_SECONDS = 16.0
"""Longer than the bot waits for one answer."""
SESSIONS = 3
"""The server takes a command of each in turn, so the bot's own waits for as many."""
TRIES = 2
PLACES = 60


@pytest.fixture(params=FLAVOURS, ids=lambda flavour: flavour.name)
def flavour(request: pytest.FixtureRequest) -> Flavour:
    found: Flavour = request.param
    return found


def heavy_command(harness: EngineHarness) -> list[str]:
    """One that keeps this server busy for about COMMAND_SECONDS."""
    for first in range(0, ELEMENTS, 1000):
        harness.server.run("SADD", "shop:numbers", *range(first, first + 1000))
    began = time.monotonic()
    harness.server.run("SUNION", *["shop:numbers"] * SAMPLE)
    return ["SUNION", *["shop:numbers"] * int(SAMPLE * COMMAND_SECONDS / (time.monotonic() - began))]


def hammer(session: Session, command: list[str], is_over: threading.Event) -> None:
    """As long as the session lives."""
    with suppress(RedisError, OSError):
        while not is_over.is_set():
            session.execute(*command)


@contextmanager
def kept_busy(harness: EngineHarness, spec: UserSpec) -> Iterator[list[threading.Thread]]:
    """Sessions that send one heavy command after another, each in a thread that lives as long as it. The server is gone afterwards."""
    command, is_over = heavy_command(harness), threading.Event()
    sessions = [harness.login(spec.username, spec.password) for _ in range(SESSIONS)]
    for session in sessions:
        session.connection._sock.settimeout(None)
    threads = [threading.Thread(target=hammer, args=(session, command, is_over)) for session in sessions]
    for thread in threads:
        thread.start()
    try:
        yield threads
    finally:
        is_over.set()
        harness.server.stop(signal.SIGKILL)
        for thread in threads:
            thread.join()


def is_ended(adapter: Redis, spec: UserSpec, *, tries: int) -> bool:
    """Whether one of so many tries got through."""
    for _ in range(tries):
        with suppress(AdapterError):
            adapter.drop_user(spec.username, READING)
            return True
    return False


@soak_only
@pytest.mark.timeout(900)
@open_fault(
    "H3", "three sessions with one long command after another: every try of the end is given up before its turn"
)
def test_an_end_gets_its_turn_between_long_commands(
    flavour: Flavour, started: Callable[..., RedisServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bot waits for one answer far shorter than a command takes on any machine."""
    monkeypatch.setattr(nodes, "ANSWER_SECONDS", 2)
    harness = EngineHarness((started(flavour),))
    adapter, spec = harness.adapter(), harness.spec(READING)
    adapter.create_user(spec)
    with kept_busy(harness, spec) as threads:
        time.sleep(COMMAND_SECONDS)  # until each session has had a turn or waits for one
        require(all(thread.is_alive() for thread in threads), "all sessions are at it")
        assert is_ended(adapter, spec, tries=TRIES)
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)


@open_fault("H4", "a user who takes every connection there is keeps the bot out for as long as it likes")
def test_an_end_gets_in_where_every_connection_is_taken(flavour: Flavour, started: Callable[..., RedisServer]) -> None:
    """The bot was here before the user was: it made it."""
    harness = EngineHarness((started(flavour, extra=f"maxclients {PLACES}\n"),))
    adapter, spec = harness.adapter(), harness.spec(READING)
    adapter.create_user(spec)
    sessions = list[Session]()
    with suppress(LoginRefused):
        while True:
            sessions.append(harness.login(spec.username, spec.password))
    require(len(sessions) > PLACES / 2, "nearly every place is taken by the user")
    is_over = is_ended(adapter, spec, tries=2)
    alive = [session for session in sessions if session.is_alive()]
    for session in sessions:
        session.close()
    assert is_over
    assert alive == []
