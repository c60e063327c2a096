"""Helpers of the tests of MySQL and MariaDB: raw statements, half-open logins, findings, and checks that a user is gone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pymysql
from pymysql.connections import Connection

from adapters.base import AdapterError, Finding, Level, PrivilegeGrant, UserSpec
from tests.contract.mysql.harness import EngineHarness
from tests.open_faults import require


def create_user(harness: EngineHarness, level: Level, *, remaining: float = 300.0) -> UserSpec:
    spec = harness.spec(level, remaining=remaining)
    harness.adapter().create_user(spec)
    return spec


_connections: list[pymysql.Connection[Any]] = []


def closed_after_test(connection: pymysql.Connection[Any]) -> pymysql.Connection[Any]:
    """The connection, which is closed after the test, so that its locks do not hold up the next test."""
    _connections.append(connection)
    return connection


def close_all() -> None:
    while _connections:
        with suppress(Exception):
            _connections.pop().close()


def connect(harness: EngineHarness, spec: UserSpec) -> pymysql.Connection[Any]:
    return closed_after_test(harness.server.connect(spec.username, spec.password, harness.database))


def run(connection: pymysql.Connection[Any], statement: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())


def succeeds(connection: pymysql.Connection[Any], statement: str) -> bool:
    """Whether the server accepted the statement."""
    try:
        run(connection, statement)
    except pymysql.MySQLError:
        return False
    return True


def is_alive(connection: pymysql.Connection[Any]) -> bool:
    try:
        run(connection, "SELECT 1")
    except (pymysql.MySQLError, OSError):
        return False
    return True


def can_log_in(harness: EngineHarness, username: str, password: str) -> bool:
    try:
        harness.server.connect(username, password).close()
    except pymysql.MySQLError:
        return False
    return True


def assert_ended(harness: EngineHarness, spec: UserSpec, *sessions: pymysql.Connection[Any]) -> None:
    """The account is dropped, the sessions are closed, and nobody can log in."""
    assert not harness.has_user(spec.username)
    assert not any(is_alive(session) for session in sessions)
    assert not can_log_in(harness, spec.username, spec.password)


def try_drop(harness: EngineHarness, spec: UserSpec) -> None:
    """Drop the user and ignore an AdapterError: the test checks what is left."""
    with suppress(AdapterError):
        harness.adapter().drop_user(spec.username, spec.level)


class _HalfOpen(Connection):
    """A login that names an unwanted plugin, so that the server asks for another one. It answers when ``may_answer`` is set."""

    asked: threading.Event
    may_answer: threading.Event

    def _get_server_information(self) -> None:
        super()._get_server_information()  # type: ignore[misc]
        wrong = {"mysql_native_password": "sha256_password"}
        self._auth_plugin_name = wrong.get(self._auth_plugin_name, "mysql_native_password")

    def _process_auth(self, *arguments: Any) -> Any:
        self.asked.set()
        self.may_answer.wait(60)
        return super()._process_auth(*arguments)  # type: ignore[misc]


class HalfOpenLogin:
    """A login that sends its last message in ``finish``."""

    def __init__(self, harness: EngineHarness, spec: UserSpec) -> None:
        self._harness, self._spec = harness, spec
        self._asked, self._may_answer = threading.Event(), threading.Event()
        self.session: pymysql.Connection[Any] | None = None
        self._thread = threading.Thread(target=self._log_in, daemon=True)
        self._thread.start()
        require(self._asked.wait(30), "the server asks for another plugin")

    def _log_in(self) -> None:
        connection = _HalfOpen.__new__(_HalfOpen)
        connection.asked, connection.may_answer = self._asked, self._may_answer
        with suppress(pymysql.MySQLError, OSError):
            connection.__init__(  # type: ignore[misc]
                host=self._harness.server.host,
                port=self._harness.server.port,
                user=self._spec.username,
                password=self._spec.password,
                ssl_disabled=True,
                connect_timeout=60,
                autocommit=True,
            )
            self.session = connection

    def finish(self) -> pymysql.Connection[Any] | None:
        """The session, or None where the server refused the login."""
        self._may_answer.set()
        self._thread.join(60)
        return self.session


@contextmanager
def metadata_locks_shown(harness: EngineHarness) -> Iterator[None]:
    """Install the plugin with which MariaDB shows who holds a lock."""
    if harness.is_mariadb:
        harness.server.run("INSTALL SONAME 'metadata_lock_info'")
    try:
        yield
    finally:
        if harness.is_mariadb:
            harness.server.run("UNINSTALL SONAME 'metadata_lock_info'")


def findings(harness: EngineHarness, text: str, *levels: Level) -> list[Finding]:
    health = harness.adapter().check(levels or (harness.reading,))
    return [finding for finding in (*health.problems, *health.warnings) if text in finding.what]


def is_locked(harness: EngineHarness, username: str) -> bool:
    """Read from SHOW CREATE USER."""
    return "ACCOUNT LOCK" in harness.server.query(f"SHOW CREATE USER `{username}`@`%`")[0][0]


def level_with(*privileges: str, on: str = "*") -> Level:
    return Level(name="wide", grants=(PrivilegeGrant(on=(on,), privileges=privileges),))


def grant_to_bot(harness: EngineHarness, *privileges: str) -> None:
    """Grant the privileges to the bot with grant option."""
    name = harness.database.replace("_", "\\_")
    harness.server.run(f"GRANT {', '.join(privileges)} ON `{name}`.* TO `{harness.bot}`@`%` WITH GRANT OPTION")
