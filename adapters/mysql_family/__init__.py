"""What MySQL and MariaDB have in common: users that the server's own event ends, and a revocation that kills.

``adapters.mysql`` and ``adapters.mariadb`` say what differs (``dialect``).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import ClassVar

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
from adapters.mysql_family import revoke, rights, users
from adapters.mysql_family.activity import activity
from adapters.mysql_family.connection import Server
from adapters.mysql_family.dialect import Dialect
from adapters.mysql_family.levels import level_database
from adapters.mysql_family.login import Login, as_user


class MySQLFamily:
    """Implements ``adapters.base.Adapter``, but for what ``dialect`` says."""

    label: ClassVar[str]
    enforces: ClassVar[Enforced]
    dialect: ClassVar[Dialect]
    grace: ClassVar[timedelta] = timedelta(seconds=60)
    """How long after the end the server's own event acts: dbaccess itself comes first."""

    def __init__(self, target: Target, secrets: Secrets) -> None:
        self.target = target
        self.server = Server(target, secrets, self.dialect, self.grace)

    def check(self, levels: Sequence[Level] = ()) -> Health:
        """Each right one by one, with the statement that would give it."""
        return rights.check(self.server, levels)

    def identity(self) -> str:
        """The server's own number."""
        with self.server.session() as connection:
            return self.server.identity(connection)

    def create_user(self, spec: UserSpec) -> None:
        """Locked until all of it is made."""
        users.create(self.server, spec)

    def set_password(self, username: str, password: str) -> None:
        """See ``password_clause`` of the dialect for what the server is sent."""
        users.set_password(self.server, username, password)

    def set_expiry(self, username: str, remaining: float) -> None:
        """Moves the event, by the server's clock."""
        users.set_expiry(self.server, username, remaining)

    def drop_user(self, username: str, level: Level) -> Removal:
        """See ``revoke``."""
        return revoke.drop(self.server, username, level)

    def list_users(self) -> list[ManagedUser]:
        """All of our pattern; whose they are is for the caller to judge by ``ledger``."""
        with self.server.session() as connection:
            found = users.look(self.server, connection)
        pattern = username_pattern(self.target.prefix)
        return [
            ManagedUser(username=f.username, ledger=f.ledger, request_id=f.request_id, expires_at=f.expires_at)
            for f in found
            if pattern.fullmatch(f.username)
        ]

    def activity(self, usernames: Sequence[str]) -> list[Activity]:
        """Sessions of now; statements where performance_schema may be read."""
        return activity(self.server, usernames)

    def endpoint(self, level: Level) -> Endpoint:
        """What the requester is told; the command holds the password as the client's users expect."""
        told, known = self.target.connect, self.server.address
        host, port = told.host or known.host, told.port or known.port
        database = level_database(self.server, level) or ""
        tls = told.tls or self.target.tls.mode
        command = self.dialect.command(host, port, database, tls)
        return Endpoint(
            host=host, port=port, database=database, tls=tls, note=told.note, engine=self.label, command=command
        )

    def login(self, username: str, password: str, level: Level) -> Login:
        """See ``login``."""
        return as_user(self.server, username, password, level)
