"""A primary and its streaming standby, with sessions on both."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
import pytest

from adapters.base import Level, LoginRefused, UserSpec
from adapters.contract import wait_until
from adapters.postgresql import standbys
from tests.conftest import had
from tests.contract.postgresql.harness import (
    EngineHarness,
    Login,
    readonly,
)
from tests.servers.postgresql import PostgresServer

had_here = contextmanager(had)


@dataclass(frozen=True)
class Pair:
    """A primary and its standby. Inside ``lagging`` the standby replays nothing."""

    primary: PostgresServer
    standby: PostgresServer

    def catch_up(self) -> None:
        with self.primary.admin() as c:
            (end,) = c.execute("SELECT pg_current_wal_flush_lsn()").fetchone() or ("0/0",)
        with self.standby.admin() as c:
            wait_until(lambda: c.execute("SELECT pg_last_wal_replay_lsn() >= %s::pg_lsn", (end,)).fetchone() == (True,))

    @contextmanager
    def lagging(self) -> Iterator[None]:
        with self.standby.admin() as c:
            c.execute("SELECT pg_wal_replay_pause()")
            wait_until(lambda: c.execute("SELECT pg_get_wal_replay_pause_state()").fetchone() == ("paused",))
        try:
            yield
        finally:
            with self.standby.admin() as c:
                c.execute("SELECT pg_wal_replay_resume()")


@contextmanager
def short_session_limit() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(standbys, "SESSIONS_WITHIN", 1.0)
        yield


_logins: list[Login] = []


def close_sessions() -> None:
    """Close every session that a test left open."""
    while _logins:
        _logins.pop().close()


def login_at(server: PostgresServer, spec: UserSpec, database: str) -> Login:
    """Open a session, which is closed after the test."""
    try:
        url = server.url(spec.username, spec.password, database)
        login = Login(psycopg.connect(url, autocommit=True, connect_timeout=60))
    except psycopg.OperationalError as error:
        raise LoginRefused(str(error)) from None
    _logins.append(login)
    return login


def opened(harness: EngineHarness, pair: Pair, level: Level | None = None) -> tuple[UserSpec, Login]:
    """Create a user and open its session on the standby."""
    spec = harness.spec(level or readonly())
    harness.adapter().create_user(spec)
    pair.catch_up()
    session = login_at(pair.standby, spec, harness.database)
    assert session.read() == 1000
    return spec, session
