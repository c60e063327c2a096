"""Users and servers that keep the bot out, confuse what it reads, or have lost what it checks. The end succeeds nevertheless."""

from __future__ import annotations

import itertools
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from redis.exceptions import RedisError

from adapters.base import Blocked, ForeignUser, LoginRefused, Rejected, Secrets, ServerDown, UserSpec, WrongServer
from adapters.contract import wait_until
from adapters.redis import Redis, end, nodes
from adapters.redis.links import held_links, sightings
from adapters.redis.session import Session as BotSession
from adapters.redis.session import to_clients
from tests.contract.redis.harness import BOT_PASSWORD, READING, RIGHTS, WRITING, EngineHarness, Session, make_bot
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
    fill(harness, spec)
    with pytest.raises(ServerDown):
        wrong.drop_user(spec.username, READING)
    assert harness.server.process is not None


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


# What the bot reads.


def test_names_of_clients_and_users_do_not_confuse_the_list(harness: EngineHarness) -> None:
    adapter, spec = harness.adapter(), harness.spec(READING)
    adapter.create_user(spec)
    hostile = f"user={harness.bot}"
    session = harness.login(spec.username, spec.password)
    session.execute("CLIENT", "SETNAME", hostile)
    other = f"o\u2028id=1{secrets.token_hex(3)}\x85\x1c=addr"
    harness.server.run("ACL", "SETUSER", other, "on", ">secret0other", "+ping", "+hello")
    odd = harness.login(other, "secret0other")
    assert adapter.activity([spec.username])[0].sessions == 1
    assert adapter.drop_user(spec.username, READING).sessions_ended == 1
    assert not session.is_alive()
    assert odd.is_alive()
    odd.close()


@pytest.mark.parametrize("field", ["LIB-NAME", "LIB-VER"])
def test_library_name_of_a_client_does_not_confuse_the_list(harness: EngineHarness, field: str) -> None:
    adapter, spec = harness.adapter(), harness.spec(READING)
    adapter.create_user(spec)
    session = harness.login(spec.username, spec.password)
    with suppress(RedisError):  # Redis 7.0 has no such command
        session.execute("CLIENT", "SETINFO", field, "user=default")
    assert adapter.drop_user(spec.username, READING).sessions_ended == 1
    assert not session.is_alive()


UNREADABLE: dict[str, Any] = {"number": 7, "odd list": ["flags"], "text": "on", "nested": [["flags"], [1, 2, 3]]}


