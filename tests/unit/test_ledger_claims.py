"""Claims in batches, second lock keys, closed servers, and ends that are claimed together; on SQLite and on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

import pytest
from sqlalchemy import update

from storage.claims import Claim
from storage.errors import ClaimLost, KeyTaken
from storage.ledger import Ledger
from storage.pools import Slot
from storage.records import Priority, Request, State, TaskKind
from storage.schema import requests, tasks
from storage.transitions import TaskPlan, Transition
from tests.unit.ledgers import HOUR, LEASE, START, TARGET, TurnableClock, bring, command_for, draft, execute
from tests.unit.test_ledger_pools import add_revocation, claim_all, without_feed
from tests.unit.test_ledger_tasks import SECOND, add, claimed, plan

SERVER = f"{TARGET['engine']} {TARGET['admin_url']}"


def keys(claims: Sequence[Claim]) -> list[str]:
    return [claim.task.lock_key for claim in claims]


def many(_slot: Slot) -> int:
    return 100


# Second lock keys.


async def holder(ledger: Ledger, lock_key: str = "user:1") -> Claim:
    """A claimed task that holds a second lock key."""
    await add(ledger, plan("message:1:credentials", kind=TaskKind.PROVISION))
    claim = await claimed(ledger)
    await ledger.tasks.hold(claim, lock_key)
    return claim


async def test_a_held_key_keeps_its_tasks_from_being_claimed(
    ledger: Ledger, replica: Ledger, clock: TurnableClock
) -> None:
    claim = await holder(ledger)
    await add(ledger, plan("user:1", kind=TaskKind.REVOKE), plan("user:2", kind=TaskKind.REVOKE))
    found = await replica.tasks.claim_due("other", LEASE, room=many)
    assert keys(found.claims) == ["user:2"]
    assert found.next_due == START + LEASE, "the runner must not spin"
    assert await ledger.tasks.claim_ends("other", LEASE, server="unknown", limit=9, untried=False) == ()
    await ledger.tasks.let_go(claim)
    assert (await claimed(replica)).task.lock_key == "user:1"
    await ledger.tasks.finish(claim)


async def test_a_key_that_another_task_has_or_holds_cannot_be_held(ledger: Ledger) -> None:
    first = await holder(ledger)
    await add(ledger, plan("message:2:credentials", kind=TaskKind.PROVISION), plan("user:3"))
    second, running = await claimed(ledger), await claimed(ledger)
    taken = {claim.task.lock_key for claim in (second, running)}
    assert taken == {"message:2:credentials", "user:3"}
    if second.task.lock_key == "user:3":
        second, running = running, second
    for lock_key in ("user:1", "user:3"):
        with pytest.raises(KeyTaken):
            await ledger.tasks.hold(second, lock_key)
    await ledger.tasks.finish(first)
    await ledger.tasks.hold(second, "user:1")
    await ledger.tasks.finish(running)


async def test_a_held_key_is_freed_with_its_lease(ledger: Ledger, replica: Ledger, clock: TurnableClock) -> None:
    lost = await holder(ledger)
    await add(ledger, plan("user:1", kind=TaskKind.REVOKE))
    clock.turn(LEASE)
    assert keys((await replica.tasks.claim_due("other", LEASE, room=many)).claims) == [
        "user:1",
        "message:1:credentials",
    ]
    with pytest.raises(ClaimLost):
        await ledger.tasks.hold(lost, "user:9")
    await ledger.tasks.let_go(lost)


@pytest.mark.parametrize("step", ["finish", "reschedule", "free_leases"])
async def test_a_held_key_is_freed_with_its_task(ledger: Ledger, step: str) -> None:
    claim = await holder(ledger)
    await add(ledger, plan("user:1", kind=TaskKind.REVOKE))
    assert await ledger.tasks.claim("other", LEASE) is None
    if step == "finish":
        await ledger.tasks.finish(claim)
    elif step == "reschedule":
        await ledger.tasks.reschedule(claim, due_at=START + HOUR)
    else:
        await ledger.tasks.free_leases()
    assert (await claimed(ledger)).task.lock_key == "user:1"


async def test_a_hold_and_a_claim_of_one_key_exclude_each_other(ledger: Ledger, replica: Ledger) -> None:
    """Two replicas race: either one holds the key, or the other one has claimed its task, or neither; never both."""
    outcomes = Counter[str]()
    for turn in range(25):
        await add(ledger, plan(f"message:{turn}:credentials", kind=TaskKind.PROVISION))
        claim = await claimed(ledger)
        await add(ledger, plan(f"user:{turn}", kind=TaskKind.REVOKE))
        tries = [ledger.tasks.hold(claim, f"user:{turn}"), replica.tasks.claim("other", LEASE)]
        held, taken = await asyncio.gather(*(tries if turn % 2 else tries[::-1]), return_exceptions=True)
        if not turn % 2:
            held, taken = taken, held
        assert held is None or isinstance(held, KeyTaken), held
        assert taken is None or isinstance(taken, Claim), taken
        is_held = held is None
        assert not (is_held and taken is not None)
        outcomes["held" if is_held else "claimed" if taken else "neither"] += 1
        if isinstance(taken, Claim):
            await replica.tasks.finish(taken)
        await ledger.tasks.finish(claim)
        while (left := await ledger.tasks.claim("clean up", LEASE)) is not None:
            await ledger.tasks.finish(left)
    assert outcomes["held"] + outcomes["claimed"] > 0, outcomes


# Batches.


async def test_a_batch_has_one_task_of_each_lock_key_in_order(ledger: Ledger) -> None:
    await add(ledger, *(plan(key, kind=TaskKind.UPDATE_CARD) for key in ("a", "b", "a", "c", "b")))
    first = await ledger.tasks.claim_due("worker", LEASE, room=many)
    assert keys(first.claims) == ["a", "b", "c"]
    assert len({claim.number for claim in first.claims}) == 3
    assert first.next_due == START + LEASE
    for claim in first.claims:
        await ledger.tasks.finish(claim)
    again = await ledger.tasks.claim_due("worker", LEASE, room=many)
    assert sorted(keys(again.claims)) == ["a", "b"]


async def test_batches_of_two_replicas_never_share_a_lock_key(ledger: Ledger, replica: Ledger) -> None:
    for turn in range(6):
        await add(ledger, *(plan(f"{turn}:{n % 8}", kind=TaskKind.UPDATE_CARD) for n in range(24)))
        both = await asyncio.gather(
            *(on.tasks.claim_due(f"w{n}", LEASE, room=many, limit=5) for n, on in enumerate((ledger, replica) * 3))
        )
        found = [claim for due in both for claim in due.claims]
        assert found
        assert len({claim.task.lock_key for claim in found}) == len(found)
        for claim in found:
            await ledger.tasks.finish(claim)


async def test_a_batch_has_at_most_its_limit(ledger: Ledger) -> None:
    await add(ledger, *(plan(f"{n}", kind=TaskKind.UPDATE_CARD) for n in range(5)))
    found = await ledger.tasks.claim_due("worker", LEASE, room=many, limit=3)
    assert (keys(found.claims), found.next_due) == (["0", "1", "2"], START)


async def test_a_batch_takes_no_more_than_the_room_of_an_address_and_of_its_pool(ledger: Ledger) -> None:
    for reference in ("env:A", "env:A", "env:A", "env:B", "env:B", "env:C"):
        await add_revocation(ledger, reference)
    await execute(
        ledger,
        update(tasks).where(tasks.c.server.in_(["postgresql env:A", "postgresql env:B"])).values(pool="one server"),
    )
    await without_feed(ledger)

    def room(slot: Slot) -> int:
        return {None: 3}.get(slot.server, 2) if slot.pool == "one server" else 9

    found = await ledger.tasks.claim_due("worker", LEASE, room=room)
    assert Counter(claim.task.server for claim in found.claims) == {
        "postgresql env:A": 2,
        "postgresql env:B": 1,
        "postgresql env:C": 1,
    }
    assert found.next_due == START, "the rest is due, and claimed as soon as a place is free"


async def test_next_due_is_the_earliest_time_of_a_claim(ledger: Ledger, clock: TurnableClock) -> None:
    assert (await ledger.tasks.claim_due("worker", LEASE)).next_due is None
    await add(ledger, plan("late", due_at=START + HOUR), plan("soon", due_at=START + SECOND))
    assert (await ledger.tasks.claim_due("worker", LEASE)).next_due == START + SECOND
    clock.turn(SECOND)
    due = await ledger.tasks.claim_due("worker", LEASE)
    assert (keys(due.claims), due.next_due, due.now) == (["soon"], clock() + LEASE, clock())


# Servers that do not answer.


async def closed_claims(ledger: Ledger) -> dict[TaskKind, Claim]:
    found = await ledger.tasks.claim_due("worker", LEASE, room=many, closed={SERVER})
    return {claim.task.kind: claim for claim in found.claims if claim.task.server is not None}


async def test_tasks_of_a_closed_server_wait(ledger: Ledger, clock: TurnableClock) -> None:
    grant = await bring(ledger, clock, State.REVOKING)
    elsewhere = await add_revocation(ledger, "env:OTHER")
    found = await ledger.tasks.claim_due("worker", LEASE, room=many, closed={SERVER})
    assert [claim.task.lock_key for claim in found.claims if claim.task.server] == [elsewhere]
    assert TaskKind.POST_CARD in {claim.task.kind for claim in found.claims}, "its messages go on"
    while (left := await ledger.tasks.claim_due("worker", LEASE, room=many, closed={SERVER})).claims:
        pass
    assert left.next_due == clock() + LEASE, "the runner does not spin for what waits"
    opened = await ledger.tasks.claim_due("worker", LEASE, room=many)
    assert [claim.task.lock_key for claim in opened.claims] == [f"user:{grant.id}"]


async def test_the_first_try_of_provisioning_runs_on_a_closed_server(ledger: Ledger, clock: TurnableClock) -> None:
    """It tells the requester that the server does not answer."""
    await bring(ledger, clock, State.APPROVED)
    first = (await closed_claims(ledger))[TaskKind.PROVISION]
    await ledger.tasks.reschedule(first, due_at=clock())
    assert await closed_claims(ledger) == {}


async def test_provisioning_that_is_too_late_runs_on_a_closed_server(ledger: Ledger, clock: TurnableClock) -> None:
    """It only gives up."""
    grant = await bring(ledger, clock, State.APPROVED)
    first = (await closed_claims(ledger))[TaskKind.PROVISION]
    await ledger.tasks.reschedule(first, due_at=clock())
    assert grant.start_before is not None
    clock.time = grant.start_before - SECOND
    assert await closed_claims(ledger) == {}
    clock.turn(SECOND)
    assert set(await closed_claims(ledger)) == {TaskKind.PROVISION}


@pytest.mark.parametrize("has_started", [False, True])
async def test_the_end_of_a_grant_that_never_started_runs_on_a_closed_server(
    ledger: Ledger, clock: TurnableClock, has_started: bool
) -> None:
    grant = await bring(ledger, clock, State.APPROVED)
    if has_started:
        await ledger.requests.advance(grant.id, command_for(Transition.START, grant))
    await ledger.requests.advance(grant.id, command_for(Transition.REVOKE, grant))
    assert (TaskKind.REVOKE in await closed_claims(ledger)) is not has_started


# Ends that are claimed together.


async def ends(ledger: Ledger, count: int) -> list[str]:
    found = [await add_revocation(ledger, "env:A", due_at=START - n * SECOND) for n in range(count)]
    await without_feed(ledger)
    return found[::-1]


async def claim_ends(ledger: Ledger, *, limit: int = 9, untried: bool = False) -> tuple[Claim, ...]:
    return await ledger.tasks.claim_ends("worker", LEASE, server="postgresql env:A", limit=limit, untried=untried)


async def test_due_ends_of_one_server_are_claimed_together_the_earliest_first(
    ledger: Ledger, replica: Ledger, clock: TurnableClock
) -> None:
    expected = await ends(ledger, 4)
    await add_revocation(ledger, "env:A", due_at=START + SECOND)
    await add_revocation(ledger, "env:B")
    assert [task.lock_key for task in await ledger.tasks.due_ends("postgresql env:A")] == expected
    assert keys(await claim_ends(ledger, limit=3)) == expected[:3]
    assert keys(await claim_ends(replica)) == expected[3:]
    assert await claim_ends(ledger) == ()


async def test_an_end_that_was_put_back_as_blocked_is_left_to_its_own_task(
    ledger: Ledger, clock: TurnableClock
) -> None:
    expected = await ends(ledger, 3)
    together = await claim_ends(ledger)
    clock.turn(SECOND)
    await ledger.tasks.put_back(together, blocked=together[:1], is_untried=False)
    found = {task.lock_key: task for task in await ledger.tasks.all() if task.kind is TaskKind.REVOKE}
    assert [(found[key].attempts, found[key].blocked_at) for key in expected] == [
        (0, clock()),
        (1, None),
        (1, None),
    ]
    assert await claim_ends(ledger, untried=True) == ()
    assert keys(await claim_ends(ledger)) == expected[1:]
    own = await claim_all(ledger)
    assert [(claim.task.lock_key, claim.slot.is_retry, claim.slot.is_blocked) for claim in own] == [
        (expected[0], False, True)
    ]


async def test_ends_that_a_server_did_not_answer_are_put_back_as_they_were(ledger: Ledger) -> None:
    expected = await ends(ledger, 2)
    together = await claim_ends(ledger)
    await ledger.tasks.put_back(together, blocked=(), is_untried=True)
    assert [task.attempts for task in await ledger.tasks.all()] == [0, 0]
    assert keys(await claim_ends(ledger, untried=True)) == expected


async def test_an_end_whose_claim_was_lost_is_not_put_back(ledger: Ledger, clock: TurnableClock) -> None:
    await ends(ledger, 2)
    lost = await claim_ends(ledger)
    clock.turn(LEASE)
    taken = await claimed(ledger, "another")
    await ledger.tasks.put_back(lost, blocked=lost, is_untried=False)
    await ledger.tasks.check_claim(taken)
    blocked = {task.id: task.blocked_at is not None for task in await ledger.tasks.all()}
    assert blocked == {claim.task.id: False for claim in lost}


# Many transitions in one transaction.


async def test_due_grants_of_one_server_are_found_and_ended_together(ledger: Ledger, clock: TurnableClock) -> None:
    grants = [await bring(ledger, clock, State.ACTIVE, database=f"db-{n}") for n in range(3)]
    assert await ledger.requests.due_to_end(server=SERVER, limit=9) == ()
    clock.turn(2 * HOUR)
    due = await ledger.requests.due_to_end(server=SERVER, limit=2)
    assert [one.id for one in due] == [grants[0].id, grants[1].id]
    assert await ledger.requests.due_to_end(server="another", limit=2) == ()
    ended = await ledger.requests.advance_many([(one.id, command_for(Transition.REVOKE, one)) for one in grants])
    assert [one.state for one in ended if isinstance(one, Request)] == [State.REVOKING] * 3
    assert await ledger.requests.due_to_end(server=SERVER, limit=9) == ()


async def test_one_transition_that_is_not_possible_stops_no_other(ledger: Ledger, clock: TurnableClock) -> None:
    first, over, last = [
        await bring(ledger, clock, state, database=state.value + str(n))
        for n, state in enumerate((State.ACTIVE, State.REVOKED, State.APPROVED))
    ]
    before = await ledger.audit.history(over.id)
    outcomes = await ledger.requests.advance_many(
        [(one.id, command_for(Transition.REVOKE, one)) for one in (first, over, last)]
    )
    assert [type(one).__name__ for one in outcomes] == ["Request", "NotPossible", "Request"]
    for request, state in ((first, State.REVOKING), (over, State.REVOKED), (last, State.REVOKING)):
        assert (await ledger.requests.get(request.id)).state is state
    assert await ledger.audit.history(over.id) == before


async def test_a_grant_that_two_replicas_end_together_is_ended_once(
    ledger: Ledger, replica: Ledger, clock: TurnableClock
) -> None:
    grants = [await bring(ledger, clock, State.ACTIVE, database=f"db-{n}") for n in range(6)]
    ending = [(one.id, command_for(Transition.REVOKE, one)) for one in grants]
    both = await asyncio.gather(
        *(on.requests.advance_many(order) for on, order in ((ledger, ending), (replica, ending[::-1])))
    )
    assert sum(isinstance(one, Request) for outcomes in both for one in outcomes) == len(grants)


# The pool of a server.


async def pool_of(ledger: Ledger, request: Request, kind: TaskKind = TaskKind.REVOKE) -> tuple[str, str | None]:
    (found,) = [task for task in await ledger.tasks.all(request_id=request.id) if task.kind is kind]
    return found.pool, found.server


async def test_the_pool_is_the_address_until_start_reads_the_identity(ledger: Ledger, clock: TurnableClock) -> None:
    grant = await bring(ledger, clock, State.APPROVED)
    assert await pool_of(ledger, grant) == (SERVER, SERVER)
    await ledger.requests.advance(grant.id, command_for(Transition.START, grant))
    assert await pool_of(ledger, grant) == ("server-1", SERVER)
    later = await bring(ledger, clock, State.APPROVED, database="another")
    assert await pool_of(ledger, later) == ("server-1", SERVER), "the identity of this address is known"
    assert await pool_of(ledger, later, TaskKind.PROVISION) == ("server-1", SERVER)


async def test_two_addresses_of_one_server_share_its_pool(ledger: Ledger, clock: TurnableClock) -> None:
    one = await bring(ledger, clock, State.ACTIVE)
    other = await bring(ledger, clock, State.APPROVED, database="another")
    values = {"server": "postgresql env:SECOND"}
    await execute(ledger, update(requests).where(requests.c.id == other.id).values(**values))
    await ledger.requests.advance(other.id, command_for(Transition.START, other))
    assert await pool_of(ledger, one) == ("server-1", SERVER)
    assert await pool_of(ledger, other) == ("server-1", "postgresql env:SECOND")


async def test_a_task_without_a_request_is_in_the_pool_of_unknown_servers(ledger: Ledger) -> None:
    repair = TaskPlan(kind=TaskKind.REPAIR, lock_key="user:1", due_at=START)
    await ledger.tasks.add(repair, request_id=None)
    (found,) = await ledger.tasks.all()
    assert (found.pool, found.server, found.priority) == ("unknown server", None, Priority.SAFETY)


async def test_a_request_without_a_task_has_no_end_before_it_is_planned(ledger: Ledger, clock: TurnableClock) -> None:
    """Pending requests have no user, so no end is missing."""
    await ledger.requests.submit(draft())
    grant = await bring(ledger, clock, State.ACTIVE)
    assert await ledger.tasks.plan_missing_ends() == ()
    await execute(ledger, tasks.delete().where(tasks.c.request_id == grant.id))
    assert await ledger.tasks.plan_missing_ends() == (grant.id,)
    assert await ledger.tasks.plan_missing_ends() == ()
    (end,) = await ledger.tasks.all(request_id=grant.id)
    assert (end.kind, end.due_at, end.lock_key) == (TaskKind.REVOKE, clock(), f"user:{grant.id}")
