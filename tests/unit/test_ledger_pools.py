"""The order in which tasks are claimed, and tasks of a full pool stay in the ledger."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from sqlalchemy import delete, update

from storage.claims import Claim
from storage.keys import random_key
from storage.ledger import Ledger
from storage.pools import UNKNOWN, Slot
from storage.records import Priority, TaskKind
from storage.schema import requests, tasks
from tests.unit.ledgers import LEASE, START, TurnableClock, draft, execute
from tests.unit.test_ledger_tasks import SECOND, add, claimed, plan


async def add_revocation(ledger: Ledger, reference: str, *, attempts: int = 0, **more: object) -> str:
    """Add a due revocation of a grant on the server with this reference. Returns the lock key."""
    drafted = draft(person=f"U{random_key(6)}", database=random_key(6))
    request, _ = await ledger.requests.submit(drafted)
    target = {"engine": "postgresql", "admin_url": reference}
    await execute(ledger, delete(tasks).where(tasks.c.request_id == request.id))
    values = {"target": target, "server": f"postgresql {reference}"}
    await execute(ledger, update(requests).where(requests.c.id == request.id).values(**values))
    lock_key = f"user:{request.id}"
    await ledger.tasks.add(plan(lock_key, kind=TaskKind.REVOKE, **more), request_id=request.id)
    if attempts:
        await execute(ledger, update(tasks).where(tasks.c.lock_key == lock_key).values(attempts=attempts))
    return lock_key


async def claim_all(ledger: Ledger, *, full: Collection[Slot] = ()) -> list[Claim]:
    """Claim everything that can be claimed now. Returns the claims in order; none is finished."""
    found = []
    while (claim := await ledger.tasks.claim("worker", LEASE, full=full)) is not None:
        found.append(claim)
    return found


async def test_tasks_that_end_access_go_first_then_priority_then_due_time(ledger: Ledger) -> None:
    kinds = [
        TaskKind.AUDIT_FEED,
        TaskKind.POST_CARD,
        TaskKind.PROVISION,
        TaskKind.REVOKE,
        TaskKind.REPAIR,
        TaskKind.ALERT,
    ]
    for number, kind in enumerate(kinds):
        await add(
            ledger, plan(f"late {number}", kind=kind, due_at=START), plan(f"{number}", kind=kind, due_at=START - SECOND)
        )
    claims = await claim_all(ledger)
    order = [(claim.slot.priority, claim.task.due_at) for claim in claims]
    assert order == sorted(order)
    assert {claim.task.kind for claim in claims[:6]} == {TaskKind.REVOKE, TaskKind.REPAIR, TaskKind.ALERT}


async def test_an_untried_task_goes_before_a_retry(ledger: Ledger) -> None:
    tried = await add_revocation(ledger, "env:A", attempts=3, due_at=START - 60 * SECOND)
    fresh = await add_revocation(ledger, "env:A", due_at=START)
    await without_feed(ledger)
    assert [(c.task.lock_key, c.slot.is_retry) for c in await claim_all(ledger)] == [(fresh, False), (tried, True)]


async def test_a_revocation_goes_before_earlier_tasks_of_its_lock_key(ledger: Ledger, clock: TurnableClock) -> None:
    """Other tasks of a lock key keep their order, and no task joins a running one."""
    first, second = plan("user:1", kind=TaskKind.RENEW_PASSWORD), plan("user:1", kind=TaskKind.CLOSE_CREDENTIALS)
    await add(ledger, first, second, plan("user:1", kind=TaskKind.REVOKE, due_at=START + SECOND))
    running = await claimed(ledger)
    assert running.task.kind is TaskKind.RENEW_PASSWORD
    clock.turn(SECOND)
    assert await ledger.tasks.claim("another", LEASE) is None
    await ledger.tasks.finish(running)
    ending = await claimed(ledger)
    assert ending.task.kind is TaskKind.REVOKE
    await ledger.tasks.reschedule(ending, due_at=clock() + SECOND, error="no answer")
    assert (await claimed(ledger)).task.kind is TaskKind.CLOSE_CREDENTIALS, "a task in back-off delays no other"


async def test_a_task_of_a_full_pool_is_neither_claimed_nor_next_due(ledger: Ledger, clock: TurnableClock) -> None:
    dead, well = (
        await add_revocation(ledger, "env:DEAD"),
        await add_revocation(ledger, "env:WELL", due_at=START + SECOND),
    )
    await without_feed(ledger)
    full = [Slot(pool="postgresql env:DEAD", priority=Priority.SAFETY, is_retry=False)]
    assert await claim_all(ledger, full=full) == []
    assert await ledger.tasks.next_due(full=full) == START + SECOND, "the runner must not idle or spin"
    clock.turn(SECOND)
    assert await ledger.tasks.next_due(full=full) == clock()
    assert [claim.task.lock_key for claim in await claim_all(ledger, full=full)] == [well]
    slot = replace(full[0], server="postgresql env:DEAD")
    assert [(claim.task.lock_key, claim.slot) for claim in await claim_all(ledger)] == [(dead, slot)]


async def test_a_full_slot_leaves_other_slots_of_its_pool_free(ledger: Ledger) -> None:
    tried, fresh = await add_revocation(ledger, "env:A", attempts=1), await add_revocation(ledger, "env:A")
    await without_feed(ledger)
    retries = Slot(pool="postgresql env:A", priority=Priority.SAFETY, is_retry=True)
    grants = replace(retries, priority=Priority.GRANT, is_retry=False)
    assert [c.task.lock_key for c in await claim_all(ledger, full=[retries, grants])] == [fresh]
    assert [c.task.lock_key for c in await claim_all(ledger)] == [tried]


async def test_a_lock_key_behind_a_full_slot_is_not_due(ledger: Ledger, clock: TurnableClock) -> None:
    """The order of a lock key holds, and the runner is not woken for a task that it cannot claim."""
    await add(ledger, plan("message:1", kind=TaskKind.REMIND), plan("message:1", kind=TaskKind.UPDATE_CARD))
    full = [Slot(pool="slack", priority=Priority.BACKGROUND, is_retry=False)]
    assert await claim_all(ledger, full=full) == []
    assert await ledger.tasks.next_due(full=full) is None


async def test_databases_of_one_server_share_a_pool(ledger: Ledger) -> None:
    for reference in ("env:A", "env:A", "env:B"):
        await add_revocation(ledger, reference)
    await without_feed(ledger)
    pools = [claim.slot.pool for claim in await claim_all(ledger)]
    assert sorted(pools) == ["postgresql env:A", "postgresql env:A", "postgresql env:B"]


async def test_a_grant_without_a_server_delays_no_other(ledger: Ledger) -> None:
    """Its task is in a pool of its own and fails by itself."""
    unknown, well = await add_revocation(ledger, "env:A"), await add_revocation(ledger, "env:A")
    await without_feed(ledger)

    await execute(ledger, delete(tasks).where(tasks.c.lock_key == unknown))
    request_id = int(unknown.removeprefix("user:"))
    await execute(ledger, update(requests).where(requests.c.id == request_id).values(server=None))
    await ledger.tasks.add(plan(unknown, kind=TaskKind.REVOKE), request_id=request_id)
    assert {c.task.lock_key: c.slot.pool for c in await claim_all(ledger)} == {
        unknown: UNKNOWN,
        well: "postgresql env:A",
    }


async def test_time_until_due_is_negative_for_a_late_task(ledger: Ledger, clock: TurnableClock) -> None:
    lock_key = await add_revocation(ledger, "env:A", due_at=START + 60 * SECOND)
    request_id = int(lock_key.removeprefix("user:"))
    assert await ledger.tasks.time_until_due(TaskKind.REVOKE, request_id) == 60 * SECOND
    clock.turn(90 * SECOND)
    assert await ledger.tasks.time_until_due(TaskKind.REVOKE, request_id) == -30 * SECOND
    assert await ledger.tasks.time_until_due(TaskKind.REPAIR, request_id) is None


async def without_feed(ledger: Ledger) -> None:
    await execute(ledger, delete(tasks).where(tasks.c.kind == TaskKind.AUDIT_FEED))


async def test_a_full_address_hides_no_task_without_a_server(ledger: Ledger) -> None:
    """An alert has the same priority as an end, and no server: the comparison with an address must not hide it."""
    await add(ledger, plan("message:alert:1", kind=TaskKind.ALERT))
    full = [
        Slot(pool="far-1", server="postgresql env:DEAD", priority=Priority.SAFETY, is_retry=is_retry)
        for is_retry in (False, True)
    ]
    assert [claim.task.kind for claim in await claim_all(ledger, full=full)] == [TaskKind.ALERT]
