"""Tasks and claims: one task of a lock key at a time, in order, under a lease that expires."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise

import pytest

from storage.claims import Claim
from storage.commands import RevokeGrant
from storage.errors import ClaimLost
from storage.ledger import Ledger
from storage.records import Cause, State, TaskKind
from storage.transitions import TaskPlan, Transition
from tests.unit.ledgers import LEASE, START, TurnableClock, bring, command_for

SECOND = timedelta(seconds=1)


def plan(
    lock_key: str = "user:1", *, kind: TaskKind = TaskKind.REPAIR, due_at: datetime = START, **more: object
) -> TaskPlan:
    return TaskPlan(kind=kind, lock_key=lock_key, due_at=due_at, **more)  # type: ignore[arg-type]


async def add(ledger: Ledger, *plans: TaskPlan) -> None:
    for one in plans:
        await ledger.tasks.add(one, request_id=None)


async def claimed(ledger: Ledger, worker: str = "worker") -> Claim:
    claim = await ledger.tasks.claim(worker, LEASE)
    assert claim is not None
    return claim


async def test_a_task_can_be_claimed_when_it_is_due(ledger: Ledger, clock: TurnableClock) -> None:
    assert await ledger.tasks.claim("worker", LEASE) is None
    assert await ledger.tasks.next_due() is None
    await add(ledger, plan(due_at=START + SECOND))
    assert await ledger.tasks.claim("worker", LEASE) is None
    assert await ledger.tasks.next_due() == START + SECOND
    clock.turn(SECOND)
    assert (await claimed(ledger)).task.lock_key == "user:1"


async def test_a_claim_has_the_task_and_counts_attempts(ledger: Ledger, clock: TurnableClock) -> None:
    await add(ledger, plan(payload={"state": "denied"}))
    claim = await claimed(ledger)
    assert (claim.task.payload, claim.task.attempts, claim.until) == ({"state": "denied"}, 1, START + LEASE)
    await ledger.tasks.reschedule(claim, due_at=START, error="no answer")
    again = await claimed(ledger)
    assert (again.task.id, again.task.attempts, again.task.last_error) == (claim.task.id, 2, "no answer")
    assert again.number != claim.number


async def test_tasks_of_a_lock_key_run_one_at_a_time_in_order_of_creation(ledger: Ledger, clock: TurnableClock) -> None:
    await add(ledger, plan("a", due_at=START + SECOND), plan("a"), plan("b"), plan("a"))
    first, second = await claimed(ledger), await claimed(ledger)
    assert [(c.task.id, c.task.lock_key) for c in (first, second)] == [(2, "a"), (3, "b")]
    assert await ledger.tasks.claim("another", LEASE) is None
    clock.turn(SECOND)
    await ledger.tasks.finish(first)
    assert (await claimed(ledger)).task.id == 1
    await ledger.tasks.finish(second)
    assert await ledger.tasks.claim("another", LEASE) is None


async def test_many_workers_never_run_two_tasks_of_a_lock_key_at_once(
    ledger: Ledger, replica: Ledger, clock: TurnableClock
) -> None:
    lock_keys, each = [f"user:{n}" for n in range(5)], 6
    await add(ledger, *[plan(lock_key) for _ in range(each) for lock_key in lock_keys])
    running: dict[str, int] = defaultdict(int)
    done: dict[str, list[int]] = defaultdict(list)

    async def work(on: Ledger, name: str) -> None:
        while len([i for ids in done.values() for i in ids]) < each * len(lock_keys):
            claim = await on.tasks.claim(name, LEASE)
            if claim is None:
                await asyncio.sleep(0)
                continue
            lock_key = claim.task.lock_key
            running[lock_key] += 1
            assert running[lock_key] == 1, f"two at once in {lock_key}"
            await on.tasks.check_claim(claim)
            running[lock_key] -= 1
            done[lock_key].append(claim.task.id)
            await on.tasks.finish(claim)

    await asyncio.gather(*[work(on, f"w{n}") for n in range(5) for on in (ledger, replica)])
    assert await ledger.tasks.all() == ()
    assert set(done) == set(lock_keys)
    assert all(a < b for ids in done.values() for a, b in pairwise(ids))


async def test_one_of_many_workers_claims_a_task(ledger: Ledger, replica: Ledger) -> None:
    for _ in range(10):
        await add(ledger, plan())
        tries = [on.tasks.claim(f"w{n}", LEASE) for n in range(4) for on in (ledger, replica)]
        won = [claim for claim in await asyncio.gather(*tries) if claim is not None]
        assert len(won) == 1
        await ledger.tasks.finish(won[0])


async def test_every_step_under_an_expired_lease_raises_claim_lost(ledger: Ledger, clock: TurnableClock) -> None:
    await add(ledger, plan())
    lost = await claimed(ledger)
    clock.turn(LEASE - SECOND)
    await ledger.tasks.check_claim(lost)
    assert await ledger.tasks.claim("another", LEASE) is None
    clock.turn(SECOND)
    with pytest.raises(ClaimLost):
        await ledger.tasks.check_claim(lost)
    assert await ledger.tasks.next_due() == clock()
    taken = await claimed(ledger, "another")
    assert taken.task.id == lost.task.id
    for attempt in (
        ledger.tasks.check_claim(lost),
        ledger.tasks.renew(lost, LEASE),
        ledger.tasks.finish(lost),
        ledger.tasks.reschedule(lost, due_at=START, error=None),
    ):
        with pytest.raises(ClaimLost):
            await attempt
    await ledger.tasks.check_claim(taken)
    assert [t.last_error for t in await ledger.tasks.all()] == [None]


async def test_a_renewed_lease_stays_valid(ledger: Ledger, clock: TurnableClock) -> None:
    await add(ledger, plan())
    claim = await claimed(ledger)
    for _ in range(5):
        clock.turn(LEASE - SECOND)
        claim = await ledger.tasks.renew(claim, LEASE)
        assert claim.until == clock() + LEASE
    assert await ledger.tasks.claim("another", LEASE) is None
    await ledger.tasks.finish(claim)
    assert await ledger.tasks.all() == ()
    with pytest.raises(ClaimLost):
        await ledger.tasks.finish(claim)


async def test_a_wrong_claim_number_raises_claim_lost(ledger: Ledger) -> None:
    await add(ledger, plan())
    claim = await claimed(ledger)
    for number in (0, claim.number + 1):
        with pytest.raises(ClaimLost):
            await ledger.tasks.finish(replace(claim, number=number))


async def test_freed_leases_can_be_claimed_again(ledger: Ledger) -> None:
    await add(ledger, plan())
    dead = await claimed(ledger)
    await ledger.tasks.free_leases()
    assert (await claimed(ledger)).task.id == dead.task.id
    with pytest.raises(ClaimLost):
        await ledger.tasks.finish(dead)


# next_due: the time at which a claim can succeed, so that the runner need not poll.


async def test_a_due_task_behind_a_claimed_one_is_not_due(ledger: Ledger, clock: TurnableClock) -> None:
    await add(ledger, plan("a"), plan("a"))
    await claimed(ledger)
    assert await ledger.tasks.next_due() == START + LEASE
    await add(ledger, plan("b", due_at=START + SECOND))
    assert await ledger.tasks.next_due() == START + SECOND


async def test_a_claim_succeeds_at_next_due_and_not_before(ledger: Ledger, clock: TurnableClock) -> None:
    await add(ledger, plan("a"), plan("a", due_at=START + 5 * SECOND), plan("b", due_at=START + 3 * SECOND))
    order = []
    while (due := await ledger.tasks.next_due()) is not None:
        if due > clock():
            assert await ledger.tasks.claim("worker", LEASE) is None
            clock.turn(due - clock())
        claim = await claimed(ledger)
        order.append((claim.task.id, clock() - START))
        await ledger.tasks.finish(claim)
    assert order == [(1, 0 * SECOND), (3, 3 * SECOND), (2, 5 * SECOND)]


# Single tasks.


async def test_a_single_task_is_moved_and_not_duplicated(ledger: Ledger) -> None:
    await add(ledger, plan(is_single=True), plan(is_single=True, due_at=START + SECOND))
    (task,) = await ledger.tasks.all()
    assert task.due_at == START + SECOND
    await add(
        ledger, plan(), plan("other lock key", is_single=True), plan(kind=TaskKind.NOTIFY_REQUESTER, is_single=True)
    )
    assert len(await ledger.tasks.all()) == 4


async def test_a_claimed_single_task_gets_another_one_behind_it(ledger: Ledger) -> None:
    """Its worker may have read the old state already. The new state needs another task."""
    await add(ledger, plan(kind=TaskKind.UPDATE_CARD, is_single=True))
    running = await claimed(ledger)
    await add(ledger, plan(kind=TaskKind.UPDATE_CARD, is_single=True))
    await add(ledger, plan(kind=TaskKind.UPDATE_CARD, is_single=True))
    assert len(await ledger.tasks.all()) == 2
    await ledger.tasks.finish(running)
    assert (await claimed(ledger)).task.id != running.task.id


async def test_a_claimed_revocation_is_moved_and_not_duplicated(ledger: Ledger, clock: TurnableClock) -> None:
    request = await bring(ledger, clock, State.ACTIVE)
    clock.turn(timedelta(hours=2))
    running = await _claim_of(ledger, TaskKind.REVOKE)
    await ledger.requests.advance(request.id, RevokeGrant(actor="U1", cause=Cause.DONE))
    revocations = [t for t in await ledger.tasks.all() if t.kind is TaskKind.REVOKE]
    assert [t.id for t in revocations] == [running.task.id]
    assert revocations[0].due_at == clock()


async def test_an_end_that_is_moved_ahead_during_its_task_keeps_its_due_time(
    ledger: Ledger, clock: TurnableClock
) -> None:
    """The worker read that the end is in the future. Before it reschedules the task, a person ends the grant now."""
    request = await bring(ledger, clock, State.APPROVED)
    clock.turn(timedelta(minutes=59))
    request = await ledger.requests.advance(request.id, command_for(Transition.START, request))
    await ledger.requests.advance(request.id, command_for(Transition.ACTIVATE, request))
    assert request.expires_at is not None
    clock.turn(timedelta(hours=2))
    running = await _claim_of(ledger, TaskKind.REVOKE)
    clock.turn(SECOND)
    await ledger.requests.advance(request.id, RevokeGrant(actor="U1", cause=Cause.DONE))
    await ledger.tasks.reschedule(running, due_at=clock() + timedelta(hours=1), error="its end was moved")
    (revocation,) = [t for t in await ledger.tasks.all() if t.kind is TaskKind.REVOKE]
    assert revocation.due_at == clock()


async def test_a_rescheduled_task_is_due_at_the_given_time(ledger: Ledger, clock: TurnableClock) -> None:
    await add(ledger, plan())
    clock.turn(SECOND)
    await ledger.tasks.reschedule(await claimed(ledger), due_at=START + 60 * SECOND, error=None)
    (task,) = await ledger.tasks.all()
    assert task.due_at == START + 60 * SECOND


# Tasks that a transition clears.


async def test_a_decided_request_has_no_timeout_task(ledger: Ledger, clock: TurnableClock) -> None:
    request = await bring(ledger, clock, State.APPROVED)
    assert TaskKind.TIME_OUT not in {t.kind for t in await ledger.tasks.all(request_id=request.id)}
    other = await bring(ledger, clock, State.PENDING, database="another")
    assert TaskKind.TIME_OUT in {t.kind for t in await ledger.tasks.all(request_id=other.id)}


async def test_a_claimed_task_is_not_cleared(ledger: Ledger, clock: TurnableClock) -> None:
    request = await bring(ledger, clock, State.APPROVED)
    running = await _claim_of(ledger, TaskKind.PROVISION)
    await ledger.requests.advance(request.id, RevokeGrant(actor="U1", cause=Cause.DONE))
    await ledger.tasks.check_claim(running)
    kinds = [t.kind for t in await ledger.tasks.all(request_id=request.id)]
    assert kinds.count(TaskKind.PROVISION) == 1
    await ledger.tasks.finish(running)


async def test_an_unclaimed_task_of_an_ended_grant_is_cleared(ledger: Ledger, clock: TurnableClock) -> None:
    request = await bring(ledger, clock, State.APPROVED)
    await ledger.requests.advance(request.id, RevokeGrant(actor="U1", cause=Cause.DONE))
    kinds = {t.kind for t in await ledger.tasks.all(request_id=request.id)}
    assert kinds & {TaskKind.PROVISION, TaskKind.REVOKE} == {TaskKind.REVOKE}


async def _claim_of(ledger: Ledger, kind: TaskKind) -> Claim:
    while (claim := await ledger.tasks.claim("worker", LEASE)) is not None:
        if claim.task.kind is kind:
            return claim
        await ledger.tasks.finish(claim)
    raise AssertionError(f"no {kind} is due")
