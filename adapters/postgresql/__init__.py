"""The adapter for PostgreSQL 15 and later: temporary users, and their revocation, read back from the server.

The server ends the login by itself (``VALID UNTIL``, by its own clock). dbaccess ends the open sessions. A server older than 15 gets no
new grants; users that exist there are still listed and ended.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import ClassVar
from urllib.parse import quote

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
from adapters.postgresql import block, compare, drop_blocked, held, left_behind, revoke, standbys, users
from adapters.postgresql.check import rights
from adapters.postgresql.connection import MARK, PostgreSQLServer, identity
from adapters.postgresql.level import level_state, managed_roles
from adapters.postgresql.level.grants import level_database
from adapters.postgresql.sessions import PostgreSQLLogin, log_in
from adapters.usernames import username_pattern

DEFAULT_PORT = 5432


class PostgreSQL:
    """Implements ``adapters.base.Adapter``."""

    label: ClassVar[str] = "PostgreSQL"
    enforces: ClassVar[Enforced] = Enforced.LOGIN

    def __init__(self, target: Target, secrets: Secrets) -> None:
        self.target = target
        self.server = PostgreSQLServer(target, secrets)

    def check(self, levels: Sequence[Level] = ()) -> Health:
        """See ``rights.check``."""
        return rights.check(self.server, levels)

    def identity(self) -> str:
        """``system_identifier``. A connection that this adapter made for something else has read it already."""
        if self.server.identity is not None:
            return self.server.identity
        with self.server.session() as connection:
            return identity(connection)

    def level_state(self, level: Level) -> LevelState:
        """See ``level_state.level_state``."""
        return level_state.level_state(self.server, level)

    def create_user(self, spec: UserSpec) -> None:
        """See ``users.create``: one transaction creates the complete user, or none."""
        users.create(self.server, spec)

    def set_password(self, username: str, password: str) -> None:
        """The server receives a SCRAM verifier, never the password."""
        users.set_password(self.server, username, password)

    def set_expiry(self, username: str, remaining: float) -> None:
        """Sets VALID UNTIL, by the server's clock."""
        users.set_expiry(self.server, username, remaining)

    def drop_user(self, username: str, level: Level, before: LevelState | None = None) -> Removal:
        """See ``revoke.drop``. The level is compared with ``before`` when the user is gone."""
        removal = revoke.drop(self.server, username, level)
        return replace(removal, notes=(*removal.notes, *level_state.changes_of_level(self.server, level, before)))

    def block_users(self, usernames: Sequence[str]) -> frozenset[str]:
        """See ``block.block``. Sessions on standbys are left to ``drop_user``."""
        return block.block(self.server, usernames)

    def drop_blocked_users(self, users: Sequence[UserToDrop]) -> Mapping[str, Removal]:
        """See ``drop_blocked.drop_blocked``."""
        return drop_blocked.drop_blocked(self.server, users)

    def end_by_hand(self, username: str) -> tuple[str, ...]:
        """See ``block.statements_by_hand``."""
        return block.statements_by_hand(username)

    def compare_users(self, levels: Mapping[str, Level]) -> dict[str, tuple[str, ...]]:
        """See ``compare.differences``."""
        return compare.differences(self.server, levels)

    def refresh_levels(self, levels: Sequence[Level]) -> list[str]:
        """See ``managed_roles.refresh``: new tables of ``schema.*`` reach live users."""
        return managed_roles.refresh(self.server, levels)

    def drop_leftovers(self) -> list[str]:
        """Drops left roles of this ledger that own nothing any more, and managed roles without a user."""
        with self.server.session() as connection:
            return [
                *left_behind.drop_empty(self.server, connection),
                *managed_roles.drop_all_unused(self.server, connection),
            ]

    def list_users(self) -> list[ManagedUser]:
        """All users whose name matches the pattern. The caller decides by ``ledger`` whose they are."""
        held.ensure(self.server)
        with self.server.session() as connection:
            rows = connection.execute(
                "SELECT rolname, shobj_description(oid, 'pg_authid'), "
                + users.EXPIRES_AT
                + " FROM pg_roles WHERE starts_with(rolname, %s) ORDER BY 1",
                (self.target.prefix,),
            ).fetchall()
            pattern = username_pattern(self.target.prefix)
            return [_managed(name, comment, until) for name, comment, until in rows if pattern.fullmatch(name)]

    def activity(self, usernames: Sequence[str]) -> list[Activity]:
        """Present sessions, also on the standbys. PostgreSQL itself counts no statements per user."""
        names = list(usernames)
        with (
            self.server.session() as connection,
            standbys.on_each_standby(
                self.server, connection, lambda standby: standbys.count_sessions_on(standby, names)
            ) as on_standbys,
        ):
            counts = standbys.count_sessions(connection, names)
        counts += [count for each in on_standbys for count in each]
        return [_activity(name, [count for count in counts if count.username == name]) for name in names]

    def endpoint(self, level: Level) -> Endpoint:
        """The address for the requester. The command contains the password in its URL, as psql accepts it."""
        configured, known = self.target.connect, self.server.conninfo
        host = configured.host or _first(known.get("host")) or "localhost"
        port = configured.port or int(_first(known.get("port")) or DEFAULT_PORT)
        database = level_database(self.server, level)
        tls = configured.tls or self.target.tls.mode
        url_host = f"[{host}]" if ":" in host else quote(host, safe=".-")
        url = f"postgresql://{{username}}:{{password}}@{url_host}:{port}/{quote(database, safe='')}?sslmode={tls}"
        return Endpoint(
            host=host,
            port=port,
            database=database,
            tls=tls,
            note=configured.note,
            engine=self.label,
            command=f'psql "{url}"',
        )

    def login(self, username: str, password: str, level: Level) -> PostgreSQLLogin:
        """See ``sessions.log_in``."""
        return log_in(self.server, username, password, level)


def _first(listed: object) -> str:
    """The first of several hosts or ports in the admin URL."""
    return str(listed or "").split(",")[0]


def _activity(username: str, counts: Sequence[standbys.SessionCount]) -> Activity:
    clients = sorted({client for count in counts for client in count.clients})
    return Activity(username=username, sessions=sum(count.sessions for count in counts), clients=tuple(clients))


def _managed(name: str, comment: str | None, until: datetime | None) -> ManagedUser:
    mark = MARK.fullmatch(comment or "")
    return ManagedUser(
        username=name,
        ledger=mark[1] if mark else None,
        request_id=int(mark[2]) if mark else None,
        expires_at=until,
    )
