"""Users who try to outlive their drop: storms of logins, sessions that wait, and names or passwords with special characters."""

from __future__ import annotations

import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest
from redis.connection import AbstractConnection
from redis.exceptions import RedisError

from adapters.base import LoginRefused, Rejected
from adapters.contract import Denied, expect_within, wait_until
from tests.contract.redis.harness import READING, WRITING, EngineHarness, Session

ENDS_WITHIN_SECONDS = 1.0


def read_until_closed(session: Session) -> bool:
    """Read what the server sends until it closes the connection. A replica link sends data that is no answer."""
    with suppress(OSError):
        while session.connection._sock.recv(65536):
            pass
    return True


def test_nothing_is_written_after_the_drop_in_a_storm_of_logins(harness: EngineHarness) -> None:
    """Eight threads log in and write, and log in again as soon as their session ends."""
    adapter, spec = harness.adapter(), harness.spec(WRITING)
    adapter.create_user(spec)
    is_over, held = threading.Event(), list[Session]()
    harness.server.run("SET", "storm", "0")

    def log_in_and_write() -> None:
        while not is_over.is_set():
            with suppress(LoginRefused, RedisError, OSError, Denied):
                session = harness.login(spec.username, spec.password)
                held.append(session)
                for _ in range(20):
                    session.execute("INCR", "storm")

    threads = [threading.Thread(target=log_in_and_write) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: int(harness.server.run("GET", "storm")) > 200)
        removal = adapter.drop_user(spec.username, WRITING)
        done = int(harness.server.run("GET", "storm"))
        time.sleep(0.3)  # long enough for a survivor to write
        assert int(harness.server.run("GET", "storm")) == done
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    assert removal.sessions_ended > 0
    assert not any(session.is_alive() for session in held)
    assert not harness.has_user(spec.username)


@pytest.mark.parametrize(
    "arguments",
    [
        ("MONITOR",),
        ("PSYNC", "?", "-1"),
        ("SYNC",),
        ("EVAL", "while true do end", "0"),
        ("SCRIPT", "LOAD", "return 1"),
        ("FUNCTION", "LOAD", "#!lua name=x\nredis.register_function('x', function() end)"),
        ("SUBSCRIBE", "c"),
        ("CLIENT", "PAUSE", "100000"),
        ("ACL", "SETUSER", "evil", "on", "nopass", "+@all"),
        ("CONFIG", "SET", "requirepass", "x"),
        ("FLUSHALL",),
        ("SHUTDOWN",),
    ],
)
@pytest.mark.parametrize("level", [READING, WRITING], ids=lambda level: level.name)
def test_commands_that_outlive_or_delay_a_drop_are_denied(
    harness: EngineHarness, level: Any, arguments: tuple[str, ...]
) -> None:
    spec = harness.spec(level)
    harness.adapter().create_user(spec)
    session = harness.login(spec.username, spec.password)
    with pytest.raises(Denied):
        session.execute(*arguments)
    session.close()


WAITING = {
    "blpop": ("BLPOP", "nothing", "0"),
    "xread": ("XREAD", "BLOCK", "0", "STREAMS", "nothing", "$"),
    "subscribe": ("SUBSCRIBE", "c"),
    "psubscribe": ("PSUBSCRIBE", "*"),
    "ssubscribe": ("SSUBSCRIBE", "c"),
    "monitor": ("MONITOR",),
    "replica link": ("PSYNC", "?", "-1"),
    "wait": ("WAIT", "5", "0"),
    "multi": ("MULTI",),
    "silent": ("CLIENT", "REPLY", "OFF"),
    "tracking": ("CLIENT", "TRACKING", "on", "BCAST"),
    "unevictable": ("CLIENT", "NO-EVICT", "on"),
}


@pytest.mark.parametrize("arguments", WAITING.values(), ids=WAITING)
def test_drop_ends_a_session_whatever_it_waits_for(harness: EngineHarness, arguments: tuple[str, ...]) -> None:
    """The user also has rights that no level gives, as if an administrator had added them."""
    expect_within(ENDS_WITHIN_SECONDS, lambda: drop_a_waiting_session(harness, arguments))
    harness.fill()


