"""Steps that wait for a lock for a limited time: meanwhile the holder of the lock is found, and ended or named.

A user may hold a lock that its own end needs. ``BEGIN; ALTER ROLE me PASSWORD 'x'`` locks its row of ``pg_authid``, and
``PREPARE TRANSACTION`` keeps such a lock without any session. ``pg_blocking_pids`` names the holder only while somebody waits for
the lock. So a second connection asks while the first one waits.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import LiteralString

import psycopg

from adapters.base import AdapterError, Blocked
from adapters.postgresql.connection import PostgreSQLConnection, PostgreSQLServer
from adapters.postgresql.errors import is_concurrent_change
from adapters.postgresql.pins import LOCK_TIMEOUT_SECONDS
from adapters.postgresql.prepared import display_name, roll_back_one
from adapters.postgresql.sessions import unresponsive
from adapters.postgresql.statements import value

FIRST_WAIT_SECONDS = 0.5
"""Seconds that a step waits for a lock before the watch begins."""
WAIT_SECONDS = 2.0
"""Seconds of one further try under the watch."""
BLOCKED_SECONDS = 8.0
"""Seconds of all tries together. Holders of the lock are ended meanwhile."""
WATCH_INTERVAL_SECONDS = 0.05

HOLDERS: LiteralString = """
SELECT b.pid, a.backend_start, a.usename, a.usesysid, NULL::bytea, NULL
  FROM unnest(pg_blocking_pids(%(waiting_pid)s)) AS b(pid) LEFT JOIN pg_stat_activity a ON a.pid = b.pid WHERE b.pid <> 0
UNION ALL
SELECT NULL, NULL, p.owner, NULL, replace(p.gid, chr(92), repeat(chr(92), 2))::bytea, p.database
  FROM pg_prepared_xacts p WHERE 0 = ANY(pg_blocking_pids(%(waiting_pid)s)) AND EXISTS (
    SELECT 1 FROM pg_locks w JOIN pg_locks h ON h.pid IS NULL AND h.granted AND h.locktype = w.locktype
       AND (h.database, h.relation, h.page, h.tuple, h.transactionid, h.classid, h.objid, h.objsubid)
           IS NOT DISTINCT FROM (w.database, w.relation, w.page, w.tuple, w.transactionid, w.classid, w.objid, w.objsubid)
      JOIN pg_locks x ON x.pid IS NULL AND x.virtualtransaction = h.virtualtransaction AND x.locktype = 'transactionid'
     WHERE w.pid = %(waiting_pid)s AND NOT w.granted AND x.transactionid = p.transaction)
