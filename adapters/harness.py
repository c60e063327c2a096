"""The protocols that the contract suite needs from an engine's own tests: a real server with a bot, and logins of its temporary users."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol

import pytest

from adapters.base import Adapter, Level, Login, LoginRefused, UserSpec
from adapters.usernames import make_username

PATIENCE = 60.0
"""Seconds to wait for a condition. Far above what anything takes, so that a busy machine does not fail a test."""

ABOUT_NOW = timedelta(minutes=1)
"""How far two clock readings may be apart on a busy machine. A wrong clock or time zone is further off."""

TRIES = 5
"""How often ``expect_within`` measures before it fails."""


class Died(BaseException):
    """The simulated death of the adapter's process. It is no Exception, so no adapter can catch it and clean up."""


class Denied(Exception):
    """The server does not allow this session to do that."""


class Session(Login, Protocol):
    """One open login of a temporary user, with the operations that the levels of the harness allow or deny."""

    def read(self) -> int:
        """Count objects that the levels ``reading`` and ``narrow`` may read. Raises Denied."""

    def read_beside(self) -> int:
        """Count objects that ``reading`` may read and ``narrow`` may not. Raises Denied."""

    def write(self) -> None:
        """Change an object that only ``writing`` may change. Raises Denied."""

    def work(self, seconds: float) -> None:
        """Keep the server busy for that time with one operation. Raises an Exception when the session is ended before."""


class EngineHarness(Protocol):
    """A real server with a bot that has exactly the rights that ``doctor`` asks for. The server's clock is in a time zone other than UTC.

    ``reading`` and ``writing`` are levels of existing roles; ``narrow`` is a level of grants, on a table, a collection or a key pattern.
    ``admin_secrets`` are the secrets in the bot's admin URL, which must never appear in an error or a log.
    ``counts_idle_sessions`` is False where the server does not say to which user an idle session belongs.
    """

    prefix: str
    ledger: str
    reading: Level
    writing: Level
    narrow: Level
    admin_secrets: tuple[str, ...]
    counts_idle_sessions: bool

    def adapter(self, *, ledger: str | None = None, identity: str | None = None) -> Adapter:
        """A new adapter on this server, by default of the harness's own ledger and with no frozen identity."""

    def lacking(self) -> Mapping[str, Adapter]:
        """Adapters whose bot lacks one right each. The key is a word of that right; ``check`` must use it in the finding."""

    def dies_after(self, step: int | None) -> AbstractContextManager[list[str]]:
        """While open, adapters raise Died when the server has run ``step`` statements, and their connection is cut. None means never. Yields the statements that ran."""

    def login(self, username: str, password: str) -> Session:
        """A session of that user. Raises LoginRefused."""

    def login_by(self, command: str) -> str:
        """Run the pasted command as a person would and ask the server for the current user. Returns the answer."""

    def make_foreign_user(self, username: str, password: str) -> None:
        """Create a user without a mark, as an administrator would by hand."""

    def has_user(self, username: str) -> bool:
        """Whether the server has a user of that name, on any of its nodes."""

    def log_text(self) -> str:
        """Everything that the server logged, including its statements."""

    def stop(self) -> None:
        """Stop the server."""

    def start(self) -> None:
        """Start the server again and return when it answers."""


class RawSession(Login, Protocol):
    """A session that runs any statement, for the hostile acts. ``is_alive`` asks the server whether it still has this session."""

    def run(self, *words: str) -> Any:
        """Run one statement, or the words of one command, and return the rows or the answer. Raises an Exception where the server refuses."""

    def send(self, *words: str) -> None:
        """Send a statement and do not read the answer. The session is not used again."""


class HostileHarness(EngineHarness, Protocol):
    """What ``HostileContract`` needs in addition.

    ``names`` has the names that the statements of the acts contain, quoted where the engine needs it. Each module in ``adapters.contract.acts``
    lists those that it uses. ``address`` is the host and the port of the server.
    """

    names: Mapping[str, str]
    address: tuple[str, int]

    def raw_session(self, username: str, password: str) -> RawSession:
        """A session of that user. Raises LoginRefused."""

    def administrator(self) -> RawSession:
        """A session of the server's own administrator."""

    def make_friend(self, username: str, password: str) -> None:
        """Create a permanent account that may log in and name the tables of the levels, and has no other right."""


@dataclass
class UserSpecs:
    """Makes user specifications with unique names and passwords, as the application makes them."""

    harness: EngineHarness
    number: int = field(default_factory=lambda: secrets.randbelow(10**6) + 1)

    def new(self, level: Level, *, remaining: float = 300.0, username: str | None = None) -> UserSpec:
        """A specification with a lifetime of ``remaining`` seconds and, unless ``username`` is given, a new name."""
        self.number += 1
        key = secrets.token_hex(4)
        name = username or make_username(self.harness.prefix, request_id=self.number, who="Ada L.", key=key)
        password = secrets.token_hex(16)
        return UserSpec(username=name, password=password, level=level, remaining=remaining, request_id=self.number)


def wait_until(is_so: Callable[[], bool], *, within: float = PATIENCE) -> float:
    """Wait until the condition holds and return the seconds it took. Fails the test after ``within`` seconds."""
    began = time.monotonic()
    while not is_so():
        if time.monotonic() - began > within:
            pytest.fail(f"the condition did not hold within {within} s")
        time.sleep(0.01)
    return time.monotonic() - began


def expect_within(seconds: float, once: Callable[[], float]) -> None:
    """Assert that one of ``TRIES`` measurements is below ``seconds``. ``once`` returns the duration that it measured.

    A busy machine slows down one try; code that is slow is slow every time.
    """
    took = list[float]()
    while not took or min(took) >= seconds:
        assert len(took) < TRIES, f"not once within {seconds} s: {took}"
        took.append(once())


def can_log_in(harness: EngineHarness, spec: UserSpec) -> bool:
    """Whether the server lets this user in with this password."""
    try:
        harness.login(spec.username, spec.password).close()
    except LoginRefused:
        return False
    return True


def everything_on(error: BaseException) -> str:
    """All text of an error: message, repr, arguments and attributes, also of its causes and contexts."""
    found, seen = "", set[int]()
    queue: list[BaseException | None] = [error]
    while queue:
        one = queue.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        found += f"{one} {one!r} {one.args} {vars(one)} "
        queue += [one.__cause__, one.__context__]
    return found
