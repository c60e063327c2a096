"""What an engine adapter is: verbs, the records they take and give, and the errors they raise.

An adapter makes a user that exists for a limited time, takes it away, and reads back from the server
that it is gone. It is synchronous (the caller runs it in a thread), holds no connection between calls,
sets connect and statement time limits on every one, and imports nothing of the application.

Errors::

    AdapterError
     ├─ Unreachable      no answer, or one that may be different next time: try again
     │   └─ Blocked      the server answers, and somebody holds a lock that this step needs: named, with what frees it
     ├─ Rejected         the server said no and will say no again: ``remedy`` says what would help
     │   └─ WrongServer  it answers, but it is not the server the grant was made on
     ├─ LoginRefused     a temporary user is not let in
     └─ NotOurs          a user of that name is there and is not ours: its mark names another ledger, or is missing
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Protocol, Self

CREATE_LIMIT_SECONDS = 10.0
"""Time limit an adapter sets on the server for each statement of a create: after it, a create whose answer was lost has landed or never will."""

USERNAME_MAX = 32
"""MySQL's limit, kept on every engine so that a name means the same everywhere."""


@dataclass(frozen=True, kw_only=True)
class Grant:
    """Privileges on objects, as a level's ``grants`` name them; words are the engine's own."""

    on: tuple[str, ...]
    privileges: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Level:
    """A named kind of access: existing roles, or grants for which the adapter keeps a role.

    ``database`` is set where the level is about another database of the same server than ``connect.database``.
    """

    name: str
    roles: tuple[str, ...] = ()
    grants: tuple[Grant, ...] = ()
    database: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    description: str = ""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The level as it was frozen; unknown keys are a TypeError."""
        parts = dict(value)
        parts["roles"] = tuple(parts.get("roles") or ())
        parts["grants"] = tuple(
            Grant(on=tuple(g["on"]), privileges=tuple(g["privileges"])) for g in parts.get("grants") or ()
        )
        return cls(**parts)


@dataclass(frozen=True, kw_only=True)
class Tls:
    """``mode`` is disable, prefer, require, verify-ca or verify-full; ``ca`` a path of a PEM file."""

    mode: str
    ca: str | None = None


@dataclass(frozen=True, kw_only=True)
class Connect:
    """What the requester is told; where a part is None it is taken from the admin URL and ``tls``."""

    host: str | None = None
    port: int | None = None
    database: str | None = None
    tls: str | None = None
    note: str | None = None


@dataclass(frozen=True, kw_only=True)
class Target:
    """One database of one server, all an adapter needs to find it again; frozen in every grant.

    ``admin_url`` and ``replicas`` hold references (``env:NAME``, ``file:/path``), never secrets. ``identity`` is
    what the server said of itself when the grant began; None before. With it set, every connection is checked.
    """

    name: str
    engine: str
    admin_url: str
    prefix: str
    ledger: str
    tls: Tls
    connect: Connect = Connect()
    admin_role: str | None = None
    ops_schema: str = "dbaccess"
    replicas: tuple[str, ...] = ()
    identity: str | None = None

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The target as it was frozen (``dataclasses.asdict``)."""
        parts = dict(value)
        parts["tls"] = Tls(**parts["tls"])
        parts["connect"] = Connect(**parts["connect"])
        parts["replicas"] = tuple(parts["replicas"])
        return cls(**parts)


@dataclass(frozen=True, kw_only=True)
class Secrets:
    """The references of a target, resolved for one effect; never printed, never stored. A replica's is empty where it is not to be had."""

    admin_url: str = field(repr=False)
    replicas: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, kw_only=True)
class UserSpec:
    """The user to be. ``remaining`` seconds are added to the server's own clock, so that a wrong clock on our side moves no end."""

    username: str
    password: str = field(repr=False)
    level: Level
    remaining: float
    request_id: int


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where the user logs in. ``command`` has ``{username}`` and ``{password}`` still to be filled by ``paste``."""

    host: str
    port: int
    database: str
    tls: str
    note: str | None
    engine: str
    command: str

    def paste(self, username: str, password: str) -> str:
        """The command that works as it stands. Both parts are of ``[A-Za-z0-9_-]``, so nothing needs quoting."""
        return self.command.replace("{username}", username).replace("{password}", password)


@dataclass(frozen=True, kw_only=True)
class Removal:
    """What revocation did and then read back from the server.

    ``sessions_ended`` counts distinct sessions, ``left_behind`` names what the user made (``schema.name (table)``) and ``left_with``
    its owner now. ``was_absent``: there was no such user when it began. ``read_back_at`` is the server's clock. ``notes``: what
    a reader should know (a replica not named, something left behind), in plain sentences.
    """

    was_absent: bool
    sessions_ended: int
    left_behind: tuple[str, ...]
    left_with: str | None
    read_back_at: datetime
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ManagedUser:
    """A user on the server whose name matches our pattern; ``ledger`` is what its mark names, None where it has no mark."""

    username: str
    ledger: str | None
    request_id: int | None
    expires_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Activity:
    """What the server knows of a user now. ``statements`` is None where the server does not count."""

    username: str
    sessions: int
    clients: tuple[str, ...] = ()
    statements: int | None = None


class Enforced(StrEnum):
    """What the server itself ends at the time, with the bot gone."""

    NOTHING = "nothing"
    LOGIN = "login"
    SESSIONS = "login and sessions"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing a check saw. ``remedy`` is the exact statement (or step) that would help, where there is one."""

    is_ok: bool
    is_fatal: bool
    what: str
    remedy: str | None = None


