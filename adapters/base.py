"""The interface between dbaccess and a database engine: the ``Adapter`` protocol, its records and its errors.

An adapter creates a database user for a limited time, drops the user, and reads back from the server that it is gone.

What every adapter guarantees:

- It is synchronous; the caller runs it in a thread. It may be called from several threads at once.
- It holds no connection between calls, except one per server in the process for ends, so that users who fill the server delay no end.
- Each connection has time limits for connecting and for each statement.
- Every verb (a method of ``Adapter``) may be repeated after a crash at any point.
- It raises only ``AdapterError``, and no error contains a secret.
- It imports nothing from ``bot`` or ``storage``.

Errors::

    AdapterError
     ├─ ServerDown       no usable answer: try again later
     ├─ Blocked          the server answers, but a lock or a session that does not end delays this step
     ├─ Rejected         the server or the adapter refuses, and will refuse again
     │   └─ WrongServer  the server is not the one on which the grant was made
     ├─ ForeignUser      the user has the mark of another ledger, or no mark
     └─ LoginRefused     the server does not let a temporary user in
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar, Protocol, Self

from adapters.level_state import LevelState

CREATE_LIMIT_SECONDS = 10.0
"""The time limit of each statement of ``create_user``. After this time, a create statement with a lost answer has run or never runs."""


@dataclass(frozen=True, kw_only=True)
class PrivilegeGrant:
    """One entry of a level's ``grants``: privileges on objects, in the terms of the engine, for example ``SELECT`` on a table."""

    on: tuple[str, ...]
    privileges: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Level:
    """An access level: ``roles`` that exist on the server, or ``grants`` for which the adapter keeps a managed role.

    ``database`` is set if the level applies to another database of the server than ``Target.connect.database``.
    ``settings`` become settings of the user, for example ``statement_timeout``. ``set_role``: the user may act as the level's roles
    (PostgreSQL 16 and later, where a user may not by default).
    """

    name: str
    roles: tuple[str, ...] = ()
    grants: tuple[PrivilegeGrant, ...] = ()
    database: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    set_role: bool = False
    description: str = ""

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """The level that a request has frozen (``dataclasses.asdict``). Raises TypeError for an unknown key."""
        parts = dict(value)
        parts["roles"] = tuple(parts.get("roles") or ())
        parts["grants"] = tuple(
            PrivilegeGrant(on=tuple(g["on"]), privileges=tuple(g["privileges"])) for g in parts.get("grants") or ()
        )
        return cls(**parts)


@dataclass(frozen=True, kw_only=True)
class Tls:
    """``mode`` is disable, prefer, require, verify-ca or verify-full. ``ca`` is the path of a PEM file on the bot's machine."""

    mode: str
    ca: str | None = None


@dataclass(frozen=True, kw_only=True)
class Connect:
    """The address for the requester, if it differs from the bot's address. The adapter takes a part that is None from the admin URL and ``Target.tls``."""

    host: str | None = None
    port: int | None = None
    database: str | None = None
    tls: str | None = None
    note: str | None = None


