"""The scene of a hostile act: its users and sessions, and the record that describes an act.

The modules in ``adapters.contract.acts`` build their acts from it. ``adapters.contract.hostile`` tries them and lists the faults.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

from adapters.base import Adapter, AdapterError, Level, UserSpec
from adapters.harness import PATIENCE, HostileHarness, RawSession, UserSpecs

FRIENDS_PASSWORD = "FriendSecret0Login"  # noqa: S105 - of an account that exists for one test

LATE_SECONDS = 5.0
"""How much longer a grant or an end of another user may take while an act is running. Far above what a busy machine adds."""


class NotPerformed(Exception):
    """A step of an act did not work, so the act says nothing about the adapter."""


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Something that the act left. After the end it must be dead, or the receipt must name it by ``name``."""

    name: str
    is_alive: Callable[[], bool]


@dataclass
class Scene:
    """What one act has at hand: the hostile user, its sessions, its friend, and an administrator. Everything is closed after the test."""

    harness: HostileHarness
    stack: ExitStack
    adapter: Adapter = field(init=False)
    specs: UserSpecs = field(init=False)
    spec: UserSpec = field(init=False)
    sessions: list[RawSession] = field(default_factory=list)
    passwords: list[str] = field(default_factory=list)
    users: list[UserSpec] = field(default_factory=list)
    to_reopen: list[Callable[[], object]] = field(default_factory=list)
    """Calls that let others in again, after an act that closes the server."""
    is_over: threading.Event = field(default_factory=threading.Event)
    _friend: str = ""

    def __post_init__(self) -> None:
        self.adapter, self.specs = self.harness.adapter(), UserSpecs(self.harness)
        self.stack.callback(self._drop_users)

    def user(self, level: Level) -> UserSpec:
        """Create a temporary user."""
        spec = self.specs.new(level)
        self.users.append(spec)
        self.adapter.create_user(spec)
        return spec

    def session(self) -> RawSession:
        """A session of the hostile user. It must not outlive the user."""
        opened = self._open(self.spec.username, self.spec.password)
        self.sessions.append(opened)
        return opened

    def session_of(self, spec: UserSpec) -> RawSession:
        """A session of another temporary user."""
        return self._open(spec.username, spec.password)

    def friend_session(self) -> RawSession:
        """A session of a permanent account without rights."""
        if not self._friend:
            self._friend = f"mallory_{self.spec.username[-20:]}"
            self.harness.make_friend(self._friend, FRIENDS_PASSWORD)
        return self._open(self._friend, FRIENDS_PASSWORD)

    def administrator(self) -> RawSession:
        opened = self.harness.administrator()
        self.stack.callback(opened.close)
        return opened

    def as_administrator(self, *statements: str) -> None:
        """Run a set-up that the user cannot run itself."""
        administrator = self.administrator()
        for statement in statements:
            administrator.run(self.filled(statement))
        administrator.close()

    def filled(self, statement: str) -> str:
        """The statement with the harness's names, ``{user}``, ``{friend}`` and ``{role}``, the first role of the user's level."""
        level = self.spec.level if hasattr(self, "spec") else None
        user = self.spec.username if hasattr(self, "spec") else ""
        role = level.roles[0] if level and level.roles else ""
        return statement.format(**self.harness.names, user=user, friend=self._friend, role=role)

    def run(self, session: RawSession, *statements: str) -> None:
        """Run each statement, filled. Raises NotPerformed."""
        for statement in statements:
            text = self.filled(statement)
            try:
                session.run(text)
            except Exception as error:
                raise NotPerformed(f"{text[:200]}: {error}") from error

    def succeeds(self, session: RawSession, *words: str) -> bool:
        """Whether the server runs the statement, or the words of the command, filled."""
        try:
            session.run(*(self.filled(word) for word in words))
        except Exception:  # noqa: BLE001 - every error of every driver is a refusal here
            return False
        return True

    def reopen(self) -> None:
        """Let others in again. The checks after the end need a server that can be reached."""
        while self.to_reopen:
            self.to_reopen.pop(0)()

    def in_background(self, once: Callable[[], object]) -> None:
        """Call ``once`` again and again in a thread until the test is over. Its errors are ignored."""

        def repeat() -> None:
            while not self.is_over.is_set():
                with suppress(Exception):
                    once()

        thread = threading.Thread(target=repeat, daemon=True)
        thread.start()
        self.stack.callback(thread.join, PATIENCE)
        self.stack.callback(self.is_over.set)

    def _open(self, username: str, password: str) -> RawSession:
        opened = self.harness.raw_session(username, password)
        self.stack.callback(opened.close)
        return opened

    def _drop_users(self) -> None:
        for spec in self.users:
            with suppress(AdapterError):
                self.adapter.drop_user(spec.username, spec.level)


def reading(scene: Scene) -> Level:
    return scene.harness.reading


def writing(scene: Scene) -> Level:
    return scene.harness.writing


@dataclass(frozen=True, kw_only=True)
class HostileAct:
    """One hostile act. ``kind`` groups acts: A delays the end, B the mark, C what outlives the user, E many objects, F locks anyone may take, G code, H connections.

    ``level`` returns the user's level and may run what an administrator has to set up. If the adapter refuses to grant it, the contract is
    fulfilled. ``perform`` does the act in sessions of the scene and may return probes. ``late``: see ``LATE_SECONDS``.
    ``closes_server``: nobody gets in while the act is running, not even an administrator, so only ends are tried meanwhile.
    """

    kind: str
    name: str
    perform: Callable[[Scene], Iterable[Probe] | None]
    level: Callable[[Scene], Level] = reading
    late: float = LATE_SECONDS
    closes_server: bool = False


def statements(
    kind: str, name: str, *texts: str, level: Callable[[Scene], Level] = reading, probes: Sequence[Probe] = ()
) -> HostileAct:
    """An act that runs these statements in one session, which stays open."""

    def perform(scene: Scene) -> Sequence[Probe]:
        scene.run(scene.session(), *texts)
        return probes

    return HostileAct(kind=kind, name=name, perform=perform, level=level)
