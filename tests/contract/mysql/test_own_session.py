"""The bot's connection: settings that others own, proxies, answers that are no answers, and servers without a free connection."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace

import pymysql
import pytest

from adapters.base import AdapterError, Rejected, Secrets, ServerDown
from adapters.mysql import MySQLFamily
from tests.conftest import had
from tests.contract.mysql.harness import BOT_PASSWORD, EngineHarness, build
from tests.contract.mysql.hostile import assert_ended, connect, create_user, run
from tests.servers import mysql as servers

SETTINGS = {
    "sql_mode": ("'ANSI,NO_BACKSLASH_ESCAPES,HIGH_NOT_PRECEDENCE,PAD_CHAR_TO_FULL_LENGTH'", "'ORACLE'"),
    "time_zone": "'+05:30'",
    "autocommit": "0",
    "completion_type": "'RELEASE'",
    "sql_select_limit": "1",
    "max_join_size": "1",
    "sql_safe_updates": "1",
    "sql_quote_show_create": "0",
    "lc_messages": "'de_DE'",
    "wait_timeout": "1",
    "lock_wait_timeout": "1",
    "max_execution_time": ("1", None),
    "max_statement_time": (None, "0.001"),
    "transaction_read_only": ("1", None),
    "tx_read_only": (None, "1"),
    "transaction_isolation": ("'SERIALIZABLE'", None),
    "tx_isolation": (None, "'SERIALIZABLE'"),
    "character_set_results": "latin1",
    "character_set_client": "latin1",
    "collation_connection": "latin1_german1_ci",
    "init_connect": "'SET SESSION sql_mode = ANSI, sql_select_limit = 0, time_zone = ''-09:00'''",
}


def admin(harness: EngineHarness) -> pymysql.Connection[object]:
    """A connection that is open before the settings change, and pins what it needs itself."""
    found = harness.server.admin()
    run(found, "SET SESSION max_statement_time = 0" if harness.is_mariadb else "SET SESSION max_execution_time = 0")
    return found


@contextmanager
def settings(harness: EngineHarness, names: list[str]) -> Iterator[None]:
    """Other global settings, for a time."""
    with closing(admin(harness)) as connection:
        former = {name: run(connection, f"SELECT @@GLOBAL.{name}")[0][0] for name in names}
        try:
            for name in names:
                value = SETTINGS[name]
                run(
                    connection,
                    f"SET GLOBAL {name} = {value if isinstance(value, str) else value[harness.is_mariadb]}",
                )
            yield
        finally:
            for name, before in former.items():
                literal = before if isinstance(before, (int, float)) else connection.escape(before)
                run(connection, f"SET GLOBAL {name} = {literal}")


def existing(harness: EngineHarness) -> list[str]:
    return [n for n, v in SETTINGS.items() if isinstance(v, str) or v[harness.is_mariadb] is not None]


@pytest.mark.parametrize("names", [None, *([name] for name in SETTINGS)], ids=["all", *SETTINGS])
def test_settings_of_others_change_nothing(harness: EngineHarness, names: list[str] | None) -> None:
    """The bot's own login has CONNECTION_ADMIN, so the server skips init_connect for it; the pins hold either way."""
    chosen = [name for name in names or existing(harness) if name in existing(harness)]
    if not chosen:
        pytest.skip("this server has no such setting")
    adapter = harness.adapter()
    with settings(harness, chosen):
        assert adapter.check([harness.narrow]).problems == ()
        before = adapter.level_state(harness.narrow)
        spec = create_user(harness, harness.narrow)
        assert [u.request_id for u in adapter.list_users() if u.username == spec.username] == [spec.request_id]
        adapter.set_expiry(spec.username, 600.0)
        removal = adapter.drop_user(spec.username, spec.level, before)
    assert not removal.was_absent
    assert removal.notes == ()
    assert_ended(harness, spec)