@dataclass(frozen=True, kw_only=True)
class Target:
    """One database of one server. The approval freezes it in the request, with everything that an adapter needs later to find the user.

    ``admin_url`` and ``replicas`` are references (``env:NAME`` or ``file:/path``) and never secrets. Users are named with
    ``prefix`` and marked with ``ledger``. ``admin_role`` is a role that the bot switches to. ``ops_schema`` is the
    schema or database for the adapter's own objects, if the engine has such objects.

    ``identity`` is what ``Adapter.identity`` returned at START, and None before START. Once it is set, the adapter
    compares every connection with it and raises WrongServer for another server.
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
        """The target that a request has frozen (``dataclasses.asdict``). Raises KeyError or TypeError for a missing or unknown key."""
        parts = dict(value)
        parts["tls"] = Tls(**parts["tls"])
        parts["connect"] = Connect(**parts["connect"])
        parts["replicas"] = tuple(parts["replicas"])
        return cls(**parts)


@dataclass(frozen=True, kw_only=True)
class Secrets:
    """The admin URLs behind a target's references, resolved for one job. They are never printed or stored.

    ``replicas`` has one URL for each of ``Target.replicas``, in the same order. A URL is empty if its reference could not be resolved.
    """

    admin_url: str = field(repr=False)
    replicas: tuple[str, ...] = field(default=(), repr=False)


@dataclass(frozen=True, kw_only=True)
class UserSpec:
    """The user to create.

    ``remaining`` is the user's lifetime in seconds from now. The adapter adds it to the server's own clock, so a wrong clock on the
    bot's machine does not move the expiry.
    """

    username: str
    password: str = field(repr=False)
    level: Level
    remaining: float
    request_id: int


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """The address where the requester logs in, and the command for the login. ``engine`` is the adapter's ``label``."""

    host: str
    port: int
    database: str
    tls: str
    note: str | None
    engine: str
    command: str
    """The command has the placeholder ``{username}``. It also has ``{password}``, unless it prompts for the password."""

    def paste(self, username: str, password: str) -> str:
        """The complete command. Usernames and passwords consist of ``[A-Za-z0-9_-]``, so a shell needs no quotes around them."""
        return self.command.replace("{username}", username).replace("{password}", password)


@dataclass(frozen=True, kw_only=True)
class Removal:
    """The result of ``drop_user``, as read back from the server.

    ``was_absent`` is True where there was no such user when the drop began: an earlier run ended it, or somebody else did. ``sessions_ended`` counts distinct sessions.
    ``left_behind`` names the objects that the user made (``schema.name (table)``), and ``left_with`` is their owner now, for example the
    user's own role under another name. ``left_count`` is the number of objects, where more are left than are named.
    ``read_back_at`` is the server's clock at the last check. ``notes`` are sentences for the reader of the receipt, for example
    about a replica that the target does not name.
    """

    was_absent: bool
    sessions_ended: int
    left_behind: tuple[str, ...]
    left_with: str | None
    read_back_at: datetime
    notes: tuple[str, ...] = ()
    left_count: int = 0


@dataclass(frozen=True, kw_only=True)
class UserToDrop:
    """A user to drop. ``before`` is the level's state before the user was created; the notes of the removal name the differences."""

    username: str
    level: Level
    before: LevelState | None = None


@dataclass(frozen=True, kw_only=True)
class ManagedUser:
    """A user on the server whose name matches ``username_pattern``.

    ``ledger`` is the ledger that created the user, and ``request_id`` is the request's number there. Both come from the user's mark. Without a
    mark, both are None. ``expires_at`` is the end that the server or the mark stores. It is None if neither stores one.
    """

    username: str
    ledger: str | None
    request_id: int | None
    expires_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Activity:
    """The present activity of a user.

    ``sessions`` counts open sessions on all nodes, ``clients`` are their addresses. ``statements`` is the number of statements that the server
    counted for the user. It is None if the server does not count them.
    """

    username: str
    sessions: int
    clients: tuple[str, ...] = ()
    statements: int | None = None


class Enforced(StrEnum):
    """The server's own end of a user at its expiry, without the bot: nothing, new logins, or logins and open sessions."""

    NOTHING = "nothing"
    LOGIN = "login"
    SESSIONS = "login and sessions"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One result of ``check``. ``what`` is a sentence; ``remedy`` is the exact statement or step that fixes it, where there is one.

    A finding that is not ``is_ok`` is a problem if ``is_fatal``, else a warning. ``level`` is the name of the level that it is about, None
    for the whole server. ``on_card`` is a sentence for the people who decide: what of such a grant may outlive it.
    """

    is_ok: bool
    is_fatal: bool
    what: str
    remedy: str | None = None
    level: str | None = None
    on_card: str | None = None


@dataclass(frozen=True, kw_only=True)
class Health:
    """The result of ``check``. ``identity`` is empty where the server has none yet; ``enforced`` was read from this server."""

    version: str
    identity: str
    enforced: Enforced
    findings: tuple[Finding, ...]

    @property
    def problems(self) -> tuple[Finding, ...]:
        """The findings that prevent new grants. They do not prevent ``drop_user``."""
        return tuple(f for f in self.findings if not f.is_ok and f.is_fatal)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings that do not prevent new grants. They make access too wide or its end less certain."""
        return tuple(f for f in self.findings if not f.is_ok and not f.is_fatal)