@pytest.mark.parametrize("answer", UNREADABLE.values(), ids=UNREADABLE)
def test_entry_of_a_user_that_cannot_be_read_does_not_delay_the_end(
    harness: EngineHarness, answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As from a server of another version, or through a proxy."""
    adapter, spec, original = harness.adapter(), harness.spec(READING), BotSession.packet
    adapter.create_user(spec)
    sightings.clear()
    session = harness.login(spec.username, spec.password)

    def packet(self: BotSession, *commands: Any) -> list[Any]:
        found = original(self, *commands)
        return [
            answer if c[:2] == ("ACL", "GETUSER") and f is not None else f for c, f in zip(commands, found, strict=True)
        ]

    monkeypatch.setattr(BotSession, "packet", packet)
    with suppress(ServerDown, Rejected):  # the missing proof is an error
        adapter.drop_user(spec.username, READING)
    assert not session.is_alive()
    assert not harness.has_user(spec.username)


def test_sessions_that_do_not_end_are_named_with_the_statement_that_ends_them(
    harness: EngineHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter, spec = harness.adapter(), harness.spec(READING)
    adapter.create_user(spec)
    rows = [{"id": str(n), "addr": f"10.0.0.1:{n}", "user": spec.username} for n in range(10**9, 10**9 + 40)]
    monkeypatch.setattr(BotSession, "clients", lambda _: rows)
    monkeypatch.setattr(end, "DROP_SECONDS", 0.2)
    with pytest.raises(Blocked) as caught:
        adapter.drop_user(spec.username, READING)
    assert "and 35 more" in caught.value.what
    assert caught.value.remedy == f"CLIENT KILL ID {10**9}"
    assert not harness.has_user(spec.username)


def test_user_of_another_ledger_is_left_although_a_connection_is_held(harness: EngineHarness) -> None:
    adapter, spec = harness.adapter(), harness.spec(READING)
    adapter.create_user(spec)
    other = harness.adapter(ledger="another0ledger")
    with pytest.raises(ForeignUser):
        other.drop_user(spec.username, READING)
    assert harness.has_user(spec.username)


# An address behind which there are several servers.


@dataclass
class Balancer:
    """Sends each connection to the next of its servers, as a proxy does."""

    ports: list[int]
    listening: socket.socket = field(default_factory=socket.socket)
    threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> int:
        self.listening.bind(("127.0.0.1", 0))
        self.listening.listen(50)
        self._start(self._accept)
        return int(self.listening.getsockname()[1])

    def __exit__(self, *_: object) -> None:
        held_links.clear()
        self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()
        for thread in self.threads:
            thread.join(60)

    def _start(self, target: Callable[..., None], *arguments: socket.socket) -> None:
        self.threads.append(threading.Thread(target=target, args=arguments))
        self.threads[-1].start()

    def _accept(self) -> None:
        with suppress(OSError):
            for port in itertools.cycle(self.ports):
                client, _ = self.listening.accept()
                self._start(self._serve, client, socket.create_connection(("127.0.0.1", port)))

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        back = threading.Thread(target=copy, args=(server, client))
        back.start()
        copy(client, server)
        back.join(60)
        client.close()
        server.close()


def copy(source: socket.socket, target: socket.socket) -> None:
    """Until one side ends the connection."""
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    for one in (source, target):
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


def test_balancer_between_the_bot_and_two_servers_is_refused(pair: EngineHarness) -> None:
    """A user would be on one of the servers only. Users are ended all the same, where the bot reaches them."""
    with Balancer([node.port for node in pair.nodes]) as port:
        target = pair.target(replicas=())
        adapter = Redis(target, Secrets(admin_url=f"redis://{pair.bot}:{BOT_PASSWORD}@127.0.0.1:{port}"))
        (problem,) = adapter.check([READING]).problems
        assert "reached two servers" in problem.what
        spec = pair.spec(READING)
        with pytest.raises(Rejected, match="reached two servers"):
            adapter.create_user(spec)
        assert not pair.has_user(spec.username)
        assert adapter.drop_user(spec.username, READING).was_absent


def test_proxy_before_one_server_is_accepted(harness: EngineHarness) -> None:
    with Balancer([harness.server.port]) as port:
        adapter = Redis(harness.target(), Secrets(admin_url=f"redis://{harness.bot}:{BOT_PASSWORD}@127.0.0.1:{port}"))
        assert adapter.check([READING]).problems == ()
        spec = harness.spec(READING)
        adapter.create_user(spec)
        assert not adapter.drop_user(spec.username, READING).was_absent


def test_held_connection_to_another_server_is_not_used(
    harness: EngineHarness, started: Callable[..., RedisServer]
) -> None:
    """The address now leads to a new server. The held connection still leads to the old one."""
    first, second = harness.server, started(harness.server.flavour)
    make_bot(second, harness.bot, RIGHTS)
    with Balancer([first.port]) as port:
        url = f"redis://{harness.bot}:{BOT_PASSWORD}@127.0.0.1:{port}"
        identity = Redis(harness.target(), Secrets(admin_url=url)).identity()
        adapter = Redis(harness.target(identity=identity), Secrets(admin_url=url))
        spec = harness.spec(READING)
        adapter.create_user(spec)
        original = nodes.Node.connection

        def connection(self: nodes.Node, *arguments: Any, **how: Any) -> Any:
            found = original(self, *arguments, **how)
            found.port = second.port
            return found

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(nodes.Node, "connection", connection)
            with pytest.raises(WrongServer):
                adapter.drop_user(spec.username, READING)
        assert not adapter.drop_user(spec.username, READING).was_absent


# What changed while the grant was live.


def test_changes_of_accounts_and_libraries_are_in_the_receipt(harness: EngineHarness) -> None:
    make_bot(harness.server, harness.bot, [*RIGHTS, "function|list", "module|list"])
    adapter, spec, other = harness.adapter(), harness.spec(READING), harness.spec(READING)
    before = adapter.level_state(READING)
    adapter.create_user(spec)
    adapter.create_user(other)
    assert not [n for n in adapter.drop_user(other.username, READING, before).notes if "Changed" in n]
    harness.server.run("ACL", "SETUSER", "friend", "on", ">secret0friend", "~*", "+@read")
    harness.server.run("FUNCTION", "LOAD", "#!lua name=lib\nredis.register_function('f', function() return 1 end)")
    notes = "\n".join(adapter.drop_user(spec.username, READING, before).notes)
    assert "accounts beside the temporary users: new friend" in notes
    assert "function libraries: new lib" in notes


def test_state_that_the_bot_may_not_read_is_no_change(harness: EngineHarness) -> None:
    adapter, spec = harness.adapter(), harness.spec(READING)
    before = adapter.level_state(READING)
    assert before.to_json()["modules"] == [f"could not be read on {adapter.nodes[0]}"]
    adapter.create_user(spec)
    assert adapter.drop_user(spec.username, READING, before).notes == ()
