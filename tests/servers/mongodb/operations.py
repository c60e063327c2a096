"""What runs on one member: operations, cursors, sessions' transactions, and how each is ended."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from bson.int64 import Int64

from tests.servers.mongodb import errors
from tests.servers.mongodb.users import UserName

SLICE_SECONDS = 0.05
"""How often a waiting operation looks whether its client is still there."""
IDLE_CURSOR_SECONDS = 600
TRANSACTION_SECONDS = 60
SHARD = "shard0"
"""The one behind all routers."""


class SessionId(NamedTuple):
    """``uid`` is who it belongs to; two users with the same ``id`` have two sessions."""

    id: uuid.UUID
    uid: bytes

    def document(self) -> dict[str, Any]:
        return {"id": self.id, "uid": self.uid}


@dataclass(eq=False)
class Operation:
    """One running command."""

    id: int
    connection_id: int
    users: list[UserName]
    command: dict[str, Any]
    ns: str
    session: SessionId | None
    kind: str
    deadline: float | None
    is_gone: Callable[[], bool]
    began: float = field(default_factory=time.monotonic)
    killed: asyncio.Event = field(default_factory=asyncio.Event)

    def check(self) -> None:
        """Where the real server looks whether it is to stop."""
        if self.killed.is_set():
            raise errors.INTERRUPTED.failure()
        if self.is_gone():
            raise errors.DISCONNECTED.failure()
        if self.deadline is not None and time.monotonic() >= self.deadline:
            raise errors.TOO_LONG.failure()

    async def wait(self, question: Callable[[], bool], seconds: float | None) -> bool:
        """Whether it came true in that time; None: as long as it takes."""
        end = None if seconds is None else time.monotonic() + seconds
        while not question():
            if end is not None and time.monotonic() >= end:
                return False
            await self.sleep(SLICE_SECONDS)
        return True

    async def sleep(self, seconds: float) -> None:
        """Until the time is over or the operation is to stop."""
        end = time.monotonic() + seconds
        self.check()
        while (left := end - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.killed.wait(), min(left, SLICE_SECONDS))
            self.check()


@dataclass(eq=False)
class Cursor:
    """Documents still to be fetched. ``owner`` is who was logged in when it was made."""

    id: int
    ns: str
    documents: list[dict[str, Any]]
    owner: UserName | None
    session: SessionId | None
    command: dict[str, Any]
    used_at: float = field(default_factory=time.monotonic)

    def take(self, count: int) -> list[dict[str, Any]]:
        self.used_at = time.monotonic()
        taken, self.documents = self.documents[:count], self.documents[count:]
        return taken


@dataclass(eq=False)
class Transaction:
    """Undone unless committed: what was there before is kept, newest last."""

    session: SessionId
    number: int
    began: float = field(default_factory=time.monotonic)
    undo: list[Callable[[], None]] = field(default_factory=list)


class Work:
    """All operations, cursors and transactions of one member. Nothing of another member is seen or ended here."""

    def __init__(self) -> None:
        self.operations: dict[int, Operation] = {}
        self.cursors: dict[int, Cursor] = {}
        self.transactions: dict[SessionId, Transaction] = {}
        self._numbers = itertools.count(1 + secrets.randbelow(1000))

    def begin(self, **parts: Any) -> Operation:
        operation = Operation(id=next(self._numbers), **parts)
        self.operations[operation.id] = operation
        return operation

    def transaction(self, session: SessionId, number: int, *, starts: bool) -> Transaction:
        """The one that is open, or a new one where this statement starts it."""
        self.expire()
        if starts:
            if session in self.transactions:
                self.abort(session)
            self.transactions[session] = Transaction(session, number)
        found = self.transactions.get(session)
        if found is None or found.number != number:
            raise errors.NO_SUCH_TRANSACTION.failure(number=number)
        return found

    def expire(self) -> None:
        for session, transaction in list(self.transactions.items()):
            if time.monotonic() - transaction.began > TRANSACTION_SECONDS:
                self.abort(session)

    def commit(self, session: SessionId, number: int) -> None:
        self.transaction(session, number, starts=False)
        del self.transactions[session]

    def end(self, operation: Operation) -> None:
        self.operations.pop(operation.id, None)

    def kill(self, operation: Operation) -> None:
        operation.killed.set()

    def open_cursor(self, **parts: Any) -> Cursor:
        cursor = Cursor(id=Int64(secrets.randbits(62) | 1), **parts)
        self.cursors[cursor.id] = cursor
        return cursor

    def cursor(self, number: int) -> Cursor:
        found = self.cursors.get(number)
        if found is None or time.monotonic() - found.used_at > IDLE_CURSOR_SECONDS:
            raise errors.NO_CURSOR.failure(id=number)
        return found

    def kill_sessions(self, is_meant: Callable[[SessionId], bool], *, but: Operation | None = None) -> None:
        """End operations, cursors and transactions of these sessions. What runs without a session is not reached."""
        for operation in list(self.operations.values()):
            if operation is not but and operation.session is not None and is_meant(operation.session):
                self.kill(operation)
        for cursor in list(self.cursors.values()):
            if cursor.session is not None and is_meant(cursor.session):
                del self.cursors[cursor.id]
        for session in list(self.transactions):
            if is_meant(session):
                self.abort(session)

    def end_sessions(self, sessions: set[SessionId]) -> None:
        """What a client asks when it closes: its cursors and transactions go."""
        self.kill_sessions(lambda session: session in sessions)

    def end_all(self) -> None:
        """The process is gone: so is all that it held."""
        for operation in list(self.operations.values()):
            self.kill(operation)
        self.cursors.clear()
        for session in list(self.transactions):
            self.abort(session)

    def abort(self, session: SessionId) -> None:
        for step in reversed(self.transactions.pop(session).undo):
            step()
