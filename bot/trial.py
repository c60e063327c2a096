"""One trial on one level: create a user, log in, end the user with the session open, verify that it is gone.

A team proves with it that its own server works. Synchronous; it runs in a thread of ``Engines``. It leaves nothing on
the server, also when a step fails.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from adapters.base import Adapter, AdapterError, ForeignUser, Level, LoginRefused, UserSpec
from adapters.usernames import make_username

TRIAL_SECONDS = 120.0
"""Seconds until the server itself ends the trial's user, where it can. They matter if the process dies during a trial."""

FIRST_NUMBER = 900_000_000
"""Request numbers of trials start here, above those of real requests."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a trial. ``ms``: its duration in milliseconds; ``what``: a sentence without secrets."""

    level: str
    name: str
    ok: bool
    ms: float
    what: str


class _StepFailed(Exception):
    """A step failed, and was reported."""


@dataclass
class _Trial:
    adapter: Adapter
    spec: UserSpec
    report: Callable[[Step], None]
    stop: threading.Event
    is_foreign: bool = False

    @contextmanager
    def step(self, name: str) -> Iterator[list[str]]:
        """Run one step and report it. The body appends the text of the report. Raises _StepFailed."""
        if self.stop.is_set():
            self._report(name, ok=False, began=time.perf_counter(), what="interrupted")
            raise _StepFailed
        notes, began = list[str](), time.perf_counter()
        try:
            yield notes
        except AdapterError as error:
            self.is_foreign = isinstance(error, ForeignUser)
            self._report(name, ok=False, began=began, what=str(error))
            raise _StepFailed from None
        self._report(name, ok=True, began=began, what=" ".join(notes))

    def _report(self, name: str, *, ok: bool, began: float, what: str) -> None:
        ms = round((time.perf_counter() - began) * 1000, 1)
        self.report(Step(level=self.spec.level.name, name=name, ok=ok, ms=ms, what=what))

    def run(self) -> None:
        """Run all steps. Stops at the first that fails."""
        adapter, spec = self.adapter, self.spec
        with self.step("create"):
            adapter.create_user(spec)
        with self.step("log in"):
            login = adapter.login(spec.username, spec.password, spec.level)
        try:
            with self.step("use"):
                _expect(login.is_alive(), "the server does not answer the new session")
            with self.step("list") as notes:
                _expect(self._is_listed(), "the user is not among the server's users")
                notes.append(f"{adapter.activity([spec.username])[0].sessions} session")
            self._end()
            with self.step("session dead"):
                _expect(not login.is_alive(), "the open session is still alive after the end")
        finally:
            login.close()
        with self.step("log in again"):
            self._must_be_refused()
        with self.step("read back"):
            _expect(not self._is_listed(), "the user is still among the server's users")

    def _end(self) -> None:
        with self.step("end") as notes:
            removal = self.adapter.drop_user(self.spec.username, self.spec.level)
            notes += [f"{removal.sessions_ended} session ended.", *removal.notes]
            _expect(not removal.was_absent, "the user was gone before it was ended")

    def _is_listed(self) -> bool:
        return self.spec.username in {user.username for user in self.adapter.list_users()}

    def _must_be_refused(self) -> None:
        try:
            self.adapter.login(self.spec.username, self.spec.password, self.spec.level).close()
        except LoginRefused:
            return
        _expect(False, "the user still logs in")

    def clean_up(self) -> None:
        """Remove the user after a failed step, and report where that fails. A foreign user is not touched."""
        if self.is_foreign:
            return
        began = time.perf_counter()
        try:
            self.adapter.drop_user(self.spec.username, self.spec.level)
        except Exception as error:  # noqa: BLE001 - engines may come from other packages
            reason = error if isinstance(error, AdapterError) else type(error).__name__  # its text may hold a secret
            what = f"{self.spec.username} may be left on the server: {reason}. Run dbaccess sweep --fix."
            self._report("tidy up", ok=False, began=began, what=what)


class _UnexpectedResult(AdapterError):
    """The server did not behave as expected."""


def _expect(is_true: bool, what: str) -> None:
    if not is_true:
        raise _UnexpectedResult(what)


def run_trial(
    adapter: Adapter, level: Level, *, prefix: str, report: Callable[[Step], None], stop: threading.Event
) -> bool:
    """Run the trial of one level; return whether every step passed. Reports each step as it ends; checks ``stop`` between steps."""
    number = FIRST_NUMBER + secrets.randbelow(FIRST_NUMBER // 10)
    name = make_username(prefix, request_id=number, who="trial", key=secrets.token_hex(2))
    password = secrets.token_urlsafe(24)
    spec = UserSpec(username=name, password=password, level=level, remaining=TRIAL_SECONDS, request_id=number)
    trial = _Trial(adapter, spec, report, stop)
    try:
        trial.run()
    except _StepFailed:
        trial.clean_up()
        return False
    except BaseException:
        trial.clean_up()
        raise
    return True
