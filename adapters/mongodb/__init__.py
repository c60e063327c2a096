"""Temporary users on MongoDB 7.0 and later.

The users live in a database of their own. An end drops the user, then ends what it runs on every member. The server ends nothing by
itself: only dbaccess ends a grant.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import ClassVar
from urllib.parse import quote, urlsplit

from adapters.base import (
    Activity,
    Endpoint,
    Enforced,
    Health,
    Level,
    ManagedUser,
    Removal,
    Secrets,
    Target,
    UserSpec,
    UserToDrop,
)
from adapters.level_state import LevelState
from adapters.mongodb import blocking, comparing, rights, sessions, users
from adapters.mongodb.connection import DEFAULT_PORT, UNMARKED, MongoDBLogin, Server, identity, log_in, mark
from adapters.mongodb.levels import drop_unused_roles, level_database
from adapters.mongodb.state import describe
from adapters.mongodb.supported import refuse_unenforced_roles, refuse_unsupported
from adapters.usernames import username_pattern

TLS_OPTIONS = {
    "disable": "",
    "prefer": "",
    "require": "&tls=true&tlsAllowInvalidCertificates=true",
    "verify-ca": "&tls=true&tlsAllowInvalidHostnames=true",
    "verify-full": "&tls=true",
}


class MongoDB:
    """Implements ``adapters.base.Adapter``."""

    label: ClassVar[str] = "MongoDB"
    enforces: ClassVar[Enforced] = Enforced.NOTHING

    def __init__(self, target: Target, secrets: Secrets) -> None:
        self.target = target
        self.server = Server(target, secrets)

    def check(self, levels: Sequence[Level] = ()) -> Health:
        """Each right one by one, with the statement that grants it. A server before 7.0 is a problem."""
        return rights.check(self.server, levels)

    def identity(self) -> str:
        """The mark of the server (see ``connection.identity``). It is created where there is none, the version is supported and the server enforces roles."""
        with self.server.session() as connection:
            if identity(connection, self.server.users) == UNMARKED:
                refuse_unsupported(connection)
                refuse_unenforced_roles(self.server)
            return mark(connection, self.server.users)

    def level_state(self, level: Level) -> LevelState:
        """See ``state.describe``. Views and stored functions need rights on the level's database that the bot may lack."""
        return describe(self.server, level)

    def create_user(self, spec: UserSpec) -> None:
        """One command: the user has all its roles, or does not exist. Raises Rejected on a server before 7.0."""
        users.create(self.server, spec)

    def set_password(self, username: str, password: str) -> None:
        """The password is sent in plain text within the connection; the server's log shows ``xxx``."""
        users.set_password(self.server, username, password)

    def set_expiry(self, username: str, remaining: float) -> None:
        """Writes the end into the mark for people to read: the server does not act on it."""
        users.set_expiry(self.server, username, remaining)

    def drop_user(self, username: str, level: Level, before: LevelState | None = None) -> Removal:
        """See ``users.drop``. Works on servers of every version."""
        return users.drop(self.server, username, level, before)

    def block_users(self, usernames: Sequence[str]) -> frozenset[str]:
        """See ``blocking``."""
        return blocking.block(self.server, usernames)

    def drop_blocked_users(self, users: Sequence[UserToDrop]) -> Mapping[str, Removal]:
        """There is no quick way: ``drop_user`` drops each."""
        del users
        return {}

    def end_by_hand(self, username: str) -> tuple[str, ...]:
        """For mongosh. A drop reaches every member; what the user runs is ended on one member, so the second and third are for each of them."""
        owner = json.dumps({"user": username, "db": self.server.users})
        named = json.dumps({"$match": {"effectiveUsers": json.loads(owner)}})
        return (
            f"db.getSiblingDB({json.dumps(self.server.users)}).dropUser({json.dumps(username)})",
            f"db.adminCommand({{killAllSessions: [{owner}]}})",
            f'db.getSiblingDB("admin").aggregate([{{$currentOp: {{allUsers: true}}}}, {named}]).forEach(op => db.killOp(op.opid))',
        )

    def compare_users(self, levels: Mapping[str, Level]) -> dict[str, tuple[str, ...]]:
        """See ``comparing.compare``."""
        return comparing.compare(self.server, levels)

    def refresh_levels(self, levels: Sequence[Level]) -> list[str]:
        """See ``comparing.refresh``."""
        return comparing.refresh(self.server, levels)

    def drop_leftovers(self) -> list[str]:
        """Managed roles that no user has. Nothing where the bot may not list the users of all databases (``viewUser`` on the cluster)."""
        with self.server.session() as connection:
            return drop_unused_roles(self.server, connection)

    def list_users(self) -> list[ManagedUser]:
        """All users whose names dbaccess makes, of every ledger: the caller compares ``ledger``. Works on servers of every version."""
        with self.server.session() as connection:
            documents = connection.run(self.server.users, {"usersInfo": 1})["users"]
            pattern = username_pattern(self.target.prefix)
            found = [users.from_document(document) for document in documents if pattern.fullmatch(document["user"])]
        return [
            ManagedUser(username=f.username, ledger=f.ledger, request_id=f.request_id, expires_at=f.expires_at)
            for f in found
        ]

    def activity(self, usernames: Sequence[str]) -> list[Activity]:
        """Connections that show these users now, on every member. Servers after 8.0 show no user on idle connections. MongoDB counts no statements per user."""
        with self.server.session() as connection:
            seen = sessions.current(self.server, connection, list(usernames))
        return [
            Activity(
                username=name,
                sessions=len({connected for user, connected, _ in seen if user == name}),
                clients=tuple(sorted({client for user, _, client in seen if user == name and client})),
            )
            for name in usernames
        ]

    def endpoint(self, level: Level) -> Endpoint:
        """The address for the requester. The command asks for the password: an argument would show in the process list."""
        connect, parts = self.target.connect, urlsplit(self.server.url)
        first = self.server.addresses()[0]
        is_srv = parts.scheme == "mongodb+srv" and connect.host is None
        host = connect.host or first.rpartition(":")[0].strip("[]")
        port = connect.port or int(first.rpartition(":")[2] or DEFAULT_PORT)
        tls = connect.tls or self.target.tls.mode
        database = level_database(self.server, level)
        address = host if is_srv else f"{f'[{host}]' if ':' in host else host}:{port}"
        options = f"authSource={quote(self.server.users, safe='')}{TLS_OPTIONS[tls]}"
        url = f"{'mongodb+srv' if is_srv else 'mongodb'}://{{username}}@{address}/{quote(database, safe='')}?{options}"
        return Endpoint(
            host=host,
            port=port,
            database=database,
            tls=tls,
            note=connect.note,
            engine=self.label,
            command=f'mongosh "{url}"',
        )

    def login(self, username: str, password: str, level: Level) -> MongoDBLogin:
        """MongoDB checks the password in the users' database, for every level."""
        del level
        return log_in(self.server, username, password)
