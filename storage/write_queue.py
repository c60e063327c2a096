"""Run write transactions in one thread, and commit those that wait at the same time together.

SQLite has one writer at a time, and each commit waits for the disk. Transactions that queue up while a commit is on its way share the
next one: each runs in a savepoint of its own, so one that fails is rolled back alone. Nobody is answered before the commit.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import Connection, Engine

T = TypeVar("T")
Work: TypeAlias = Callable[[Connection], T]
"""The statements of one transaction. It runs in a thread and may raise: then nothing of it is stored."""

TOGETHER_MAX = 64
"""Transactions that share one commit at most."""


@dataclass
class _Waiting:
    work: Work[Any]
    future: Future[Any] = field(default_factory=Future)
    result: Any = None
    error: Exception | None = None

    def answer(self) -> None:
        """Give the caller the result, or the error for which the transaction was rolled back alone."""
        if self.error is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.error)


class WriteQueue:
    """The writer of one SQLite file."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._thread = ThreadPoolExecutor(1, "ledger-writer")
        self._waiting: deque[_Waiting] = deque()
        self._guard = threading.Lock()
        self._is_running = False

    def submit(self, work: Work[T]) -> Future[T]:
        """Queue one transaction. The future has its result once it is committed, or the error for which it was rolled back."""
        waiting = _Waiting(work)
        with self._guard:
            if not self._is_running:
                self._thread.submit(self._run)  # raises RuntimeError once the queue is closed
                self._is_running = True
            self._waiting.append(waiting)
        return waiting.future

    def close(self) -> None:
        """Wait for the transactions that were queued."""
        self._thread.shutdown(wait=True)

    def _run(self) -> None:
        while batch := self._next_batch():
            try:
                self._commit_together(batch)
            except BaseException as error:  # noqa: BLE001 - every waiting caller gets it
                for waiting in batch:
                    waiting.future.set_exception(error)
            else:
                for waiting in batch:
                    waiting.answer()

    def _next_batch(self) -> list[_Waiting]:
        with self._guard:
            batch = [self._waiting.popleft() for _ in range(min(TOGETHER_MAX, len(self._waiting)))]
            self._is_running = bool(batch)
        return [waiting for waiting in batch if waiting.future.set_running_or_notify_cancel()] or (
            self._next_batch() if batch else []
        )

    def _commit_together(self, batch: list[_Waiting]) -> None:
        """Run the batch in one transaction. Its members have a result or an error afterwards."""
        with self._engine.begin() as tx:
            if len(batch) == 1:
                batch[0].result = batch[0].work(tx)
                return
            for waiting in batch:
                _run_in_savepoint(tx, waiting)


def _run_in_savepoint(tx: Connection, waiting: _Waiting) -> None:
    """Run one transaction of the batch. If it raises, it is rolled back alone.

    Some errors (a full disk) make SQLite roll back everything. Then nothing of the batch is stored, and nothing more of it is run.
    """
    try:
        with tx.begin_nested():
            waiting.result = waiting.work(tx)
    except Exception as error:
        driver = tx.connection.driver_connection
        if driver is None or not driver.in_transaction:
            raise
        waiting.error = error