def drop_a_waiting_session(harness: EngineHarness, arguments: tuple[str, ...]) -> float:
    """The duration of the drop in seconds."""
    adapter, spec = harness.adapter(), harness.spec(WRITING)
    adapter.create_user(spec)
    harness.server.run("ACL", "SETUSER", spec.username, "allchannels", "+@all")
    session = harness.login(spec.username, spec.password)
    session.connection.send_command(*arguments)
    wait_until(lambda: adapter.activity([spec.username])[0].sessions == 1)
    with ThreadPoolExecutor(1) as pool:
        end = pool.submit(read_until_closed, session)
        began = time.monotonic()
        removal = adapter.drop_user(spec.username, WRITING)
        assert end.result(timeout=120)
        took = time.monotonic() - began
    assert removal.sessions_ended == 1
    return took


def test_dropped_session_receives_no_element_that_it_waited_for(harness: EngineHarness) -> None:
    adapter, spec = harness.adapter(), harness.spec(WRITING)
    adapter.create_user(spec)
    session = harness.login(spec.username, spec.password)
    session.connection.send_command("BLPOP", "queue", "0")
    wait_until(lambda: "cmd=blpop" in str(harness.server.run("CLIENT", "LIST")))
    adapter.drop_user(spec.username, WRITING)
    assert harness.server.run("RPUSH", "queue", "secret") == 1, "no client took the element"
    harness.server.run("DEL", "queue")


def test_session_after_reset_has_no_user_and_no_rights(harness: EngineHarness) -> None:
    adapter, spec = harness.adapter(), harness.spec(WRITING)
    adapter.create_user(spec)
    session = harness.login(spec.username, spec.password)
    session.execute("RESET")
    assert adapter.drop_user(spec.username, WRITING).sessions_ended == 0
    with pytest.raises(RedisError, match="Authentication required"):
        session.execute("HLEN", "shop:customers")
    session.close()


def test_two_hundred_sessions_end_within_a_second(harness: EngineHarness) -> None:
    expect_within(ENDS_WITHIN_SECONDS, lambda: drop_two_hundred_sessions(harness))


def drop_two_hundred_sessions(harness: EngineHarness) -> float:
    """The duration of the drop in seconds."""
    adapter, spec = harness.adapter(), harness.spec(READING)
    adapter.create_user(spec)
    sessions = [harness.login(spec.username, spec.password) for _ in range(200)]
    began = time.monotonic()
    assert adapter.drop_user(spec.username, READING).sessions_ended == 200
    took = time.monotonic() - began
    assert not any(session.is_alive() for session in sessions)
    return took


@pytest.mark.parametrize("verb", ["set_password", "set_expiry"])
def test_change_during_a_drop_does_not_create_the_user_anew(
    harness: EngineHarness, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The user is dropped just before ``ACL SETUSER`` is sent, which would create it."""
    adapter, spec = harness.adapter(), harness.spec(READING)
    adapter.create_user(spec)
    original: Any = AbstractConnection.send_command

    def send_command(self: Any, *arguments: Any, **how: Any) -> None:
        if arguments[:2] == ("ACL", "SETUSER"):
            with monkeypatch.context() as undone:
                undone.setattr(AbstractConnection, "send_command", original)
                for node in harness.nodes:
                    node.run("ACL", "DELUSER", spec.username)
        original(self, *arguments, **how)

    arguments: dict[str, Any] = {"set_password": "f" * 32, "set_expiry": 60.0}
    monkeypatch.setattr(AbstractConnection, "send_command", send_command)
    with pytest.raises(Rejected, match="was dropped meanwhile"):
        getattr(adapter, verb)(spec.username, arguments[verb])
    monkeypatch.undo()
    assert not harness.has_user(spec.username)
    with pytest.raises(LoginRefused):
        harness.login(spec.username, "f" * 32)


def test_special_characters_in_names_are_rejected_and_in_passwords_taken_literally(harness: EngineHarness) -> None:
    adapter = harness.adapter()
    before = harness.server.run("ACL", "USERS")
    for name in ("", "a b", "default", "+@all", "x\r\nFLUSHALL\r\n", f"{harness.prefix}1_a_0000 on nopass +@all"):
        for verb in (
            lambda name=name: adapter.create_user(harness.spec(READING, username=name or " ")),
            lambda name=name: adapter.set_password(name, "x"),
            lambda name=name: adapter.set_expiry(name, 1),
            lambda name=name: adapter.drop_user(name, READING),
        ):
            with pytest.raises(Rejected):
                verb()
    assert harness.server.run("ACL", "USERS") == before
    spec = harness.spec(READING)
    odd = "x\r\nFLUSHALL\r\n \" ' > # nopass " + secrets.token_hex(4)
    adapter.create_user(spec)
    adapter.set_password(spec.username, odd)
    session = harness.login(spec.username, odd)
    assert session.read() > 0
    session.close()
    adapter.drop_user(spec.username, READING)
