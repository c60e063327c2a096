"""Operations and cursors of one member, and how each ends."""

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
"""How often a sleeping operation checks whether its client is still there."""


class SessionId(NamedTuple):
    """``uid`` is the owner: two users with the same ``id`` have two sessions."""

    id: uuid.UUID
    uid: bytes

    def document(self) -> dict[str, Any]:
        return {"id": self.id, "uid": self.uid}


@dataclass(eq=False)
class Operation:
    """One running command."""

    id: int
    connection_id: int
    user: UserName | None
    command: dict[str, Any]
    ns: str
    session: SessionId | None
    kind: str
    is_gone: Callable[[], bool]
    began: float = field(default_factory=time.monotonic)
    killed: asyncio.Event = field(default_factory=asyncio.Event)

    def check(self) -> None:
        """Raises where the operation was killed or its client is gone."""
        if self.killed.is_set():
            raise errors.INTERRUPTED.failure()
        if self.is_gone():
            raise errors.DISCONNECTED.failure()

    async def sleep(self, seconds: float) -> None:
        """Until the time is over or the operation has to stop."""
        end = time.monotonic() + seconds
        self.check()
        while (left := end - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.killed.wait(), min(left, SLICE_SECONDS))
            self.check()


@dataclass(eq=False)
class Cursor:
    """Documents that are still to be fetched."""

    id: int
    ns: str
    documents: list[dict[str, Any]]
    session: SessionId | None

    def take(self, count: int) -> list[dict[str, Any]]:
        taken, self.documents = self.documents[:count], self.documents[count:]
        return taken


class Operations:
    """All operations and cursors of one member. Those of other members are not visible here."""

    def __init__(self) -> None:
        self.running: dict[int, Operation] = {}
        self.cursors: dict[int, Cursor] = {}
        self._numbers = itertools.count(1 + secrets.randbelow(1000))

    def begin(self, **parts: Any) -> Operation:
        operation = Operation(id=next(self._numbers), **parts)
        self.running[operation.id] = operation
        return operation

    def end(self, operation: Operation) -> None:
        self.running.pop(operation.id, None)

    def kill(self, operation: Operation) -> None:
        operation.killed.set()

    def open_cursor(self, **parts: Any) -> Cursor:
        cursor = Cursor(id=Int64(secrets.randbits(62) | 1), **parts)
        self.cursors[cursor.id] = cursor
        return cursor

    def kill_sessions(self, is_meant: Callable[[SessionId], bool], *, but: Operation | None = None) -> None:
        """Ends operations and cursors of these sessions. Operations without a session continue."""
        for operation in list(self.running.values()):
            if operation is not but and operation.session is not None and is_meant(operation.session):
                self.kill(operation)
        for cursor in list(self.cursors.values()):
            if cursor.session is not None and is_meant(cursor.session):
                del self.cursors[cursor.id]

    def end_all(self) -> None:
        """The member goes down."""
        for operation in list(self.running.values()):
            self.kill(operation)
        self.cursors.clear()
