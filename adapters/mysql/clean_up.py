"""Clean-up after the end of a user: undo what certainly came from the user, and name the rest in notes for the receipt."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import pymysql

from adapters.base import AdapterError, Level
from adapters.level_state import LevelState
from adapters.mysql import level_facts
from adapters.mysql.connection import MySQLConnection
from adapters.mysql.errors import MAY_NOT_RECOVER, UNKNOWN_XID, code
from adapters.mysql.level_facts import DEFINED, PREPARED
from adapters.mysql.levels import drop_managed_role_if_unused
from adapters.mysql.proxies import revoke_granted_by
from adapters.mysql.server import Server

NAMED_AT_MOST = 8
"""So many left-behind objects and prepared transactions are named in a receipt."""


@dataclass(kw_only=True)
class CleanUp:
    """``before`` is the state of the level before the user existed, or None where nobody described it."""

    server: Server
    connection: MySQLConnection
    username: str
    level: Level
    before: LevelState | None
    _transactions: Sequence[str] = field(default=())

    def look_at_transactions(self) -> None:
        """Read the user's XA transactions: only while its session lives does the server show whose a transaction is. Not to know them is no error."""
        try:
            self._transactions = self.server.dialect.transactions_of(self.connection, self.username)
        except pymysql.MySQLError:
            self._transactions = ()

    def notes(self) -> Iterator[str]:
        """Clean up once the end is proven. An error becomes a note and does not fail the revocation."""
        steps: tuple[tuple[str, Callable[[], list[str]]], ...] = (
            ("its prepared XA transactions could not be rolled back", self._roll_back),
            ("prepared XA transactions could not be listed", self._prepared),
            ("objects that it left behind could not be listed", self._left_behind),
            ("the state of its level could not be compared", self._changes),
            ("PROXY that it granted could not be revoked", self._revoke_proxies),
            ("the managed role of its level may be left, and a later end drops it", self._drop_managed_role),
        )
        for failure, step in steps:
            try:
                yield from step()
            except (AdapterError, pymysql.MySQLError, OSError) as error:
                yield f"{failure} ({error.args[-1] if error.args else type(error).__name__})"

    def left_objects(self) -> list[str]:
        """Views, routines, triggers and events with this definer that the bot may see. They do nothing once the user is gone."""
        definers = [f"{self.username}@%"]
        return _bounded(
            [str(o) for o in level_facts.objects(self.server, self.connection, self.level.roles, definers=definers)]
        )

    def _left_behind(self) -> list[str]:
        return [f"left behind: {name}" for name in self.left_objects()]

    def _roll_back(self) -> list[str]:
        """Transactions that were prepared outlive the session. The others ended with it, and the server does not know their names any more."""
        done = list[str]()
        for xid in self._transactions:
            try:
                self.connection.run(f"XA ROLLBACK {xid}")
            except pymysql.MySQLError as error:
                if code(error) != UNKNOWN_XID:
                    raise
            else:
                done.append(f"its prepared XA transaction was rolled back: {xid}")
        return _bounded(done)

    def _prepared(self) -> list[str]:
        """Prepared transactions keep their locks, and anybody may commit them. The server does not say who made them once their session is gone."""
        try:
            found = self.server.dialect.prepared_transactions(self.connection)
        except pymysql.MySQLError as error:
            if code(error) != MAY_NOT_RECOVER:
                raise
            return []
        known = set(self.before.kinds.get(PREPARED, ())) if self.before else set()
        new = [xid for xid in found if not known.intersection(LevelState.of([(PREPARED, xid)]).kinds[PREPARED])]
        named = "; ".join(_bounded([f"XA ROLLBACK {xid}" for xid in new]))
        return [f"prepared XA transactions are open on this server, perhaps of this user: {named}"] if new else []

    def _changes(self) -> list[str]:
        """What changed in the level since the user was created. Prepared transactions have a note of their own."""
        after = level_facts.describe(self.server, self.connection, self.level, with_prepared=False)
        if self.before is None:
            names = _bounded(list(after.kinds.get(DEFINED, ())))
            return [f"{DEFINED}, perhaps made by this user: {', '.join(names)}"] if names else []
        return list(_without_prepared(self.before).differences(after))

    def _revoke_proxies(self) -> list[str]:
        return revoke_granted_by(self.connection, self.username)

    def _drop_managed_role(self) -> list[str]:
        drop_managed_role_if_unused(self.server, self.connection, self.level)
        return []


def _without_prepared(state: LevelState) -> LevelState:
    return LevelState(kinds={kind: facts for kind, facts in state.kinds.items() if kind != PREPARED})


def _bounded(names: Sequence[str]) -> list[str]:
    further = len(names) - NAMED_AT_MOST
    return [*names[:NAMED_AT_MOST], *([f"and {further} more"] if further > 0 else [])]
