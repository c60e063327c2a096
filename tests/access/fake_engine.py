"""A database server in memory and its adapter: logins, sessions, marks, outages, and statements that take effect late."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import ClassVar

from adapters.base import (
    Activity,
    Adapter,
    AdapterError,
    Endpoint,
    Enforced,
    Finding,
    ForeignUser,
    Health,
    Level,
    LoginRefused,
    ManagedUser,
    Rejected,
    Removal,
    Secrets,
    ServerDown,
    Target,
    UserSpec,
    UserToDrop,
    WrongServer,
)  # fmt: skip
from adapters.level_state import LevelState
from adapters.usernames import username_pattern


@dataclass
class User:
    password: str
    ledger: str | None
    request_id: int
    roles: tuple[str, ...]
    expires_at: datetime
    tables: tuple[str, ...] = ()


@dataclass
class FakeServer:
    """``step`` is called before and after each call; ``gate`` holds a create in the server until it is opened.

    ``rejects`` is the answer to every create, ``holds_up`` to every drop. ``left_with`` is the owner of what every user left. ``roles`` are the roles that exist, None where any name is accepted; ``lacks`` the privileges that the bot does not have.
    ``blocked`` are users whose login is blocked; those in ``unyielding`` do not let themselves be blocked. ``differences`` is the answer of a comparison, ``refreshed`` of a refresh of levels.
    ``drops_together``: it can drop blocked users in groups. ``facts`` is the state of every level; ``states_before`` is what the drops got. ``findings`` are further results of its check; ``leftovers`` can be dropped. ``errors``: by verb, what it raises.
    """

    clock: Callable[[], datetime]
    step: Callable[[str], None] = lambda _name: None
    identity: str = "server-1"
    is_up: bool = True
    users: dict[str, User] = field(default_factory=dict)
    sessions: dict[int, str] = field(default_factory=dict)
    left_with: str | None = None
    rejects: Rejected | None = None
    holds_up: AdapterError | None = None
    gate: threading.Event | None = None
    in_flight: list[Callable[[], None]] = field(default_factory=list)
    loses_answers: bool = False
    roles: frozenset[str] | None = None
    lacks: frozenset[str] = frozenset()
    enforced: Enforced = Enforced.LOGIN
    facts: list[tuple[str, str]] = field(default_factory=list)
    findings: tuple[Finding, ...] = ()
    leftovers: list[str] = field(default_factory=list)
    errors: dict[str, Exception] = field(default_factory=dict)
    states_before: list[LevelState | None] = field(default_factory=list)
    blocked: set[str] = field(default_factory=set)
    unyielding: set[str] = field(default_factory=set)
    drops_together: bool = False
    differences: dict[str, tuple[str, ...]] = field(default_factory=dict)
    refreshed: list[str] = field(default_factory=list)
    turn: threading.Lock = field(default_factory=threading.Lock)
    _number: int = 0

    def login(self, username: str, password: str) -> int | None:
        """The number of the new session. None where the login is refused."""
        with self.turn:
            user = self.users.get(username)
            if user is None or user.password != password or user.expires_at <= self.clock():
                return None
            if username in self.blocked:
                return None
            self._number += 1
            self.sessions[self._number] = username
            return self._number

    def land(self) -> None:
        """The statements that are still on their way take effect now."""
        for late in self.in_flight:
            late()
        self.in_flight.clear()


def engine(server: FakeServer) -> type[Adapter]:
    """An adapter class for this one server."""

    class Fake:
        label: ClassVar[str] = "FakeSQL"
        enforces: ClassVar[Enforced] = Enforced.LOGIN

        def __init__(self, target: Target, secrets: Secrets) -> None:
            self.target = target
            self.secrets = secrets

        def _reach(self, name: str) -> None:
            server.step(f"before {name}")
            if not server.is_up:
                raise ServerDown("no connection: refused")
            if name in server.errors:
                raise server.errors[name]
            if self.target.identity not in (None, server.identity):
                raise WrongServer(expected=str(self.target.identity), found=server.identity)

        def _own_user(self, username: str, *, to_end: bool = False) -> User | None:
            if not username_pattern(self.target.prefix).fullmatch(username):
                raise Rejected(f"{username!r} is no name dbaccess makes")
            user = server.users.get(username)
            if user is not None and user.ledger is None and not to_end:
                raise ForeignUser(username, "it carries no mark")
            if user is not None and user.ledger not in (None, self.target.ledger):
                raise ForeignUser(username, "its mark names another ledger")
            return user

        def check(self, levels: Sequence[Level] = ()) -> Health:
            self._reach("check")
            return Health(
                version="FakeSQL 1",
                identity=server.identity,
                enforced=server.enforced,
                findings=(*map(missing, sorted(server.lacks)), *server.findings),
            )

        def identity(self) -> str:
            self._reach("identity")
            return server.identity

        def create_user(self, spec: UserSpec) -> None:
            self._reach("create")
            if server.rejects is not None:
                raise server.rejects
            self._own_user(spec.username)
            if server.roles is not None and not server.roles.issuperset(spec.level.roles):
                raise Rejected("there is no such role")
            user = User(
                spec.password,
                self.target.ledger,
                spec.request_id,
                spec.level.roles,
                server.clock() + timedelta(seconds=spec.remaining),
                tables_of(spec.level),
            )

            def make() -> None:
                server.users[spec.username] = user
                server.blocked.discard(spec.username)

            if server.gate is not None:
                gate, server.gate = server.gate, None
                assert gate.wait(300)
            if server.loses_answers:
                server.loses_answers = False
                server.in_flight.append(make)
                raise ServerDown("the answer was lost", is_ambiguous=True)
            make()
            server.step("after create")

        def set_password(self, username: str, password: str) -> None:
            self._reach("set_password")
            user = self._own_user(username)
            if user is None:
                raise Rejected(f"there is no user {username}")
            user.password = password
            server.step("after set_password")

        def set_expiry(self, username: str, remaining: float) -> None:
            self._reach("set_expiry")
            user = self._own_user(username)
            if user is None:
                raise Rejected(f"there is no user {username}")
            user.expires_at = server.clock() + timedelta(seconds=remaining)

        def level_state(self, level: Level) -> LevelState:
            self._reach("level_state")
            return LevelState.of(server.facts)

        def block_users(self, usernames: Sequence[str]) -> frozenset[str]:
            self._reach("block")
            with server.turn:
                foreign = {n for n, u in server.users.items() if u.ledger not in (None, self.target.ledger)}
                yielding = frozenset(usernames) - server.unyielding - foreign
                server.blocked |= yielding
                server.sessions = {n: name for n, name in server.sessions.items() if name not in yielding}
            server.step("after block")
            return yielding

        def drop_blocked_users(self, users: Sequence[UserToDrop]) -> dict[str, Removal]:
            if not server.drops_together:
                return {}
            self._reach("drop_blocked")
            quick = [one for one in users if self._has_nothing(one.username)]
            removals = {one.username: self.drop_user(one.username, one.level, one.before) for one in quick}
            server.step("after drop_blocked")
            return removals

        def _has_nothing(self, username: str) -> bool:
            user = server.users.get(username)
            is_own = user is not None and user.ledger == self.target.ledger and username in server.blocked
            return is_own and username not in {*server.sessions.values(), *server.unyielding}

        def end_by_hand(self, username: str) -> tuple[str, ...]:
            return (f"BLOCK USER {username};", f"END SESSIONS OF {username};")

        def compare_users(self, levels: Mapping[str, Level]) -> dict[str, tuple[str, ...]]:
            self._reach("compare")
            found = {name: server.differences[name] for name in levels if name in server.differences}
            for name, level in levels.items():
                user = server.users.get(name)
                if user is not None and (user.roles, user.tables) != (level.roles, tables_of(level)):
                    found[name] = (*found.get(name, ()), f"{name} does not have the rights of {level.name}")
            return found

        def refresh_levels(self, levels: Sequence[Level]) -> list[str]:
            self._reach("refresh")
            changed, server.refreshed = server.refreshed, []
            return changed

        def drop_leftovers(self) -> list[str]:
            self._reach("drop_leftovers")
            dropped, server.leftovers = server.leftovers, []
            return [f"{name} was dropped" for name in dropped]

        def drop_user(self, username: str, level: Level, before: LevelState | None = None) -> Removal:
            self._reach("drop")
            if server.holds_up is not None:
                raise server.holds_up
            user = self._own_user(username, to_end=True)
            with server.turn:
                ended = [n for n, name in server.sessions.items() if name == username]
                for number in ended:
                    del server.sessions[number]
                server.users.pop(username, None)
            server.step("after drop")
            server.states_before.append(before)
            return Removal(
                was_absent=user is None,
                sessions_ended=len(ended),
                left_behind=(),
                left_with=server.left_with,
                read_back_at=server.clock(),
                notes=before.differences(LevelState.of(server.facts)) if before else (),
            )

        def list_users(self) -> list[ManagedUser]:
            self._reach("list")
            pattern = username_pattern(self.target.prefix)
            return [
                ManagedUser(username=n, ledger=u.ledger, request_id=u.request_id, expires_at=u.expires_at)
                for n, u in list(server.users.items())
                if pattern.fullmatch(n)
            ]

        def activity(self, usernames: Sequence[str]) -> list[Activity]:
            self._reach("activity")
            return [Activity(username=n, sessions=list(server.sessions.values()).count(n)) for n in usernames]

        def endpoint(self, level: Level) -> Endpoint:
            return Endpoint(
                host="db.internal",
                port=5432,
                database="shop",
                tls="require",
                note=None,
                engine="FakeSQL",
                command='psql "postgresql://{username}:{password}@db.internal:5432/shop"',
            )

        def login(self, username: str, password: str, level: Level) -> FakeLogin:
            self._reach("login")
            number = server.login(username, password)
            if number is None:
                raise LoginRefused("not with this password")
            return FakeLogin(server, number)

    return Fake


def tables_of(level: Level) -> tuple[str, ...]:
    return tuple(table for grant in level.grants for table in grant.on)


@dataclass
class FakeLogin:
    """One session of a temporary user."""

    server: FakeServer
    number: int

    def is_alive(self) -> bool:
        return self.number in self.server.sessions

    def close(self) -> None:
        self.server.sessions.pop(self.number, None)


def missing(right: str) -> Finding:
    return Finding(is_ok=False, is_fatal=True, what=f"{right} is missing", remedy=f"GRANT {right}")