"""
"""Sessions and prepared transactions that the session ``waiting_pid`` waits for. A prepared transaction has the pid 0 there."""


@dataclass(frozen=True, kw_only=True)
class LockHolder:
    """The holder of a lock: a session (``pid``), or a prepared transaction (``gid``) in a database, found by its xid."""

    name: str
    role: int | None = None
    pid: int | None = None
    began: object = None
    gid: bytes | None = None
    database: str = ""

    @property
    def description(self) -> str:
        """The holder as an alert names it."""
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


MayEnd = Callable[[LockHolder], bool]


def any_holder(_holder: LockHolder) -> bool:
    """Every holder may be ended: nobody else has a reason to hold this lock for long."""
    return True


def no_holder(_holder: LockHolder) -> bool:
    """No holder is ended: the session may do the work of anybody. Holders are named."""
    return False


def only_sessions_of(oid: int) -> MayEnd:
    """Only sessions of the role with this oid may be ended."""
    return lambda holder: holder.role == oid


@dataclass
class LockWatch:
    """The holders that the second connection finds and ends. ``seen`` are those that held the lock when it was last seen held."""

    server: PostgreSQLServer
    waiting_pid: int
    may_end: MayEnd
    ended: dict[LockHolder, None] = field(default_factory=dict)
    seen: list[LockHolder] = field(default_factory=list)

    def end_holders(self, connection: PostgreSQLConnection) -> None:
        """End the present holders that may be ended."""
        now = holders(connection, self.waiting_pid)
        self.seen = now or self.seen
        for holder in now:
            if self.may_end(holder) and self._end(connection, holder):
                self.ended[holder] = None

    def _end(self, connection: PostgreSQLConnection, holder: LockHolder) -> bool:
        try:
            if holder.pid is not None:
                return bool(value(connection, "SELECT pg_terminate_backend(%s)", (holder.pid,)))
            roll_back_one(self.server, database=holder.database, owner=holder.name, gid=holder.gid or b"")
        except (psycopg.errors.InsufficientPrivilege, AdapterError):
            return False
        return True


def holders(connection: PostgreSQLConnection, waiting_pid: int) -> list[LockHolder]:
    """The present holders of the lock that the session ``waiting_pid`` waits for."""
    rows = connection.execute(HOLDERS, {"waiting_pid": waiting_pid}).fetchall()
    return [
        LockHolder(
            name=str(name or "an unknown user"), role=role, pid=pid, began=began, gid=_bytes(gid), database=db or ""
        )
        for pid, began, name, role, gid, db in rows
    ]


def _bytes(gid: bytes | None) -> bytes | None:
    return None if gid is None else bytes(gid)


def run_unblocked(
    server: PostgreSQLServer, connection: PostgreSQLConnection, step: Callable[[], object], *, may_end: MayEnd
) -> list[str]:
    """Run ``step`` until it succeeds. Meanwhile end the holders of its lock that ``may_end`` accepts.

    ``step`` may run several times. Returns a note for each holder that was ended. Raises Blocked with the holders that were not ended.
    """
    if _try_step(connection, step, FIRST_WAIT_SECONDS):
        return []
    watch = LockWatch(server, connection.info.backend_pid, may_end)
    deadline = time.monotonic() + BLOCKED_SECONDS
    with _watching(watch):
        while not _try_step(connection, step, WAIT_SECONDS):
            only_protected_holders = watch.seen and not watch.ended
            if only_protected_holders or time.monotonic() > deadline:
                raise _blocked(watch.seen, terminated=watch.ended)
    return [f"Ended because it held up this revocation: {holder.description}." for holder in watch.ended]


def _try_step(connection: PostgreSQLConnection, step: Callable[[], object], wait: float) -> bool:
    """Run the step, which waits for a lock for at most ``wait`` seconds. Returns whether it succeeded."""
    with _lock_limit(connection, wait):
        try:
            step()
        except psycopg.errors.LockNotAvailable:
            return False
        except psycopg.Error as error:
            if not is_concurrent_change(error):
                raise
            return False
    return True


@contextmanager
def _lock_limit(connection: PostgreSQLConnection, seconds: float) -> Iterator[None]:
    connection.set_lock_timeout(seconds)
    try:
        yield
    finally:
        if not connection.broken:
            connection.set_lock_timeout(LOCK_TIMEOUT_SECONDS)


@contextmanager
def _watching(watch: LockWatch) -> Iterator[None]:
    """Run the watch in a thread while the caller's block runs. Without a second connection no holder is found, and the step waits on."""
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
                    watch.end_holders(connection)
        except AdapterError:
            is_over.wait(WATCH_INTERVAL_SECONDS)


def _blocked(left: Sequence[LockHolder], *, terminated: Collection[LockHolder]) -> Blocked:
    """The error for a step that did not succeed. A holder of ``terminated`` that still holds the lock can be ended on its host only."""
    if not left:
        return Blocked("a lock was not free in time, and its holder was not found")
    stuck = [holder.pid for holder in left if holder in terminated and holder.pid is not None]
    if stuck:
        return unresponsive(stuck, ", and hold a lock that the revocation needs")
    holders_named = ", ".join(holder.description for holder in left)
    return Blocked(f"held up by {holders_named}", remedy=" ".join(holder.remedy for holder in left))
