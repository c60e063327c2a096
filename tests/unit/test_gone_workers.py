"""The claims of a worker whose process is gone are free within seconds, on PostgreSQL. Those of a living one keep their lease."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import make_url, text

from storage import commit_listener, gone_workers
from storage.claims import Claim
from storage.gone_workers import GONE_SECONDS, LOOK_EVERY
from storage.ledger import Ledger
from storage.records import TaskKind
from storage.schema import tasks
from tests.unit.ledgers import LEASE
from tests.unit.test_ledger_claims import add, plan

pytestmark = pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)
END = plan("user:1", kind=TaskKind.REVOKE)
LOOKS = 12
WORKER_MAX = tasks.c.worker.type.length


class Seconds:
    """The monotonic clock of the looks."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> Seconds:
    turned = Seconds()
    monkeypatch.setattr(gone_workers, "monotonic", turned)
    return turned


async def connected(ledger: Ledger) -> int:
    """Wait until the process of this ledger holds its lock. Returns its number."""
    listener = ledger.database.commit_listener
    for _ in range(600):
        await ledger.wait_for_commit(0.05)
        if listener.process is not None:
            return listener.process
    raise AssertionError("the process got no lock")


async def killed(ledger: Ledger) -> None:
    """As after SIGKILL: the connection of the process is closed."""
    await ledger.database.commit_listener.close()


async def claimed(ledger: Ledger, worker: str = "killed") -> Claim:
    claim = await ledger.tasks.claim(worker, LEASE)
    assert claim is not None
    return claim


async def freed(replica: Ledger, seconds: Seconds, *, looks: int = LOOKS) -> float | None:
    """Look again and again. The seconds until this process gets a claim; None where it gets none."""
    started = seconds.now
    for _ in range(looks):
        if (await replica.tasks.claim_due("other", LEASE)).claims:
            return seconds.now - started
        seconds.now += LOOK_EVERY.total_seconds()
    return None


async def test_an_end_claimed_by_a_killed_process_is_free_within_seconds(
    ledger: Ledger, replica: Ledger, seconds: Seconds
) -> None:
    await add(ledger, END)
    number = await connected(ledger)
    assert (await claimed(ledger)).worker == f"killed+{number}"
    await connected(replica)
    assert await freed(replica, seconds) is None, "the process lives"
    await killed(ledger)
    took = await freed(replica, seconds)
    assert took is not None
    assert GONE_SECONDS <= took <= GONE_SECONDS + LOOK_EVERY.total_seconds()


async def test_a_process_that_waits_looks_again_in_time(ledger: Ledger, replica: Ledger, seconds: Seconds) -> None:
    """Nothing wakes it: a claim that is left alone announces nothing."""
    await add(ledger, END)
    await connected(ledger)
    await connected(replica)
    await claimed(ledger)
    due = await replica.tasks.claim_due("other", LEASE)
    assert due.next_due is not None
    assert due.next_due - due.now <= LOOK_EVERY
    seconds.now += 100
    await ledger.tasks.free_leases()
    (claim,) = (await replica.tasks.claim_due("other", LEASE)).claims
    await replica.tasks.finish(claim)
    seconds.now += 100
    assert (await replica.tasks.claim_due("other", LEASE)).next_due is None, "nothing to look for"


async def test_a_step_on_the_server_of_a_killed_process_holds_up_no_end(
    ledger: Ledger, replica: Ledger, seconds: Seconds
) -> None:
    """Its own lock key is that of a message; it holds the one of the user beside it."""
    await add(ledger, plan("message:1:credentials", kind=TaskKind.PROVISION))
    await connected(ledger)
    await connected(replica)
    await ledger.tasks.hold(await claimed(ledger), "user:1")
    await killed(ledger)
    await add(replica, END)
    assert await freed(replica, seconds) is not None


async def test_a_message_of_a_killed_process_waits_for_its_lease(
    ledger: Ledger, replica: Ledger, seconds: Seconds
) -> None:
    """It may have been posted. Late is better than twice."""
    await add(ledger, plan("message:1", kind=TaskKind.UPDATE_CARD))
    await connected(ledger)
    await connected(replica)
    await claimed(ledger)
    await killed(ledger)
    assert await freed(replica, seconds) is None