class AdapterError(Exception):
    """Base class of every error that an adapter raises. Its text never contains a secret."""


class ServerDown(AdapterError):
    """No usable answer: no connection, a time limit, or a state of the server that may pass. Try again later.

    ``is_ambiguous`` is True where the statement may have run although its answer is missing.
    """

    def __init__(self, what: str, *, is_ambiguous: bool = False) -> None:
        super().__init__(what)
        self.what = what
        self.is_ambiguous = is_ambiguous


class Blocked(AdapterError):
    """The server answers, but a lock of another session, or a killed session that has not ended, delays this step. Other users are not affected.

    ``what`` names that session where the server shows it. ``remedy`` is the statement that ends the delay, where there is one.
    """

    def __init__(self, what: str, *, remedy: str | None = None) -> None:
        super().__init__(f"{what}; {remedy}" if remedy else what)
        self.what = what
        self.remedy = remedy


class Rejected(AdapterError):
    """The server or the adapter refuses, and a retry will not help. ``remedy`` is what an administrator can do, where something helps."""

    def __init__(self, what: str, *, remedy: str | None = None) -> None:
        super().__init__(f"{what}; {remedy}" if remedy else what)
        self.what = what
        self.remedy = remedy


class WrongServer(Rejected):
    """The server at this address has another identity than the one in ``Target.identity``."""

    def __init__(self, *, expected: str, found: str) -> None:
        super().__init__(
            f"this is server {found}, the grant was made on {expected}",
            remedy="point the address back, or declare the old server gone",
        )


class ForeignUser(AdapterError):
    """There is a user of that name with the mark of another ledger, or without a mark.

    No verb changes or drops a user of another ledger. Only ``drop_user`` may drop a user without a mark; no verb changes one.
    """

    def __init__(self, username: str, found: str) -> None:
        super().__init__(f"the user {username} does not belong to this ledger: {found}")
        self.username = username


class LoginRefused(AdapterError):
    """The server does not let this user in with this password."""


class Login(Protocol):
    """One open login of a temporary user."""

    def is_alive(self) -> bool:
        """Whether the server still answers on this connection. Opens no new connection. Does not raise."""

    def close(self) -> None:
        """Close the connection. Does not raise."""


