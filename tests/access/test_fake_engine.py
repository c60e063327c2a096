"""The fake engine of these tests passes the contract suite of the real engines."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from adapters.base import Adapter, Level, LoginRefused, PrivilegeGrant, Secrets, Target, Tls
from adapters.contract import AdapterContract, Denied, Died
from tests.access.fake_engine import FakeLogin, FakeServer, User, engine

READER, WRITER, ADMIN_URL = "reader", "writer", "fake://bot:BotSecret0Login@db"
READING, WRITING = Level(name="readonly", roles=(READER,)), Level(name="write", roles=(WRITER,))
NARROW = Level(name="support", grants=(PrivilegeGrant(on=("customers",), privileges=("SELECT",)),))


class Session(FakeLogin):
    """A session that runs statements under its roles and grants."""

    def _may(self, table: str, *, writes: bool = False) -> None:
        user = self.server.users[self.server.sessions[self.number]]
        is_reader = {READER, WRITER} & set(user.roles) or table in user.tables
        if not (WRITER in user.roles if writes else is_reader):
            raise Denied(table)

    def read(self) -> int:
        self._may("customers")
        return 1

    def read_beside(self) -> int:
        self._may("orders")
        return 1

    def write(self) -> None:
        self._may("orders", writes=True)

    def work(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            assert self.is_alive(), "ended by the server"
            time.sleep(0.01)


@dataclass
class EngineHarness:
    """The harness that the contract suite needs."""

    server: FakeServer = field(
        default_factory=lambda: FakeServer(clock=lambda: datetime.now(UTC), roles=frozenset({READER, WRITER}))
    )
    prefix: str = "jit_"
    ledger: str = "ledger01"
    reading: Level = field(default=READING)
    writing: Level = field(default=WRITING)
    narrow: Level = field(default=NARROW)
    admin_secrets: tuple[str, ...] = ("BotSecret0Login",)
    counts_idle_sessions: bool = True
    log: list[str] = field(default_factory=list)

    def adapter(self, *, ledger: str | None = None, identity: str | None = None) -> Adapter:
        return self.of(self.server, ledger=ledger or self.ledger, identity=identity)

    def of(self, server: FakeServer, *, ledger: str, identity: str | None = None) -> Adapter:
        target = Target(
            name="shop",
            engine="fake",
            admin_url="env:UNUSED",
            prefix=self.prefix,
            ledger=ledger,
            tls=Tls(mode="prefer"),
            identity=identity,
        )
        return engine(server)(target, Secrets(admin_url=ADMIN_URL))

    def lacking(self) -> dict[str, Adapter]:
        lame = FakeServer(clock=self.server.clock, lacks=frozenset({"CREATEROLE"}))
        return {"CREATEROLE": self.of(lame, ledger=self.ledger)}

    @contextmanager
    def dies_after(self, step: int | None) -> Iterator[list[str]]:
        ran = list[str]()

        def count(name: str) -> None:
            ran.append(name)
            if step is not None and len(ran) >= step:
                raise Died

        before, self.server.step = self.server.step, count
        try:
            yield ran
        finally:
            self.server.step = before

    def login(self, username: str, password: str) -> Session:
        number = self.server.login(username, password)
        if number is None:
            raise LoginRefused(username)
        return Session(self.server, number)

    def login_by(self, command: str) -> str:
        found = re.fullmatch(r'psql "postgresql://(\w+):([^@]+)@.*"', command)
        assert found is not None
        self.login(found[1], found[2]).close()
        return found[1]

    def make_foreign_user(self, username: str, password: str) -> None:
        self.server.users[username] = User(password, None, 0, (), datetime.now(UTC) + timedelta(days=1))

    def has_user(self, username: str) -> bool:
        return username in self.server.users

    def log_text(self) -> str:
        """The fake server has no statement log; ``step`` records its calls."""
        return "\n".join(self.log)

    def stop(self) -> None:
        self.server.is_up = False

    def start(self) -> None:
        self.server.is_up = True


class TestFakeEngine(AdapterContract):
    """Without the checks of the statement log, which a fake server does not have."""

    @pytest.fixture
    def harness(self) -> EngineHarness:
        return EngineHarness()

    test_no_secret_in_errors_or_in_the_servers_log = None  # type: ignore[assignment]