async def test_a_claim_without_the_mark_keeps_its_lease(ledger: Ledger, replica: Ledger, seconds: Seconds) -> None:
    """An older version of the program, or a process behind a pooler."""
    await add(ledger, END)
    assert (await claimed(ledger, "older")).worker == "older"
    await connected(replica)
    assert await freed(replica, seconds) is None


async def test_a_living_process_that_loses_its_connection_keeps_its_claim(
    ledger: Ledger, replica: Ledger, seconds: Seconds
) -> None:
    await add(ledger, END)
    number = await connected(ledger)
    await connected(replica)
    await claimed(ledger)
    held = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND objid = :number"
    for _ in range(3):
        query = text(f"SELECT pg_terminate_backend(({held}))")
        await replica.database.read(lambda tx, query=query: tx.execute(query, {"number": number}).all())
        while ledger.database.commit_listener.process is not None:
            await asyncio.sleep(0.01)
        assert not (await replica.tasks.claim_due("other", LEASE)).claims, "missed once"
        assert await connected(ledger) == number
        seconds.now += LOOK_EVERY.total_seconds()
        assert not (await replica.tasks.claim_due("other", LEASE)).claims, "it is there again"
        seconds.now += GONE_SECONDS
    assert await freed(replica, seconds) is None


async def test_a_lock_that_somebody_else_holds_keeps_no_process_from_listening(
    ledger: Ledger, replica: Ledger, ledger_url: str
) -> None:
    """The number can be read in ``pg_locks``. Then the lease counts."""
    number = await connected(ledger)
    await killed(ledger)
    assert ledger.database.commit_listener.process is None
    url = make_url(ledger_url).set(drivername="postgresql").render_as_string(hide_password=False)
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as other:
        while await locks(other, number):
            await asyncio.sleep(0.01)
        await other.execute("SELECT pg_advisory_lock(%s, %s)", (commit_listener.PROCESS_CLASS, number))
        await ledger.wait_for_commit(5)  # the first wake is that of the new connection
        waiting = asyncio.create_task(ledger.wait_for_commit(30))
        await add(replica, END)
        assert await waiting, "it hears of the commit of another process"
        assert (await claimed(ledger, "without")).worker == "without"


async def locks(connection: psycopg.AsyncConnection[Any], number: int) -> int:
    query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND objid = %s"
    row = await (await connection.execute(query, (number,))).fetchone()
    return int(row[0]) if row is not None else 0


async def test_a_process_without_its_own_lock_frees_nothing(ledger: Ledger, replica: Ledger, seconds: Seconds) -> None:
    """After a restart of the server nobody has a lock for a moment."""
    await add(ledger, END)
    await connected(ledger)
    await claimed(ledger)
    await killed(ledger)
    assert await freed(replica, seconds) is None


async def test_a_look_that_fails_holds_up_no_claim(
    ledger: Ledger, replica: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gone_workers, "CLAIMANTS", text("SELECT 1 / 0"))
    await connected(replica)
    await add(ledger, END)
    assert (await replica.tasks.claim_due("other", LEASE)).claims


def test_a_mark_fits_into_its_column(ledger_url: str) -> None:
    del ledger_url
    assert gone_workers.marked("worker", 7) == "worker+7"
    assert gone_workers.marked("worker", None) == "worker"
    assert len(gone_workers.marked("7faceb75", 2**commit_listener.PROCESS_BITS)) <= WORKER_MAX
    assert timedelta(seconds=GONE_SECONDS) > LOOK_EVERY, "missed at two looks at least"


async def test_the_server_notices_a_machine_that_is_gone(ledger: Ledger) -> None:
    """Keepalives on both sides: without them the lock of a dead machine is held for hours."""
    await connected(ledger)
    settings = ledger.database.commit_listener._settings  # type: ignore[attr-defined]
    assert (settings["keepalives_idle"], settings["keepalives_count"]) == (5, 3)
    async with await psycopg.AsyncConnection.connect(**settings, autocommit=True) as connection:
        await connection.execute(commit_listener.SERVER_KEEPALIVES)
        row = await (await connection.execute("SHOW tcp_keepalives_idle")).fetchone()
    assert row in [("5",), ("0",)], "0 on a connection by a file of the system"
