"""Steps that wait for nobody: whoever holds a lock that a step needs is found while the step waits, and ended or named.

A user may hold locks that its own end needs: ``BEGIN; ALTER ROLE me PASSWORD 'x'`` locks its row of ``pg_authid``, and
``PREPARE TRANSACTION`` keeps such a lock without any session. ``pg_blocking_pids`` names who holds the lock, but only while
somebody waits for it, so a second connection asks while the first one waits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import LiteralString

import psycopg
from psycopg import sql

from adapters.base import AdapterError, Blocked
from adapters.postgresql.connection import PostgreSQLConnection, Server, value
from adapters.postgresql.errors import CONCURRENT_CHANGE
from adapters.postgresql.prepared import roll_back_one
from adapters.postgresql.sessions import unresponsive

FIRST_WAIT_SECONDS = 0.5
"""How long a step waits for a lock before somebody looks who holds it."""
WAIT_SECONDS = 2.0
"""How long it waits at a time while somebody looks."""
BLOCKED_SECONDS = 8.0
"""How long a step is tried in all, its holders being ended meanwhile."""
WATCH_INTERVAL_SECONDS = 0.05

HOLDERS: LiteralString = """
SELECT b.pid, a.backend_start, a.usename, a.usesysid, NULL::bytea, NULL
  FROM unnest(pg_blocking_pids(%(waits)s)) AS b(pid) LEFT JOIN pg_stat_activity a ON a.pid = b.pid WHERE b.pid <> 0
UNION ALL
SELECT NULL, NULL, p.owner, NULL, replace(p.gid, chr(92), repeat(chr(92), 2))::bytea, p.database
  FROM pg_prepared_xacts p WHERE 0 = ANY(pg_blocking_pids(%(waits)s)) AND EXISTS (
    SELECT 1 FROM pg_locks w JOIN pg_locks h ON h.pid IS NULL AND h.granted AND h.locktype = w.locktype
       AND (h.database, h.relation, h.page, h.tuple, h.transactionid, h.classid, h.objid, h.objsubid)
           IS NOT DISTINCT FROM (w.database, w.relation, w.page, w.tuple, w.transactionid, w.classid, w.objid, w.objsubid)
      JOIN pg_locks x ON x.pid IS NULL AND x.virtualtransaction = h.virtualtransaction AND x.locktype = 'transactionid'
     WHERE w.pid = %(waits)s AND NOT w.granted AND x.transactionid = p.transaction)
"""
"""Sessions and prepared transactions that the waiting session waits for; a prepared transaction has the pid 0 there."""


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who holds the lock: a session (``pid``), or a prepared transaction (``gid``) in a database, found by its xid."""

    name: str
    role: int | None = None
    pid: int | None = None
    began: object = None
    gid: bytes | None = None
    database: str = ""

    @property
    def words(self) -> str:
        """As an alert names it."""
        if self.pid is not None:
            return f"session {self.pid} of {self.name}"
        return f"the prepared transaction {display_name(self.gid or b'')} of {self.name} in {self.database}"

    @property
    def remedy(self) -> str:
        """The statement that frees the lock."""
        if self.pid is not None:
            return f"SELECT pg_terminate_backend({self.pid});"
        gid = (self.gid or b"").decode(errors="replace").replace("'", "''")
        return f"in {self.database}, as {self.name} or a superuser: ROLLBACK PREPARED '{gid}';"


MayEnd = Callable[[Holder], bool]


def any_holder(_holder: Holder) -> bool:
    """Every holder is ended: nobody else has a reason to hold the lock for long."""
    return True


def no_holder(_holder: Holder) -> bool:
    """Holders are named and never ended: they may be anybody's work."""
    return False


def only_sessions_of(oid: int) -> MayEnd:
    """Sessions of this user are ended, and nobody else's."""
    return lambda holder: holder.role == oid


