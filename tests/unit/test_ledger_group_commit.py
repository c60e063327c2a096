"""Write transactions that wait at the same time share one commit on SQLite, and each is still a transaction of its own."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event, select

from storage.errors import LedgerUnavailable
from storage.ledger import Ledger
from storage.schema import cursors
from storage.write_queue import TOGETHER_MAX, WriteQueue
from tests.unit.ledgers import RollBack, draft, open_ledger

PATIENCE = 60.0


class HeldQueue:
    """The write queue of a ledger. Its first transaction waits for ``go_on``, so that all later ones share the next commit."""

    def __init__(self, ledger: Ledger) -> None:
        assert ledger.database._writes is not None
        self.ledger = ledger
        self.queue: WriteQueue = ledger.database._writes
        self.go_on = threading.Event()
        self.order: list[str] = []
        self.commits = 0
        event.listen(ledger.database.engine, "commit", self._count)
        begun = threading.Event()
        self.queue.submit(lambda _tx: begun.set() or self.go_on.wait(PATIENCE))
        assert begun.wait(PATIENCE)

    def _count(self, _connection: Connection) -> None:
        self.commits += 1

    def store(self, name: str, then: Callable[[], None] = lambda: None) -> Future[str]:
        """Queue a transaction that stores a cursor of this name, and then does ``then``."""

        def work(tx: Connection) -> str:
            self.order.append(name)
            tx.execute(cursors.insert().values(name=name, value=len(self.order)))
            then()
            return name

        return self.queue.submit(work)

    def stored(self) -> list[str]:
        """The names of the stored cursors, as another connection sees them, in the order in which they were stored."""
        with sqlite3.connect(self.ledger.database.path) as other:
            return [name for (name,) in other.execute("SELECT name FROM cursors ORDER BY value")]


@pytest.fixture
async def held(tmp_path: Path) -> AsyncIterator[HeldQueue]:
    ledger = await open_ledger(f"sqlite+aiosqlite:///{tmp_path / 'ledger.db'}")
    found = HeldQueue(ledger)
    yield found
    found.go_on.set()
    await ledger.close()


def raises(error: BaseException) -> Callable[[], None]:
    def then() -> None:
        raise error

    return then


async def test_transactions_that_wait_share_one_commit_and_keep_their_order(held: HeldQueue) -> None:
    names = [f"{number:03}" for number in range(TOGETHER_MAX + 1)]
    futures = [held.store(name) for name in names]
    held.go_on.set()
    assert [await asyncio.wrap_future(future) for future in futures] == names
    assert held.order == held.stored() == names
    assert held.commits == 3, "the first one alone, then as many as share a commit, then the rest"


async def test_a_transaction_that_fails_is_rolled_back_alone(held: HeldQueue) -> None:
    first, failing, last = held.store("first"), held.store("failing", raises(RollBack("no"))), held.store("last")
    held.go_on.set()
    with pytest.raises(RollBack, match="no"):
        await asyncio.wrap_future(failing)
    assert (await asyncio.wrap_future(first), await asyncio.wrap_future(last)) == ("first", "last")
    assert held.stored() == ["first", "last"]


async def test_an_error_of_the_database_also_rolls_back_its_own_transaction_only(held: HeldQueue) -> None:
    first, twice, last = held.store("same"), held.store("same"), held.store("last")
    held.go_on.set()
    assert await asyncio.wrap_future(first) == "same"
    with pytest.raises(Exception, match="UNIQUE"):
        await asyncio.wrap_future(twice)
    assert await asyncio.wrap_future(last) == "last"
    assert held.stored() == ["same", "last"]


async def test_nobody_is_answered_before_the_commit(held: HeldQueue) -> None:
    """Not even with an error: it may tell what another transaction of the batch has written."""
    futures = [held.store("first"), held.store("failing", raises(RollBack())), held.store("last")]
    answered: list[list[bool]] = []
    event.listen(
        held.ledger.database.engine, "commit", lambda _connection: answered.append([f.done() for f in futures])
    )
    held.go_on.set()
    await asyncio.gather(*map(asyncio.wrap_future, futures), return_exceptions=True)
    assert answered[-1] == [False] * 3


async def test_a_commit_that_fails_reaches_every_waiter(held: HeldQueue) -> None:
    futures = [held.store("first"), held.store("failing", raises(RollBack())), held.store("last")]
    broken = sqlite3.OperationalError("disk I/O error")

    def fail(_connection: Connection) -> None:
        if len(held.order) == 3:
            raise broken

    event.listen(held.ledger.database.engine, "commit", fail)
    held.go_on.set()
    outcomes = await asyncio.gather(*map(asyncio.wrap_future, futures), return_exceptions=True)
    assert outcomes == [broken] * 3
    event.remove(held.ledger.database.engine, "commit", fail)
    assert held.stored() == []
    assert await asyncio.wrap_future(held.store("afterwards")) == "afterwards"
    assert held.stored() == ["afterwards"]


async def test_a_rollback_of_the_whole_batch_by_sqlite_reaches_every_waiter(held: HeldQueue) -> None:
    """A full disk rolls back everything. What came before is not reported as stored, and what comes after is not stored alone."""
    first, last = held.store("first"), Future[str]()

    def fills_the_disk(tx: Connection) -> None:
        tx.exec_driver_sql("ROLLBACK")  # as SQLite does by itself
        raise sqlite3.OperationalError("database or disk is full")

    full = held.queue.submit(fills_the_disk)
    last = held.store("last")
    held.go_on.set()
    outcomes = await asyncio.gather(*map(asyncio.wrap_future, (first, full, last)), return_exceptions=True)
    assert [isinstance(one, Exception) for one in outcomes] == [True] * 3
    assert held.stored() == []


async def test_a_cancelled_waiter_does_not_hurt_the_others(held: HeldQueue) -> None:
    def call(name: str) -> asyncio.Task[Any]:
        return asyncio.create_task(held.ledger.observations.set_cursor(name, len(name)))

    calls = [call(name) for name in ("a", "bb", "ccc")]
    await asyncio.sleep(0)
    calls[1].cancel()
    await asyncio.wait({calls[1]})
    held.go_on.set()
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(one) for one in outcomes] == [type(None), asyncio.CancelledError, type(None)]
    assert held.stored() == ["a", "ccc"]


async def test_a_transaction_whose_caller_is_cancelled_while_it_runs_is_finished(held: HeldQueue) -> None:
    loop, within, go_on = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def work(tx: Connection) -> None:
        loop.call_soon_threadsafe(within.set)
        go_on.wait(PATIENCE)
        tx.execute(cursors.insert().values(name="stored", value=1))

    held.go_on.set()
    calling = asyncio.create_task(held.ledger.database.write(work))
    await asyncio.wait_for(within.wait(), PATIENCE)
    calling.cancel()
    await asyncio.gather(calling, return_exceptions=True)
    go_on.set()
    assert await held.ledger.database.write(lambda tx: tx.execute(select(cursors.c.name)).scalars().all()) == ["stored"]


async def test_many_callers_at_once_commit_together(held: HeldQueue) -> None:
    """Each gets its own request, and the disk is waited for a few times only."""
    asked = [asyncio.create_task(held.ledger.requests.submit(draft(person=f"U{n}"))) for n in range(40)]
    await asyncio.sleep(0)
    held.go_on.set()
    made = await asyncio.gather(*asked)
    assert [request.requester_id for request, _ in made] == [f"U{n}" for n in range(40)]
    assert held.commits == 2


async def test_a_closed_ledger_refuses_every_transaction_and_blocks_none(tmp_path: Path) -> None:
    ledger = await open_ledger(f"sqlite+aiosqlite:///{tmp_path / 'ledger.db'}")
    await ledger.close()
    for _ in range(2):
        with pytest.raises((RuntimeError, LedgerUnavailable)):
            await asyncio.wait_for(ledger.observations.set_cursor("late", 1), PATIENCE)
