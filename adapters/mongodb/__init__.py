"""MongoDB 4.4 and later, as target: users in a database of their own, dropped first, then killed on every member.

The server ends nothing by itself: the end is dbaccess's alone.
"""

from __future__ import annotations

from collections.abc import Sequence
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
    username_pattern,
)
from adapters.mongodb import kill, revoke, rights, users
from adapters.mongodb.connection import DEFAULT_PORT, UNMARKED, Server, identity, mark
from adapters.mongodb.levels import level_database
from adapters.mongodb.login import Login, as_user
from adapters.mongodb.lookalikes import refuse_where_roles_limit_nothing

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
        """Each right one by one, with the statement that would give it."""
        return rights.check(self.server, levels)

    def identity(self) -> str:
        """The mark dbaccess leaves on the server, made when there is none and roles do limit there: see ``connection.identity``."""
        with self.server.session() as connection:
            if identity(connection, self.server.users) == UNMARKED:
                refuse_where_roles_limit_nothing(self.server)
            return mark(connection, self.server.users)

    def create_user(self, spec: UserSpec) -> None:
        """One command: there is a user with all it should have, or none."""
        users.create(self.server, spec)

    def set_password(self, username: str, password: str) -> None:
        """The password crosses the wire as it is; the server's log shows ``xxx``."""
        users.set_password(self.server, username, password)

    def set_expiry(self, username: str, remaining: float) -> None:
        """In the mark, for those who look: nothing on the server acts on it."""
        users.set_expiry(self.server, username, remaining)

    def drop_user(self, username: str, level: Level) -> Removal:
        """See ``revoke``."""
        return revoke.drop(self.server, username, level)

    def list_users(self) -> list[ManagedUser]:
        """All of our pattern; whose they are is for the caller to judge by ``ledger``."""
        with self.server.session() as connection:
            documents = connection.run(self.server.users, {"usersInfo": 1})["users"]
        pattern = username_pattern(self.target.prefix)
        found = [users.of(document) for document in documents if pattern.fullmatch(document["user"])]
        return [
            ManagedUser(username=f.username, ledger=f.ledger, request_id=f.request_id, expires_at=f.expires_at)
            for f in found
        ]

    def activity(self, usernames: Sequence[str]) -> list[Activity]:
        """Connections that show these users now, on every member; after 8.0 idle ones show nobody. MongoDB counts no statements per user."""
        with self.server.session() as connection:
            seen = kill.seen_now(self.server, connection, list(usernames))
        return [
            Activity(
                username=name,
                sessions=len({place for user, place, _ in seen if user == name}),
                clients=tuple(sorted({client for user, _, client in seen if user == name and client})),
            )
            for name in usernames
        ]

    def endpoint(self, level: Level) -> Endpoint:
        """What the requester is told; the command asks for the password, which would stand in the process list."""
        told, parts = self.target.connect, urlsplit(self.server.url)
        first = self.server.routers()[0]
        is_srv = parts.scheme == "mongodb+srv" and told.host is None
        host = told.host or first.rpartition(":")[0].strip("[]")
        port = told.port or int(first.rpartition(":")[2] or DEFAULT_PORT)
        tls = told.tls or self.target.tls.mode
        database = level_database(self.server, level)
        place = host if is_srv else f"{f'[{host}]' if ':' in host else host}:{port}"
        options = f"authSource={quote(self.server.users, safe='')}{TLS_OPTIONS[tls]}"
        url = f"{'mongodb+srv' if is_srv else 'mongodb'}://{{username}}@{place}/{quote(database, safe='')}?{options}"
        return Endpoint(
            host=host,
            port=port,
            database=database,
            tls=tls,
            note=told.note,
            engine=self.label,
            command=f'mongosh "{url}"',
        )

    def login(self, username: str, password: str, level: Level) -> Login:
        """See ``login``. MongoDB logs in to the database of the users, whatever the level is about."""
        del level
        return as_user(self.server, username, password)
