"""What the contract suite asks of an engine's own tests: a real server, and logins of its temporary users."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

import pytest

from adapters.base import Adapter, Level, Login, UserSpec, make_username

PATIENCE = 60.0
"""Far above what anything takes, for a busy machine."""

TRIES = 5


class Died(BaseException):
    """The adapter's caller is dead. Not an Exception: nobody may catch it and tidy up."""


class Denied(Exception):
    """The server says this session may not do that."""


class Session(Login, Protocol):
    """One open login of a temporary user, with something to do."""

    def read(self) -> int:
        """Count of what the level ``reading`` may read, and ``narrow`` too. Raises Denied."""

    def read_beside(self) -> int:
        """Count of what ``reading`` may read and ``narrow`` may not. Raises Denied."""

    def write(self) -> None:
        """Change what the level ``writing`` may change. Raises Denied."""

    def work(self, seconds: float) -> None:
        """Keep the server busy that long in one operation; raises Exception when it is ended before."""


class EngineHarness(Protocol):
    """A real server with a bot set up as ``doctor`` asks for; its clock is in a time zone that is not UTC.

    ``reading`` and ``writing`` are levels of roles that exist, ``narrow`` one of grants: a table, a collection, a key pattern.
    ``counts_idle_sessions`` is False where the server does not say whose an idle session is.
    """

    prefix: str
    ledger: str
    reading: Level
    writing: Level
    narrow: Level
    admin_secrets: tuple[str, ...]
    counts_idle_sessions: bool

    def adapter(self, *, ledger: str | None = None, identity: str | None = None) -> Adapter: ...
    def lacking(self) -> Mapping[str, Adapter]:
        """Adapters whose bot lacks one right each, by a word of that right: it stands in what ``check`` says of it."""

    def dies_after(self, step: int | None) -> AbstractContextManager[list[str]]:
        """While it is open, adapters raise Died when the server has done that many statements, and their connection is cut. Yields what ran."""

    def login(self, username: str, password: str) -> Session:
        """Raises LoginRefused."""

    def login_by(self, command: str) -> str:
        """Run the pasted command as a person would, asking the server who one is; its answer."""

    def make_foreign_user(self, username: str, password: str) -> None:
        """A user that somebody made by hand."""

    def has_user(self, username: str) -> bool: ...
    def log_text(self) -> str:
        """All that the server logged, statements included."""

    def stop(self) -> None: ...
    def start(self) -> None: ...


@dataclass
class Named:
    """Users to be, with names as the application makes them."""

    harness: EngineHarness
    number: int = field(default_factory=lambda: secrets.randbelow(10**6) + 1)

    def spec(self, level: Level, *, remaining: float = 300.0, username: str | None = None) -> UserSpec:
        self.number += 1
        key = secrets.token_hex(4)
        name = username or make_username(self.harness.prefix, request_id=self.number, who="Ada L.", key=key)
        password = secrets.token_hex(16)
        return UserSpec(username=name, password=password, level=level, remaining=remaining, request_id=self.number)


def wait_until(is_so: Callable[[], bool], *, within: float = PATIENCE) -> float:
    """Seconds it took. Fails the test when it does not become so."""
    began = time.monotonic()
    while not is_so():
        if time.monotonic() - began > within:
            pytest.fail(f"not so within {within} s")
        time.sleep(0.01)
    return time.monotonic() - began


def expect_within(seconds: float, once: Callable[[], float]) -> None:
    """``once`` says how long it took. One of a few tries is that fast: a busy machine slows one down, and what is slow by itself is slow each time."""
    took = list[float]()
    while not took or min(took) >= seconds:
        assert len(took) < TRIES, f"not once within {seconds} s: {took}"
        took.append(once())
