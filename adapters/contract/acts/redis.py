"""Hostile acts on Redis and Valkey: sessions that wait, busy servers, full servers, and commands that no level may have.

The harness's ``names`` are ``customers`` (a hash that the levels may read) and ``bot`` (the bot's user).
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import suppress

from adapters.base import Level, LoginRefused
from adapters.contract.scene import HostileAct, Probe, Scene, reading, statements, writing
from adapters.harness import RawSession, wait_until

# A: sessions that wait, and storms.

STORM = 4
"""Threads."""


def sending(*texts: str, level: Callable[[Scene], Level] = reading, kind: str = "A", name: str) -> HostileAct:
    """Send the commands in one session and read no answer."""

    def perform(scene: Scene) -> None:
        session = scene.session()
        for text in texts:
            session.send(scene.filled(text))

    return HostileAct(kind=kind, name=name, perform=perform, level=level)


def log_in_again_and_again(scene: Scene) -> None:
    def once() -> None:
        session = scene.session()
        while True:
            session.run("PING")

    for _ in range(STORM):
        scene.in_background(once)
    wait_until(lambda: len(scene.sessions) >= STORM)


def open_many_sessions(scene: Scene) -> None:
    for _ in range(100):
        scene.session().send("XREAD", "BLOCK", "0", "STREAMS", "shop:customers:news", "$")


def pretend_to_be_the_bot(scene: Scene) -> None:
    session = scene.session()
    for text in (
        "CLIENT SETNAME {bot}",
        "CLIENT SETNAME dbaccess",
        "CLIENT SETINFO lib-name dbaccess",
        "SELECT 3",
        "HELLO 3",
    ):
        scene.succeeds(session, text)


def log_in_anew(scene: Scene) -> None:
    """Log in a second time in a session, after RESET."""
    session = scene.session()
    session.run("RESET")
    session.run("AUTH", scene.spec.username, scene.spec.password)


# B: commands that would change its own user, other users or the server.

FORBIDDEN = (
    "ACL SETUSER {user} on nopass +@all ~*",
    "ACL SETUSER {friend} on nopass +@all ~*",
    "ACL DELUSER {bot}",
    "ACL LOAD",
    "ACL SAVE",
    "ACL LIST",
    "CLIENT KILL USER {bot}",
    "CLIENT PAUSE 60000 ALL",
    "CLIENT NO-EVICT on",
    "CLIENT LIST",
    "CLIENT TRACKING on BCAST",
    "CONFIG SET maxclients 1",
    "CONFIG SET requirepass x",
    "CONFIG REWRITE",
    "DEBUG SLEEP 1",
    "SHUTDOWN NOSAVE",
    "REPLICAOF 127.0.0.1 1",
    "FAILOVER",
    "MONITOR",
    "PSYNC ? -1",
    "SUBSCRIBE c",
    "PUBLISH c x",
    "SCRIPT LOAD 'return 1'",
    "EVAL 'return 1' 0",
    "FUNCTION LOAD \"#!lua name=x\\nredis.register_function('x', function() end)\"",
    "MIGRATE 127.0.0.1 1 k 0 1",
    "RESTORE k 0 x",
    "SWAPDB 0 1",
    "FLUSHALL",
    "KEYS *",
    "MODULE LIST",
)


def run_forbidden_commands(scene: Scene) -> list[Probe]:
    """Each command that the server runs is a fault of the level."""
    scene.friend_session()
    accepted = []
    for text in FORBIDDEN:
        session = scene.session()
        if scene.succeeds(session, text):
            accepted.append(scene.filled(text))
        session.close()
    return [Probe(name=f"«{text}»", is_alive=lambda: True) for text in accepted]


# H: a busy server, and a full one.

ELEMENTS, SAMPLE = 100_000, 20
BUSY_SESSIONS, COMMAND_SECONDS, PACKET = 2, 0.2, 25
BUSY_LATE_SECONDS = 30.0
"""Each turn of a busy server takes as long as the commands of all sessions together, and longer on a busy machine."""
KEY = "shop:numbers"


def heavy_command(scene: Scene, seconds: float) -> list[str]:
    """A command that keeps this server busy for about that time and has a short answer."""
    administrator = scene.administrator()
    for first in range(0, ELEMENTS, 1000):
        administrator.run("SADD", KEY, *map(str, range(first, first + 1000)))
    scene.stack.callback(administrator.run, "DEL", KEY)
    began = time.monotonic()
    administrator.run("SINTERCARD", str(SAMPLE), *[KEY] * SAMPLE)
    count = max(2, int(SAMPLE * seconds / (time.monotonic() - began)))
    return ["SINTERCARD", str(count), *[KEY] * count]


def keep_the_server_busy(scene: Scene) -> None:
    """The server runs one command of each session in turn. The bot must need few turns."""
    command = heavy_command(scene, COMMAND_SECONDS)
    for _ in range(BUSY_SESSIONS):
        session = scene.session()

        def once(session: RawSession = session) -> None:
            session.run(*command)

        scene.in_background(once)
    time.sleep(COMMAND_SECONDS)


def send_many_commands_in_one_packet(scene: Scene) -> None:
    """The server runs all commands of a packet before it looks at another client."""
    command = heavy_command(scene, COMMAND_SECONDS / PACKET)
    for _ in range(BUSY_SESSIONS):
        session = scene.session()
        for _ in range(PACKET):
            session.send(*command)


CONNECTIONS = 60


def limit_connections(scene: Scene) -> None:
    administrator = scene.administrator()
    _, before = administrator.run("CONFIG", "GET", "maxclients")
    administrator.run("CONFIG", "SET", "maxclients", str(CONNECTIONS))
    scene.stack.callback(administrator.run, "CONFIG", "SET", "maxclients", before)


def take_all_connections(scene: Scene) -> None:
    limit_connections(scene)
    with suppress(LoginRefused):
        while True:
            scene.session()


def take_all_connections_without_a_login(scene: Scene) -> None:
    limit_connections(scene)
    scene.session()
    for _ in range(CONNECTIONS):
        line = socket.create_connection(scene.harness.address)
        scene.stack.callback(line.close)
        scene.to_reopen.append(line.close)


ACTS = [
    sending("BLPOP nothing 0", level=writing, name="waits for an element"),
    sending("XREAD BLOCK 0 STREAMS {customers}:news $", name="waits for a stream"),
    statements("A", "keeps a transaction open", "WATCH {customers}", "MULTI", "HLEN {customers}"),
    sending("CLIENT REPLY OFF", "HLEN {customers}", name="asks for no replies"),
    sending(*["HGETALL {customers}"] * 500, name="leaves answers unread"),
    sending("WAIT 5 0", level=writing, name="waits for replicas that do not exist"),
    HostileAct(kind="A", name="logs in again and again", perform=log_in_again_and_again),
    HostileAct(kind="A", name="opens many sessions", perform=open_many_sessions),
    HostileAct(kind="A", name="pretends to be the bot", perform=pretend_to_be_the_bot),
    HostileAct(kind="A", name="logs in anew in a session", perform=log_in_anew),
    HostileAct(kind="B", name="runs forbidden commands as a reader", perform=run_forbidden_commands),
    HostileAct(kind="B", name="runs forbidden commands as a writer", perform=run_forbidden_commands, level=writing),
    HostileAct(kind="H3", name="keeps the server busy", perform=keep_the_server_busy, late=BUSY_LATE_SECONDS),
    HostileAct(
        kind="H3",
        name="sends many commands in one packet",
        perform=send_many_commands_in_one_packet,
        late=BUSY_LATE_SECONDS,
    ),
    HostileAct(kind="H4", name="takes all connections", perform=take_all_connections, closes_server=True),
    HostileAct(
        kind="H4",
        name="takes all connections without a login",
        perform=take_all_connections_without_a_login,
        closes_server=True,
    ),
]
