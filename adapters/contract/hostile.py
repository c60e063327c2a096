"""The contract of ``drop_user`` under hostile acts: whatever a user does with its own login, its end ends it, and others do not notice.

A subclass names its acts in the class attribute ``acts``; the modules in ``adapters.contract.acts`` have acts of several engines.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from adapters.base import AdapterError, Blocked, LoginRefused, Rejected, Removal, UserSpec
from adapters.contract.scene import HostileAct, Probe, Scene
from adapters.harness import HostileHarness, everything_on

NOTES_AT_MOST = 20
LONGEST_TEXT = 3000
"""Characters of a receipt or an error."""


@dataclass
class Trial:
    """One act with its end, and the faults that it showed. Each fault is a sentence."""

    scene: Scene
    act: HostileAct
    faults: list[str] = field(default_factory=list)

    def run(self) -> None:
        scene, adapter = self.scene, self.scene.adapter
        level = self.act.level(scene)
        undisturbed = self._timed("an end before the act", self._end_of(scene.user(scene.harness.reading)))
        bystander = scene.user(scene.harness.reading)
        before = adapter.level_state(level)
        try:
            scene.spec = scene.user(level)
        except Rejected as refused:
            self._check_text(refused)
            return
        scene.passwords.append(scene.spec.password)
        probes = tuple(self.act.perform(scene) or ())
        if self.act.closes_server:
            self._timed("the end of another user", self._end_of(bystander))
        else:
            self._others_are_served(bystander, within=undisturbed + self.act.late)
        removal = self._end(lambda: adapter.drop_user(scene.spec.username, level, before))
        scene.is_over.set()
        scene.reopen()
        if removal is not None:
            self._check_removal(removal, probes)

    def _end_of(self, spec: UserSpec) -> Callable[[], object]:
        return lambda: self.scene.adapter.drop_user(spec.username, spec.level)

    def _others_are_served(self, bystander: UserSpec, *, within: float) -> None:
        """While the act is running, users are listed, one is ended, and another one is created. Stops at the first fault."""
        scene = self.scene
        newcomer = scene.specs.new(scene.harness.narrow)
        scene.users.append(newcomer)
        for what, verb in (
            ("the list of users", self._list),
            ("the end of another user", self._end_of(bystander)),
            ("a grant to another person", lambda: self._grant(newcomer)),
        ):
            took = self._timed(what, verb)
            if took > within:
                self.faults.append(f"{what} took {took:.1f} s, and {within:.1f} s are allowed")
            if self.faults:
                return  # the others would wait for the same time limits

    def _grant(self, newcomer: UserSpec) -> None:
        """A grant may be held up for a moment, if its error names the holder and the statement that frees it. An end never may."""
        try:
            self.scene.adapter.create_user(newcomer)
        except Blocked as blocked:
            self._check_text(blocked)
            if not blocked.remedy:
                raise

    def _list(self) -> None:
        listed = {user.username: user.ledger for user in self.scene.adapter.list_users()}
        if listed.get(self.scene.spec.username) != self.scene.harness.ledger:
            self.faults.append("the list of users shows the user without the mark of its ledger, or not at all")

    def _timed(self, what: str, verb: Callable[[], object]) -> float:
        """The duration of the verb in seconds. Any error of it is a fault."""
        began = time.monotonic()
        try:
            verb()
        except Exception as error:  # noqa: BLE001 - any error at all is a fault
            self.faults.append(f"{what} failed: {_described(error)}")
            self._check_text(error)
        return time.monotonic() - began

    def _end(self, drop: Callable[[], Removal]) -> Removal | None:
        """The removal. If the first try is Blocked, an administrator runs the statements of the remedy, and one more try follows."""
        try:
            try:
                return drop()
            except Blocked as blocked:
                self._check_text(blocked)
                if not blocked.remedy:
                    self.faults.append(f"the end is blocked without a remedy: {_described(blocked)}")
                self._run_remedy(blocked.remedy or "")
                return drop()
        except Exception as error:  # noqa: BLE001 - any error at all is a user that was not ended
            self.faults.append(f"the end failed: {_described(error)}")
            self._check_text(error)
            return None

    def _run_remedy(self, remedy: str) -> None:
        administrator = self.scene.administrator()
        for part in filter(str.strip, remedy.split(";")):
            if not self.scene.succeeds(administrator, part):  # the statement may follow a place: ``in shop: …``
                self.scene.succeeds(administrator, part.partition(": ")[2])

    def _check_removal(self, removal: Removal, probes: Sequence[Probe]) -> None:
        scene, username = self.scene, self.scene.spec.username
        receipt = "\n".join([*removal.left_behind, *removal.notes])
        if scene.harness.has_user(username):
            self.faults.append("the user is still there after a receipt")
        if any(self._logs_in(password) for password in scene.passwords):
            self.faults.append("the user logs in after a receipt")
        if alive := sum(session.is_alive() for session in scene.sessions):
            self.faults.append(f"{alive} sessions of the user live on after a receipt")
        if (left := scene.adapter.activity([username])[0].sessions) != 0:
            self.faults.append(f"activity shows {left} sessions after a receipt")
        for probe in probes:
            if probe.name not in receipt and probe.is_alive():
                self.faults.append(f"{probe.name} lives on, and the receipt does not name it: {receipt[:300]}")
        if len(removal.notes) > NOTES_AT_MOST or len(receipt) > LONGEST_TEXT:
            self.faults.append(f"the receipt has {len(removal.notes)} notes and {len(receipt)} characters")
        self._check_secrets(repr(removal))

    def _logs_in(self, password: str) -> bool:
        try:
            self.scene.harness.raw_session(self.scene.spec.username, password).close()
        except LoginRefused:
            return False
        return True

    def _check_text(self, error: BaseException) -> None:
        if len(str(error)) > LONGEST_TEXT:
            self.faults.append(f"an error has {len(str(error))} characters")
        if not isinstance(error, AdapterError):
            self.faults.append(f"{type(error).__name__} is no AdapterError")
        self._check_secrets(everything_on(error))

    def _check_secrets(self, text: str) -> None:
        secrets = (*self.scene.harness.admin_secrets, self.scene.spec.password if self.scene.passwords else "")
        if any(secret and secret in text for secret in secrets):
            self.faults.append("a text contains a secret")


def _described(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error)[:400]}"


class HostileContract:
    """Part of ``AdapterContract``. A subclass sets ``acts``, and a fixture ``hostile_harness`` where an act may damage the shared harness."""

    acts: ClassVar[Sequence[HostileAct]] = ()

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Make one test for each act, or one that is skipped where there is none. A ``delaying_act`` is one of the kinds A."""
        none = pytest.param(None, id="none", marks=pytest.mark.skip(reason="there are no hostile acts for this engine"))
        delaying = [act for act in self.acts if act.kind.startswith("A") and not act.closes_server]
        for name, acts in (("act", self.acts), ("delaying_act", delaying)):
            if name in metafunc.fixturenames:
                metafunc.parametrize(name, [pytest.param(act, id=f"{act.kind} {act.name}") for act in acts] or [none])

    @pytest.fixture
    def hostile_harness(self, harness: Any) -> HostileHarness:
        """By default the harness of the other tests."""
        found: HostileHarness = harness
        return found

    @pytest.fixture
    def scene(self, hostile_harness: HostileHarness) -> Iterator[Scene]:
        with ExitStack() as stack:
            yield Scene(hostile_harness, stack)

    def open_fault(self, act: HostileAct, harness: HostileHarness) -> pytest.MarkDecorator | None:  # noqa: ARG002 - for subclasses
        """The mark of an act that the adapter does not withstand yet, for example ``pytest.mark.xfail(strict=True)``."""
        return None

    def test_hostile_user_is_ended(self, request: pytest.FixtureRequest, scene: Scene, act: HostileAct) -> None:
        if (mark := self.open_fault(act, scene.harness)) is not None:
            request.applymarker(mark)
        trial = Trial(scene, act)
        trial.run()
        faults = "\n".join(trial.faults)
        assert not faults, faults