class Adapter(Protocol):
    """The verbs of an engine. Each may be repeated after a crash at any point, and each raises only ``AdapterError``.

    A verb that connects raises ServerDown if the server gives no usable answer, Rejected if the server refuses, and WrongServer if the
    server's identity is not that of the target. The docstrings below name only further errors.

    ``label`` is the engine's name that people read. ``enforces`` is what a server of this engine ends by itself without set-up.
    ``Health.enforced`` is what one checked server ends by itself.
    """

    label: ClassVar[str]
    enforces: ClassVar[Enforced]

    def __init__(self, target: Target, secrets: Secrets) -> None:
        """Open no connection. Raises Rejected for an admin URL that cannot be read; the error names the reference and never the URL."""

    def check(self, levels: Sequence[Level] = ()) -> Health:
        """Report the version, the identity, each right of the bot, each of ``levels``, and what the server ends by itself. Changes nothing.

        If a reachable server is not fit for use, the verb raises no error. The findings say why, each with a remedy.
        """

    def identity(self) -> str:
        """A string that identifies the server. It stays the same after a restart, and no other server has it.

        If an engine has no such string, the first call stores a random string on the server.
        """

    def level_state(self, level: Level) -> LevelState:
        """Describe what a user of this level could change in a way that outlives the user. Empty where the engine has nothing of the kind.

        The application stores it before the user is created and passes it to ``drop_user``.
        """

    def create_user(self, spec: UserSpec) -> None:
        """Create the user. If the user exists, complete or replace it.

        Afterwards the user can log in with this password, has this level and nothing else, and carries the mark of the ledger. Raises
        ForeignUser for a user of that name with another mark or none, and Rejected for a name that does not match ``username_pattern``
        or a level that cannot be granted. After an error the user may exist, and ``drop_user`` removes it.
        """

    def set_password(self, username: str, password: str) -> None:
        """Replace the password. Open sessions stay.

        Raises Rejected where the user is absent, and never creates it. Raises ForeignUser as ``create_user`` does.
        """

    def set_expiry(self, username: str, remaining: float) -> None:
        """Move the expiry to the server's clock plus ``remaining`` seconds. If the server enforces an expiry, a negative value blocks the login immediately.

        Open sessions stay. Raises Rejected where the user is absent, and never creates it. Raises ForeignUser as ``create_user`` does.
        """

    def drop_user(self, username: str, level: Level, before: LevelState | None = None) -> Removal:
        """End the user's sessions, block its login, end its sessions on all replicas until none is left, drop it, and read everything back.

        After a return, the user and its sessions are gone. For an absent user, it returns ``was_absent``. It ignores the version of the
        server and the findings of ``check``. ``before`` is the level's state before the user was created; the notes name the differences.

        The caller guarantees one of two facts: its ledger stored START for this user on this server, or ``list_users`` showed the mark of its
        ledger. So the verb also drops a user whose mark is missing or unreadable. Raises ForeignUser if the mark names another ledger, and
        Blocked if a lock or a session that does not end delays the drop.
        """

    def block_users(self, usernames: Sequence[str]) -> frozenset[str]:
        """Block the logins of these users and end their sessions, over one connection. Nothing is dropped.

        Returns the names for which both was read back: the login is refused, and no session is left on the primary. An absent user counts
        as blocked. The application calls it for ends that fall together (about 100 names a call) and as the probe of a server that did not
        answer; each user is dropped by ``drop_user`` afterwards. A user that holds a step up, or that has the mark of another ledger, is left
        out and delays none of the others: every step has a short time limit. Never raises Blocked or ForeignUser.
        """

    def drop_blocked_users(self, users: Sequence[UserToDrop]) -> Mapping[str, Removal]:
        """Drop those of these blocked users that have nothing but their login, over one connection. Username → removal, as read back.

        The application calls it for ends that fall together, after ``block_users``. A user that needs more than that is left as it is, and so is
        one that can still log in, has a session, is absent, or has no mark or the mark of another ledger; ``drop_user`` ends it. No user delays another:
        every step has a short time limit. An engine without such a quick way returns nothing.
        """

    def end_by_hand(self, username: str) -> tuple[str, ...]:
        """The statements by which an administrator ends this user without dbaccess, to paste into the engine's own client. Opens no connection."""

    def compare_users(self, levels: Mapping[str, Level]) -> dict[str, tuple[str, ...]]:
        """Username → what differs from a user that ``create_user`` made with this level and that nobody has changed, as sentences. Changes nothing.

        The comparison covers what the engine can show: rights given by hand, memberships, attributes, limits. Users without a difference and
        absent users are left out. Passwords and expiries are not compared (``list_users`` reports the expiry).
        """

    def refresh_levels(self, levels: Sequence[Level]) -> list[str]:
        """Make the managed role of each level equal to the level again, where users have it. Returns a sentence for each change.

        Levels without a managed role, and engines without such roles, have nothing to do. An error on one level is a sentence and does
        not stop the others. No end needs it.
        """

    def drop_leftovers(self) -> list[str]:
        """Drop what ended users left on the server and what nobody needs any more, such as managed roles without a user.

        Returns a sentence for each thing that was dropped. An error on one thing does not stop the others. No end needs this verb.
        """

    def list_users(self) -> list[ManagedUser]:
        """All users whose name matches ``username_pattern``, including users of other ledgers and users without a mark."""

    def activity(self, usernames: Sequence[str]) -> list[Activity]:
        """One entry for each name, in the same order. A name without a session or without a user has a count of 0."""

    def endpoint(self, level: Level) -> Endpoint:
        """Returns the address where a user of this level logs in. Opens no connection."""

    def login(self, username: str, password: str, level: Level) -> Login:
        """Log in as the user at the address of the admin URL. ``doctor --try`` tests a temporary user with it. Raises LoginRefused."""