def test_setting_that_cannot_be_pinned_stops_grants_and_no_end(
    own_harness: EngineHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = create_user(own_harness, own_harness.reading)
    session = connect(own_harness, spec)
    monkeypatch.setattr("adapters.mysql.own_session.SETTINGS", {"no_such_setting": "1"})
    with pytest.raises(Rejected, match="the bot's connection is not its own"):
        own_harness.adapter().create_user(own_harness.spec(own_harness.reading))
    assert [f for f in own_harness.adapter().check().problems if "is not its own" in f.what]
    own_harness.adapter().drop_user(spec.username, spec.level)
    assert_ended(own_harness, spec, session)


# Something between the bot and the server.


class Between:
    """A listener in front of a server. ``change`` may change the server's greeting; the rest passes unchanged."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open = list[socket.socket]()
        threading.Thread(target=self._serve, daemon=True).start()

    def change(self, greeting: bytes) -> bytes:
        """Another number of the connection, as a proxy has it: four bytes after the version."""
        number = greeting.index(b"\0", 5) + 1
        return greeting[:number] + struct.pack("<I", 4_000_000) + greeting[number + 4 :]

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                behind = socket.create_connection(("127.0.0.1", self._port))
                self._open += [client, behind]
                threading.Thread(target=self._greet, args=(behind, client), daemon=True).start()

    def _greet(self, behind: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            client.sendall(self.change(behind.recv(4096)))
            threading.Thread(target=_copy, args=(client, behind), daemon=True).start()
            _copy(behind, client)

    def close(self) -> None:
        for each in (self._listener, *self._open):
            each.close()


class Garbled(Between):
    """Cuts or overwrites the greeting."""

    def __init__(self, port: int, greeting: bytes) -> None:
        self._greeting = greeting
        super().__init__(port)

    def change(self, greeting: bytes) -> bytes:
        return self._greeting or greeting[: len(greeting) // 2]


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


def through(harness: EngineHarness, port: int) -> MySQLFamily:
    url = f"mysql://{harness.bot}:{BOT_PASSWORD}@127.0.0.1:{port}/{harness.database}"
    target = harness.target()
    return harness.engine(replace(target, tls=replace(target.tls, mode="disable")), Secrets(admin_url=url))


def test_proxy_is_refused_for_grants_and_not_for_ends(own_harness: EngineHarness) -> None:
    if not own_harness.is_mariadb:
        connect(own_harness, create_user(own_harness, own_harness.reading)).close()
        run(own_harness.server.connect(own_harness.bot, BOT_PASSWORD), "SELECT 1")  # caches the password's digest
    with closing(Between(own_harness.server.port)) as proxy:
        adapter = through(own_harness, proxy.port)
        with pytest.raises(Rejected, match="a proxy is between") as caught:
            adapter.create_user(own_harness.spec(own_harness.reading))
        assert caught.value.remedy is not None
        assert [f for f in adapter.check().problems if "a proxy is between" in f.what]
        spec = create_user(own_harness, own_harness.reading)
        session = connect(own_harness, spec)
        adapter.drop_user(spec.username, spec.level)
    assert_ended(own_harness, spec, session)


@pytest.mark.parametrize(
    "greeting", [b"", b"\xff" * 200, b"\0" * 40, b"SSH-2.0-OpenSSH_9.2\r\n", b"\x05\0\0\0\x0a8.0\0", b"\x01\0\0\0\x0a"]
)
def test_answer_that_is_no_answer_is_an_adapter_error(harness: EngineHarness, greeting: bytes) -> None:
    with closing(Garbled(harness.server.port, greeting)) as between:
        adapter = through(harness, between.port)
        timer = threading.Timer(1, between.close)
        timer.start()
        with pytest.raises(AdapterError):
            adapter.list_users()
        timer.join()


# A server without a free connection.


@pytest.fixture(scope="module", params=["mysql", "mariadb"])
def small(request: pytest.FixtureRequest) -> Iterator[EngineHarness]:
    """A server with few connections, whose half-open logins stay for a while."""
    flavour = servers.MYSQL if request.param == "mysql" else servers.MARIADB
    for server in had(lambda: servers.start(flavour, "--connect-timeout=60")):
        server.run("SET GLOBAL max_connections = 12")
        yield build(server)


def fill(harness: EngineHarness) -> list[socket.socket]:
    """Logins without a first message, until the server refuses even administrators."""
    opened = list[socket.socket]()
    for _ in range(40):
        one = socket.create_connection((harness.server.host, harness.server.port))
        opened.append(one)
        if b"\x10\x04" in one.recv(200)[4:8]:  # error 1040
            break
    return opened


def test_end_gets_in_where_the_server_has_no_free_connection(small: EngineHarness) -> None:
    """Nobody needs a password to fill a server's connections."""
    spec = create_user(small, small.reading)
    session = connect(small, spec)
    opened = fill(small)
    try:
        with pytest.raises(ServerDown):
            small.adapter().list_users()
        removal = small.adapter().drop_user(spec.username, spec.level)
        assert removal.sessions_ended >= 1
    finally:
        for one in opened:
            one.close()
    assert_ended(small, spec, session)


def test_check_warns_where_connections_could_run_out(small: EngineHarness) -> None:
    def found(text: str, **settings: str) -> list[str | None]:
        level = replace(small.reading, settings=settings)
        return [f.remedy for f in small.adapter().check([level]).warnings if text in f.what]

    assert not found("every connection", max_user_connections="5")
    (remedy,) = found("every connection", max_user_connections="0")
    assert remedy is not None
    assert ("extra_port" if small.is_mariadb else "admin_address") in remedy
    assert not found("the bot may open")
    small.server.run(f"ALTER USER `{small.bot}`@`%` WITH MAX_USER_CONNECTIONS 5")
    (statement,) = found("the bot may open")
    assert statement is not None
    small.server.run(statement.rstrip(";"))
    assert not found("the bot may open")