@dataclass(frozen=True, kw_only=True)
class Health:
    """What ``check`` found on a server that answers. ``problems`` are what prevents grants, ``warnings`` what deserves a look."""

    version: str
    identity: str
    enforced: Enforced
    findings: tuple[Finding, ...]

    @property
    def problems(self) -> tuple[Finding, ...]:
        """Findings with which no grant can be given or ended as promised."""
        return tuple(f for f in self.findings if not f.is_ok and f.is_fatal)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """Findings that leave more open than they should."""
        return tuple(f for f in self.findings if not f.is_ok and not f.is_fatal)


class AdapterError(Exception):
    """Base of all that an adapter raises. The sentence never holds a secret."""


class ServerDown(AdapterError):
    """No answer, or one that may be different next time. ``is_ambiguous``: the statement may still have run."""

    def __init__(self, what: str, *, is_ambiguous: bool = False) -> None:
        super().__init__(what)
        self.what = what
        self.is_ambiguous = is_ambiguous


class Blocked(ServerDown):
    """The server answers, and the step is held up by a lock of somebody else. ``remedy`` is the statement that frees it, where one does."""

    def __init__(self, what: str, *, remedy: str | None = None) -> None:
        super().__init__(what)
        self.args = (f"{what}; {remedy}" if remedy else what,)
        self.remedy = remedy


class Rejected(AdapterError):
    """The server said no and will say no again. ``remedy`` is what an administrator can do."""

    def __init__(self, what: str, *, remedy: str | None = None) -> None:
        super().__init__(f"{what}; {remedy}" if remedy else what)
        self.what = what
        self.remedy = remedy


class WrongServer(Rejected):
    """The address answers, but the server's identity is not the one frozen in the grant."""

    def __init__(self, *, expected: str, found: str) -> None:
        super().__init__(
            f"this is server {found}, the grant was made on {expected}",
            remedy="point the address back, or declare the old server gone",
        )


class ForeignUser(AdapterError):
    """A user of that name has the mark of another ledger, or none. The first is never touched; the second is only ever ended, by ``drop_user``."""

    def __init__(self, username: str, found: str) -> None:
        super().__init__(f"the user {username} is not ours: {found}")
        self.username = username


class LoginRefused(AdapterError):
    """The server does not let this user in with this password."""


class Login(Protocol):
    """One open login of a temporary user."""

    def is_alive(self) -> bool:
        """Whether the server still does what this very login asks of it."""

    def close(self) -> None:
        """Hang up; never raises."""


class Adapter(Protocol):
    """The verbs of an engine. Each may be repeated after a crash at any point; each raises only ``AdapterError``.

    ``label`` is the engine's name as people write it; ``enforces`` what such a server ends by itself without any
    set-up of its own (``Health.enforced`` has what one really does).
    """

    label: ClassVar[str]
    enforces: ClassVar[Enforced]

    def __init__(self, target: Target, secrets: Secrets) -> None:
        """Hold what is needed; open nothing."""

    def check(self, levels: Sequence[Level] = ()) -> Health:
        """Reachable, version, identity, our rights one by one, each level's roles, what the server enforces; raises Unreachable or Rejected when it cannot be asked at all."""

    def identity(self) -> str:
        """What the server says of itself; stays the same over restarts, differs after a restore elsewhere."""

    def create_user(self, spec: UserSpec) -> None:
        """Make it so, also when half made: after it the user can log in with this password and has this level and no more. Raises NotOurs."""

    def set_password(self, username: str, password: str) -> None:
        """Of a user that is there and ours; raises Rejected when it is absent, never makes one. Open sessions live on."""

    def set_expiry(self, username: str, remaining: float) -> None:
        """Move the end on the server to its now plus ``remaining`` seconds, where it has one."""

    def drop_user(self, username: str, level: Level) -> Removal:
        """End sessions, block the login, end sessions to zero (replicas too), drop, read back. Absent is success and said so.

        The caller guarantees that the user is its own: the name and the server come from its ledger, with the start on record, or
        ``list_users`` showed the user with the mark of that ledger. A user whose mark is missing or cannot be read is ended too.
        Raises NotOurs where the mark names another ledger, Blocked with whoever holds the end up.
        """

    def list_users(self) -> list[ManagedUser]:
        """All whose name matches the pattern, each with the ledger its mark names."""

    def activity(self, usernames: Sequence[str]) -> list[Activity]:
        """Sessions now, and statements where the server counts them."""

    def endpoint(self, level: Level) -> Endpoint:
        """Where a user of this level logs in; no connection is made."""

    def login(self, username: str, password: str, level: Level) -> Login:
        """Log in as that user, at the address of the admin URL: the proof that ``doctor --try`` gives. Raises LoginRefused or Unreachable."""


def username_pattern(prefix: str) -> re.Pattern[str]:
    """Names we make: ``<prefix><request>_<who>_<4 of the key>``, at most 32 of ``[a-z0-9_]``. Matching alone does not make a user ours."""
    return re.compile(rf"(?=.{{1,{USERNAME_MAX}}}\Z){re.escape(prefix)}[1-9][0-9]*_[a-z0-9][a-z0-9_]*_[a-z0-9]{{4}}")


def make_username(prefix: str, *, request_id: int, who: str, key: str) -> str:
    """A name a DBA can trace to its request. ``who`` is any display name; what is not ``[a-z0-9]`` is dropped."""
    tail = key[:4]
    person = re.sub(r"[^a-z0-9]+", "_", who.lower()).strip("_") or "user"
    room = USERNAME_MAX - len(f"{prefix}{request_id}__{tail}")
    return f"{prefix}{request_id}_{person[:room].strip('_') or 'u'}_{tail}"


def scrub(text: str, *secrets: str) -> str:
    """``text`` without any of ``secrets`` and without the password part of any URL in it."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "…")
    return re.sub(r"(://[^\s:/@]*:)[^\s@]*@", r"\1…@", text)
