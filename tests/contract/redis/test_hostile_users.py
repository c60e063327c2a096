"""A user who does not want to go, and a server that is held up."""

from __future__ import annotations

import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from redis.connection import AbstractConnection
from redis.exceptions import RedisError

from adapters.base import LoginRefused, Rejected, ServerDown
from adapters.contract import Denied, expect_within, wait_until
from adapters.redis import nodes
from tests.contract.redis.harness import READING, RIGHTS, WRITING, EngineHarness, Session, make_bot
from tests.servers.redis import REDIS, REDIS8, VALKEY, Flavour, RedisServer

ENDS_WITHIN = 1.0
WROTE = "redis.call('SET', KEYS[1], '1') while true do end"
SPINS = "while true do end"


def dies(session: Session) -> bool:
    """Whatever it waits for: reading goes on until the server has hung up."""
    try:
        while True:
            session.connection.read_response()
    except (RedisError, OSError):
        return True


def test_a_storm_of_writes_and_new_logins(harness: EngineHarness) -> None:
    """Eight threads that come back at once, each over and over; nothing of theirs is written after the drop was answered."""
    adapter, spec = harness.adapter(), harness.spec(WRITING)
    adapter.create_user(spec)
    is_over, held = threading.Event(), list[Session]()
    harness.server.run("SET", "storm", "0")

    def storm() -> None:
        while not is_over.is_set():
            with suppress(LoginRefused, RedisError, OSError, Denied):
                session = harness.login(spec.username, spec.password)
                held.append(session)
                for _ in range(20):
                    session.execute("INCR", "storm")

    threads = [threading.Thread(target=storm) for _ in range(8)]
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
    "words",
    [
        ("MONITOR",),
        ("PSYNC", "?", "-1"),
        ("SYNC",),
        ("EVAL", SPINS, "0"),
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
def test_what_would_outlive_or_hold_up_is_refused(harness: EngineHarness, level: Any, words: tuple[str, ...]) -> None:
    spec = harness.spec(level)
    harness.adapter().create_user(spec)
    session = harness.login(spec.username, spec.password)
    with pytest.raises(Denied):
        session.execute(*words)
    session.close()


WAITS = {
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


@pytest.mark.parametrize("words", WAITS.values(), ids=WAITS)
def test_a_session_ends_whatever_it_waits_for(harness: EngineHarness, words: tuple[str, ...]) -> None:
    """Also where somebody gave the user more by hand: rights that no level gives."""
    expect_within(ENDS_WITHIN, lambda: end_one_that_waits(harness, words))
    harness.fill()


def end_one_that_waits(harness: EngineHarness, words: tuple[str, ...]) -> float:
    adapter, spec = harness.adapter(), harness.spec(WRITING)
    adapter.create_user(spec)
    harness.server.run("ACL", "SETUSER", spec.username, "allchannels", "+@all")
    session = harness.login(spec.username, spec.password)
    session.connection.send_command(*words)
    wait_until(lambda: adapter.activity([spec.username])[0].sessions == 1)
    with ThreadPoolExecutor(1) as pool:
        end = pool.submit(dies, session)
        began = time.monotonic()
        removal = adapter.drop_user(spec.username, WRITING)
        assert end.result(timeout=120)
        took = time.monotonic() - began
    assert removal.sessions_ended == 1
    return took


def test_nothing_is_delivered_to_one_who_waited(harness: EngineHarness) -> None:
    adapter, spec = harness.adapter(), harness.spec(WRITING)
    adapter.create_user(spec)
    session = harness.login(spec.username, spec.password)
    session.connection.send_command("BLPOP", "queue", "0")
    wait_until(lambda: "cmd=blpop" in str(harness.server.run("CLIENT", "LIST")))
    adapter.drop_user(spec.username, WRITING)
    assert harness.server.run("RPUSH", "queue", "secret") == 1, "nobody took it"
    harness.server.run("DEL", "queue")


def test_a_session_that_took_off_its_name_is_nobody(harness: EngineHarness) -> None:
    adapter, spec = harness.adapter(), harness.spec(WRITING)
    adapter.create_user(spec)
    session = harness.login(spec.username, spec.password)
    session.execute("RESET")
    assert adapter.drop_user(spec.username, WRITING).sessions_ended == 0
    with pytest.raises(RedisError, match="Authentication required"):
        session.execute("HLEN", "shop:customers")
    session.close()


def test_more_sessions_than_one_answer_holds(harness: EngineHarness) -> None:
    expect_within(ENDS_WITHIN, lambda: end_two_hundred(harness))


def end_two_hundred(harness: EngineHarness) -> float:
    adapter, spec = harness.adapter(), harness.spec(READING)
    adapter.create_user(spec)
    sessions = [harness.login(spec.username, spec.password) for _ in range(200)]
    began = time.monotonic()
    assert adapter.drop_user(spec.username, READING).sessions_ended == 200
    took = time.monotonic() - began
    assert not any(session.is_alive() for session in sessions)
    return took


# A server that is held up. Its busy threshold is 0.3 s instead of 5.


@pytest.fixture(params=[REDIS, REDIS8, VALKEY], ids=lambda flavour: flavour.name)
def held_up(request: pytest.FixtureRequest, started: Callable[..., RedisServer]) -> EngineHarness:
    flavour: Flavour = request.param
    return EngineHarness((started(flavour),))


@contextmanager
def running(server: RedisServer, *words: str, times: int = 1) -> Iterator[None]:
    """A script of somebody else's, several in a row on one connection."""
    with server.connect() as client, ThreadPoolExecutor(1) as pool:
        connection = client.connection_pool.make_connection()
        connection.connect()
        for _ in range(times):
            connection.send_command(*words)
        wait_until(lambda: is_busy(server))
        answer = pool.submit(quiet, connection, times)
        try:
            yield
        finally:
            connection.disconnect()
            answer.result(timeout=120)


def quiet(connection: Any, times: int) -> None:
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
def test_a_script_that_holds_up_a_revocation_is_ended(held_up: EngineHarness, times: int) -> None:
    adapter, spec = held_up.adapter(), held_up.spec(READING)
    adapter.create_user(spec)
    session = held_up.login(spec.username, spec.password)
    with running(held_up.server, "EVAL", SPINS, "0", times=times):
        with pytest.raises(ServerDown, match="BUSY"):
            adapter.create_user(held_up.spec(READING))
        assert adapter.drop_user(spec.username, READING).sessions_ended == 1
    assert not session.is_alive()
    assert not held_up.has_user(spec.username)


def test_a_function_that_holds_up_a_revocation_is_ended(held_up: EngineHarness) -> None:
    adapter, spec = held_up.adapter(), held_up.spec(READING)
    adapter.create_user(spec)
    code = f"#!lua name=lib\nredis.register_function('spin', function() {SPINS} end)"
    held_up.server.run("FUNCTION", "LOAD", code)
    with running(held_up.server, "FCALL", "spin", "0"):
        assert not adapter.drop_user(spec.username, READING).was_absent
    assert not held_up.has_user(spec.username)


def test_a_script_that_wrote_is_waited_for_and_said(held_up: EngineHarness) -> None:
    adapter, spec = held_up.adapter(), held_up.spec(READING)
    adapter.create_user(spec)
    with running(held_up.server, "EVAL", WROTE, "1", "k"):
        with pytest.raises(ServerDown, match="a script that has written"):
            adapter.drop_user(spec.username, READING)
        with suppress(RedisError):
            held_up.server.run("SHUTDOWN", "NOSAVE")
        held_up.server.stop()
    held_up.start()
    assert not adapter.drop_user(spec.username, READING).was_absent


def test_a_bot_that_may_not_end_scripts_says_so(held_up: EngineHarness) -> None:
    adapter, spec = held_up.adapter(), held_up.spec(READING)
    adapter.create_user(spec)
    make_bot(held_up.server, held_up.bot, [r for r in RIGHTS if r not in ("script|kill", "function|kill")])
    assert [w for w in adapter.check().warnings if "script|kill" in w.what]
    with running(held_up.server, "EVAL", SPINS, "0"):
        with pytest.raises(ServerDown, match=r"\+script\|kill"):
            adapter.drop_user(spec.username, READING)
        held_up.server.run("SCRIPT", "KILL")
        wait_until(lambda: not is_busy(held_up.server))
    assert not adapter.drop_user(spec.username, READING).was_absent


def test_a_create_whose_answer_was_lost_is_taken_by_the_drop(
    held_up: EngineHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is frozen with the statement in its hands and goes on later: what it then does comes before the drop."""
    spec, process = held_up.spec(READING), held_up.server.process
    assert process is not None
    original: Any = AbstractConnection.send_command

    def send_command(self: Any, *words: Any, **how: Any) -> None:
        if words[:2] == ("ACL", "SETUSER"):
            process.send_signal(signal.SIGSTOP)
        original(self, *words, **how)

    with monkeypatch.context() as patched:
        patched.setattr(nodes, "ANSWER_SECONDS", 0.5)
        patched.setattr(AbstractConnection, "send_command", send_command)
        try:
            with pytest.raises(ServerDown) as caught:
                held_up.adapter().create_user(spec)
            with pytest.raises(ServerDown):
                held_up.adapter().drop_user(spec.username, READING)
        finally:
            process.send_signal(signal.SIGCONT)
    assert caught.value.is_ambiguous
    assert not held_up.adapter().drop_user(spec.username, READING).was_absent, "it did land"
    time.sleep(0.3)  # long enough for anything that came later
    assert not held_up.has_user(spec.username)


def test_a_server_that_is_full_is_tried_again(started: Callable[..., RedisServer]) -> None:
    """There is no limit per user: one user can take every place there is. What then helps is said in the error."""
    harness = EngineHarness((started(extra="maxclients 20"),))
    adapter, spec = harness.adapter(), harness.spec(READING)
    adapter.create_user(spec)
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


@pytest.mark.parametrize("verb", ["set_password", "set_expiry"])
def test_a_change_that_crosses_a_drop_leaves_nobody(
    harness: EngineHarness, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SETUSER would make the user anew: somebody drops it just before that is sent."""
    adapter, spec = harness.adapter(), harness.spec(READING)
    adapter.create_user(spec)
    original: Any = AbstractConnection.send_command

    def send_command(self: Any, *words: Any, **how: Any) -> None:
        if words[:2] == ("ACL", "SETUSER"):
            with monkeypatch.context() as undone:
                undone.setattr(AbstractConnection, "send_command", original)
                for node in harness.nodes:
                    node.run("ACL", "DELUSER", spec.username)
        original(self, *words, **how)

    arguments: dict[str, Any] = {"set_password": "f" * 32, "set_expiry": 60.0}
    monkeypatch.setattr(AbstractConnection, "send_command", send_command)
    with pytest.raises(Rejected, match="went away meanwhile"):
        getattr(adapter, verb)(spec.username, arguments[verb])
    monkeypatch.undo()
    assert not harness.has_user(spec.username)
    with pytest.raises(LoginRefused):
        harness.login(spec.username, "f" * 32)


def test_hostile_names_and_passwords_are_inert(harness: EngineHarness) -> None:
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
