"""The contract in small on one database: a user is made, logs in, is ended with a session open, and read back as gone.

It is how a team proves its own server. Synchronous, in a thread of ``Engines``; it leaves nothing, also when a step fails.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from adapters.base import Adapter, AdapterError, ForeignUser, Level, LoginRefused, UserSpec, make_username

LASTS_SECONDS = 120.0
"""How long the trial's user could live by the server's own end, if we died between its beginning and its end."""

FIRST_NUMBER = 900_000_000
"""Its name carries a number no request will ever have."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One thing that was tried. ``ms`` is how long it took; ``what`` a sentence without secrets."""

    level: str
    name: str
    ok: bool
    ms: float
    what: str


class _Failed(Exception):
    """A step was not so; it has been reported."""


@dataclass
class _Trial:
    adapter: Adapter
    spec: UserSpec
    report: Callable[[Step], None]
    stop: threading.Event
    is_foreign: bool = False

    @contextmanager
    def step(self, name: str) -> Iterator[list[str]]:
        """Reports how it went; what the body appends is the sentence. Raises _Failed."""
        if self.stop.is_set():
            self._say(name, ok=False, began=time.perf_counter(), what="interrupted")
            raise _Failed
        words, began = list[str](), time.perf_counter()
        try:
            yield words
        except AdapterError as error:
            self.is_foreign = isinstance(error, ForeignUser)
            self._say(name, ok=False, began=began, what=str(error))
            raise _Failed from None
        self._say(name, ok=True, began=began, what=" ".join(words))

    def _say(self, name: str, *, ok: bool, began: float, what: str) -> None:
        ms = round((time.perf_counter() - began) * 1000, 1)
        self.report(Step(level=self.spec.level.name, name=name, ok=ok, ms=ms, what=what))

    def run(self) -> None:
        """All steps, as long as each is well."""
        adapter, spec = self.adapter, self.spec
        with self.step("create"):
            adapter.create_user(spec)
        with self.step("log in"):
            login = adapter.login(spec.username, spec.password, spec.level)
        try:
            with self.step("use"):
                _must(login.is_alive(), "the server does not answer the new session")
            with self.step("list") as words:
                _must(self._is_listed(), "the user is not among the server's users")
                words.append(f"{adapter.activity([spec.username])[0].sessions} session")
            self._end()
            with self.step("session dead"):
                _must(not login.is_alive(), "the open session lives on after the end")
        finally:
            login.close()
        with self.step("log in again"):
            self._must_be_refused()
        with self.step("read back"):
            _must(not self._is_listed(), "the user is still among the server's users")

    def _end(self) -> None:
        with self.step("end") as words:
            receipt = self.adapter.drop_user(self.spec.username, self.spec.level)
            words += [f"{receipt.sessions_ended} session ended.", *receipt.notes]
            _must(not receipt.was_absent, "the user was gone before it was ended")

    def _is_listed(self) -> bool:
        return self.spec.username in {user.username for user in self.adapter.list_users()}

    def _must_be_refused(self) -> None:
        try:
            self.adapter.login(self.spec.username, self.spec.password, self.spec.level).close()
        except LoginRefused:
            return
        _must(False, "the user still logs in")

    def tidy_up(self) -> None:
        """Whatever happened, the user goes; said where it cannot. One that was there before us is somebody else's."""
        if self.is_foreign:
            return
        began = time.perf_counter()
        try:
            self.adapter.drop_user(self.spec.username, self.spec.level)
        except AdapterError as error:
            what = f"{self.spec.username} may be left on the server: {error}. Run dbaccess sweep --fix."
            self._say("tidy up", ok=False, began=began, what=what)


class _Wrong(AdapterError):
    """The server did not do what it should have."""


def _must(is_so: bool, what: str) -> None:
    if not is_so:
        raise _Wrong(what)


def try_level(
    adapter: Adapter, level: Level, *, prefix: str, report: Callable[[Step], None], stop: threading.Event
) -> bool:
    """Whether all was well. Each step is reported as it ends; ``stop`` is looked at between them."""
    number = FIRST_NUMBER + secrets.randbelow(FIRST_NUMBER // 10)
    name = make_username(prefix, request_id=number, who="trial", key=secrets.token_hex(2))
    password = secrets.token_urlsafe(24)
    spec = UserSpec(username=name, password=password, level=level, remaining=LASTS_SECONDS, request_id=number)
    trial = _Trial(adapter, spec, report, stop)
    try:
        trial.run()
    except _Failed:
        trial.tidy_up()
        return False
    except BaseException:
        trial.tidy_up()
        raise
    return True
