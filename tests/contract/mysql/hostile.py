"""What tests of hostile users share: raw statements, logins that stop half way, and the answers of a dead session."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pymysql
from pymysql.connections import Connection

from adapters.base import AdapterError, Level, UserSpec
from tests.contract.mysql.harness import EngineHarness
from tests.open_faults import require


def create_user(harness: EngineHarness, level: Level, *, remaining: float = 300.0) -> UserSpec:
    spec = harness.spec(level, remaining=remaining)
    harness.adapter().create_user(spec)
    return spec


_opened: list[pymysql.Connection[Any]] = []


def closed_after_test(connection: pymysql.Connection[Any]) -> pymysql.Connection[Any]:
    """Closed when the test is over, however it ends: what it holds must not keep the next test."""
    _opened.append(connection)
    return connection


def close_all() -> None:
    while _opened:
        with suppress(Exception):
            _opened.pop().close()


def connect(harness: EngineHarness, spec: UserSpec) -> pymysql.Connection[Any]:
    return closed_after_test(harness.server.connect(spec.username, spec.password, harness.database))


def run(connection: pymysql.Connection[Any], statement: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall())


def succeeds(connection: pymysql.Connection[Any], statement: str) -> bool:
    """Whether the server let it pass."""
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
    """As anybody could see it."""
    assert not harness.has_user(spec.username)
    assert not any(is_alive(session) for session in sessions)
    assert not can_log_in(harness, spec.username, spec.password)


def try_drop(harness: EngineHarness, spec: UserSpec) -> None:
    """As a revocation does; that it raised is for the test to judge by what is left."""
    with suppress(AdapterError):
        harness.adapter().drop_user(spec.username, spec.level)


class _HalfOpen(Connection):
    """Names a way of logging in that the server does not want, so that the server asks once more; answers when it is let."""

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
    """A login whose last message is kept back until ``finish``."""

    def __init__(self, harness: EngineHarness, spec: UserSpec) -> None:
        self._harness, self._spec = harness, spec
        self._asked, self._may_answer = threading.Event(), threading.Event()
        self.session: pymysql.Connection[Any] | None = None
        self._thread = threading.Thread(target=self._log_in, daemon=True)
        self._thread.start()
        require(self._asked.wait(30), "the server asks once more")

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
        """The session, where the server let it in."""
        self._may_answer.set()
        self._thread.join(60)
        return self.session


@contextmanager
def metadata_locks_shown(harness: EngineHarness) -> Iterator[None]:
    """MariaDB says who holds a lock only with a plugin."""
    if harness.is_mariadb:
        harness.server.run("INSTALL SONAME 'metadata_lock_info'")
    try:
        yield
    finally:
        if harness.is_mariadb:
            harness.server.run("UNINSTALL SONAME 'metadata_lock_info'")
