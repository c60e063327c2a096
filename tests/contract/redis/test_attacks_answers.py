"""Names, answers, proxies and lost marks that confuse what the bot reads, and what changed while a grant was live. The end succeeds nevertheless."""

from __future__ import annotations

import itertools
import secrets
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from redis.exceptions import RedisError

from adapters.base import Blocked, ForeignUser, Rejected, Secrets, ServerDown, WrongServer
from adapters.redis import Redis, end, nodes
from adapters.redis.links import held_links, sightings
from adapters.redis.session import Session as BotSession
from tests.contract.redis.harness import BOT_PASSWORD, READING, RIGHTS, EngineHarness, make_bot
from tests.servers.redis import REDIS, VALKEY, Flavour, RedisServer


@pytest.fixture(params=[REDIS, VALKEY], ids=lambda flavour: flavour.name)
def harness(request: pytest.FixtureRequest, started: Callable[..., RedisServer]) -> EngineHarness:
    flavour: Flavour = request.param
    return EngineHarness((started(flavour),))


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