@dataclass
class LockWatch:
    """What is seen and done on the second connection."""

    server: Server
    waits: int
    may_end: MayEnd
    ended: dict[Holder, None] = field(default_factory=dict)
    seen: list[Holder] = field(default_factory=list)
    """Who held it when somebody was last seen to hold it."""

    def look(self, connection: PostgreSQLConnection) -> None:
        """Ends the holders of now, as far as that is allowed."""
        now = holders(connection, self.waits)
        self.seen = now or self.seen
        for holder in now:
            if self.may_end(holder) and self._end(connection, holder):
                self.ended[holder] = None

    def _end(self, connection: PostgreSQLConnection, holder: Holder) -> bool:
        try:
            if holder.pid is not None:
                return bool(value(connection, "SELECT pg_terminate_backend(%s)", (holder.pid,)))
            roll_back_one(self.server, database=holder.database, owner=holder.name, gid=holder.gid or b"")
        except (psycopg.errors.InsufficientPrivilege, AdapterError):
            return False
        return True


def holders(connection: PostgreSQLConnection, waits: int) -> list[Holder]:
    """Who holds what the session ``waits`` waits for now."""
    rows = connection.execute(HOLDERS, {"waits": waits}).fetchall()
    return [
        Holder(name=str(name or "an unknown user"), role=role, pid=pid, began=began, gid=_bytes(gid), database=db or "")
        for pid, began, name, role, gid, db in rows
    ]


def _bytes(gid: bytes | None) -> bytes | None:
    return None if gid is None else bytes(gid)


def run_unblocked(
    server: Server, connection: PostgreSQLConnection, step: Callable[[], object], *, may_end: MayEnd
) -> list[str]:
    """Run ``step`` until it is through, ending those who hold it up where ``may_end`` says so.

    ``step`` may run several times. Returns a note for each holder that was ended. Raises Blocked with the holders that were not.
    """
    if _try_step(connection, step, FIRST_WAIT_SECONDS):
        return []
    watch = LockWatch(server, connection.info.backend_pid, may_end)
    deadline = time.monotonic() + BLOCKED_SECONDS
    with _watching(watch):
        while not _try_step(connection, step, WAIT_SECONDS):
            is_in_vain = watch.seen and not watch.ended
            if is_in_vain or time.monotonic() > deadline:
                raise _blocked(watch.seen, told=watch.ended)
    return [f"Ended, for it held up this end: {holder.words}." for holder in watch.ended]


def _try_step(connection: PostgreSQLConnection, step: Callable[[], object], wait: float) -> bool:
    """Whether the step came through, waiting no longer than ``wait`` seconds for a lock."""
    with _lock_limit(connection, wait):
        try:
            step()
        except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
            return False
        except psycopg.errors.InternalError_ as error:
            if not any(part in (error.diag.message_primary or "") for part in CONCURRENT_CHANGE):
                raise
            return False
    return True


@contextmanager
def _lock_limit(connection: PostgreSQLConnection, seconds: float) -> Iterator[None]:
    connection.execute(sql.SQL("SET lock_timeout = {}").format(sql.Literal(int(seconds * 1000))))
    try:
        yield
    finally:
        if not connection.broken:
            connection.execute("RESET lock_timeout")


@contextmanager
def _watching(watch: LockWatch) -> Iterator[None]:
    """A thread looks again and again while the caller's block runs. Without a second connection nobody is found, and the step goes on waiting."""
    is_over = threading.Event()
    thread = threading.Thread(target=_watch_until, args=(watch, is_over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def _watch_until(watch: LockWatch, is_over: threading.Event) -> None:
    while not is_over.is_set():
        try:
            with watch.server.session() as connection:
                while not is_over.wait(WATCH_INTERVAL_SECONDS):
                    watch.look(connection)
        except AdapterError:
            is_over.wait(WATCH_INTERVAL_SECONDS)


def _blocked(left: Sequence[Holder], *, told: Collection[Holder]) -> Blocked:
    """``told``: those that were told to end. One of them that still holds the lock does not react, and only its host can end it."""
    if not left:
        return Blocked("a lock did not come, and nobody was seen to hold it")
    stuck = [holder.pid for holder in left if holder in told and holder.pid is not None]
    if stuck:
        return unresponsive(stuck, ", and hold a lock that the end needs")
    words = ", ".join(holder.words for holder in left)
    return Blocked(f"held up by {words}", remedy=" ".join(holder.remedy for holder in left))
