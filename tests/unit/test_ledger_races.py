"""Races between two Ledger objects on one database: one caller wins, and every other one learns what happened."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import chain, cycle
from typing import Any

import pytest

from storage import interpreter
from storage.audit_kinds import AuditKind
from storage.commands import RevokeGrant
from storage.errors import LimitReached, NotPossible
from storage.ledger import Ledger
from storage.records import Cause, Purpose, Request, RequestKind, State, TaskKind
from storage.transitions import Obstacle, Transition
from tests.unit.ledgers import (
    HOUR,
    LEASE,
    PATHS,
    TRANSACTION_PATIENCE,
    TurnableClock,
    approve,
    bring,
    command_for,
    draft,
    open_transaction,
)

ROUNDS = 20


async def race(tries: Sequence[Awaitable[Request]]) -> tuple[list[Request], list[NotPossible]]:
    """The winners and the losers. Any other error fails the test."""
    ends = await asyncio.gather(*tries, return_exceptions=True)
    for end in ends:
        if isinstance(end, BaseException) and not isinstance(end, NotPossible):
            raise end
    return [e for e in ends if isinstance(e, Request)], [e for e in ends if isinstance(e, NotPossible)]


async def test_one_of_ten_simultaneous_approvals_wins(ledger: Ledger, replica: Ledger) -> None:
    for turn in range(ROUNDS):
        request, _ = await ledger.requests.submit(draft(person=f"U{turn}"))
        on = cycle((ledger, replica))
        won, lost = await race([approve(next(on), request, f"ULEAD{n}") for n in range(10)])
        assert [r.state for r in won] == [State.APPROVED]
        assert {(e.obstacle, e.request.state) for e in lost} == {(Obstacle.STATE, State.APPROVED)}
        (decision,) = await ledger.requests.decisions(request.id)
        assert {e.decisions for e in lost} == {(decision,)}
        kinds = [t.kind for t in await ledger.tasks.all(request_id=request.id)]
        assert (kinds.count(TaskKind.REVOKE), kinds.count(TaskKind.PROVISION)) == (1, 1)
        assert len(await ledger.messages.of(request.id, Purpose.CREDENTIALS)) == 1
        approvals = [e for e in await ledger.audit.history(request.id) if e.kind == AuditKind.APPROVED]
        assert [e.actor for e in approvals] == [decision.person_id]


async def test_ten_simultaneous_approvals_by_five_people_fill_a_count_of_three(ledger: Ledger, replica: Ledger) -> None:
    for turn in range(ROUNDS // 2):
        request, _ = await ledger.requests.submit(draft(counts=(3,), person=f"U{turn}"))
        people = [f"ULEAD{n}" for n in range(5)] * 2
        tries = [approve(on, request, p) for p, on in zip(people, cycle((ledger, replica)), strict=False)]
        won, lost = await race(tries)
        assert sorted(r.state for r in won) == [State.APPROVED, State.PENDING, State.PENDING]
        assert {e.obstacle for e in lost} <= {Obstacle.STATE, Obstacle.ALREADY_DECIDED}
        assert len({d.person_id for d in await ledger.requests.decisions(request.id)}) == 3


async def test_ten_simultaneous_approvals_by_one_person_count_once(ledger: Ledger, replica: Ledger) -> None:
    request, _ = await ledger.requests.submit(draft(counts=(2,)))
    tries = [approve(on, request) for on in (ledger, replica) * 5]
    won, lost = await race(tries)
    assert [r.state for r in won] == [State.PENDING]
    assert {e.obstacle for e in lost} == {Obstacle.ALREADY_DECIDED}


@pytest.mark.parametrize("other", [Transition.DENY, Transition.CANCEL, Transition.OUTDATE])
async def test_an_approval_and_a_closing_exclude_each_other(ledger: Ledger, replica: Ledger, other: Transition) -> None:
    for turn in range(ROUNDS):
        request, _ = await ledger.requests.submit(draft(person=f"U{turn}"))
        closing = command_for(other, request)
        tries = [
            approve(ledger, request, "ULEAD7"),
            replica.requests.advance(request.id, closing),
        ]
        won, lost = await race(tries if turn % 2 else tries[::-1])
        assert (len(won), len(lost)) == (1, 1)
        assert lost[0].request == won[0] == await ledger.requests.get(request.id)
        await _assert_user_is_planned_only_if_approved(ledger, won[0])


async def test_an_approval_and_a_timeout_exclude_each_other(
    ledger: Ledger, replica: Ledger, clock: TurnableClock
) -> None:
    for turn in range(ROUNDS):
        request, _ = await ledger.requests.submit(draft(person=f"U{turn}"))
        clock.time = request.lapses_at - timedelta(microseconds=turn % 2)
        won, lost = await race(
            [
                approve(ledger, request),
                replica.requests.advance(request.id, command_for(Transition.TIME_OUT, request)),
            ]
        )
        assert (len(won), len(lost)) == (1, 1)
        assert won[0].state is (State.APPROVED if turn % 2 else State.LAPSED)
        await _assert_user_is_planned_only_if_approved(ledger, won[0])


@pytest.mark.parametrize("step", [Transition.START, Transition.ACTIVATE, Transition.FAIL])
async def test_a_grant_that_is_ended_during_provisioning_is_revoked(
    ledger: Ledger, replica: Ledger, clock: TurnableClock, step: Transition
) -> None:
    """In either order, the grant is revoking, its revocation is due now, and nothing starts afterwards."""
    for turn in range(ROUNDS):
        request = await bring(ledger, clock, State.APPROVED, database=f"db-{turn}")
        if step is Transition.ACTIVATE:
            request = await ledger.requests.advance(request.id, command_for(Transition.START, request))
        tries = [
            replica.requests.advance(request.id, RevokeGrant(actor="U1", cause=Cause.DONE)),
            ledger.requests.advance(request.id, command_for(step, request)),
        ]
        won, lost = await race(tries if turn % 2 else tries[::-1])
        assert {e.obstacle for e in lost} <= {Obstacle.STATE}
        now = await ledger.requests.get(request.id)
        assert now.state is State.REVOKING
        assert now in won
        (revocation,) = [t for t in await ledger.tasks.all(request_id=request.id) if t.kind is TaskKind.REVOKE]
        assert revocation.due_at == clock()
        clock.turn(timedelta(seconds=1))


async def test_one_of_ten_simultaneous_ends_wins(ledger: Ledger, replica: Ledger, clock: TurnableClock) -> None:
    for turn in range(ROUNDS // 2):
        request = await bring(ledger, clock, State.ACTIVE, database=f"db-{turn}")
        causes = (Cause.DONE, Cause.REVOKED)
        won, lost = await race(
            [
                on.requests.advance(request.id, RevokeGrant(actor=f"U{cause}", cause=cause))
                for cause, on in zip(causes * 5, cycle((ledger, replica)), strict=False)
            ]
        )
        assert len(won) == 1
        assert {e.request.ended_because for e in lost} == {won[0].ended_because}
        assert [e.kind for e in await ledger.audit.history(request.id)].count(AuditKind.REVOKING) == 1
        clock.turn(timedelta(seconds=1))


async def test_a_command_delivered_ten_times_creates_one_request(ledger: Ledger, replica: Ledger) -> None:
    asked = await asyncio.gather(*[on.requests.submit(draft()) for on in (ledger, replica) * 5])
    assert len({request.id for request, _ in asked}) == 1
    assert [is_new for _, is_new in asked].count(True) == 1


async def test_a_reader_of_the_audit_log_misses_no_event_that_commits_late(ledger: Ledger, replica: Ledger) -> None:
    """Ids are assigned in one order and committed in another. The cursor must not pass a slow writer."""
    seen: list[int] = []
    writing = 120

    async def write(on: Ledger, count: int) -> None:
        for n in range(count):
            await on.audit.record(AuditKind.CLICK_REFUSED, actor=f"U{n}")

    async def read() -> None:
        while len(seen) < writing:
            seen.extend(e.id for e in await ledger.audit.events_after(seen[-1] if seen else 0, limit=7))
            await asyncio.sleep(0)

    writers = [write(on, writing // 6) for on in (ledger, replica) * 3]
    await asyncio.wait_for(asyncio.gather(read(), *writers), 300)
    stored = "SELECT id FROM audit_events ORDER BY id"
    assert seen == await ledger.database.read(lambda tx: list(tx.exec_driver_sql(stored).scalars()))


async def test_many_requests_go_through_their_lives_at_the_same_time(
    ledger: Ledger, replica: Ledger, clock: TurnableClock
) -> None:
    asked = [(await ledger.requests.submit(draft(person=f"U{n}")))[0] for n in range(12)]

    async def live(on: Ledger, request: Request) -> Request:
        for transition in PATHS[State.REVOKED]:
            request = await on.requests.advance(request.id, command_for(transition, request))
        return request

    ended = await asyncio.gather(*[live(on, r) for r, on in zip(asked, cycle((ledger, replica)), strict=False)])
    assert {r.state for r in ended} == {State.REVOKED}
    left = list(chain.from_iterable([await ledger.tasks.all(request_id=r.id) for r in ended]))
    assert TaskKind.REVOKE not in {t.kind for t in left}
    assert clock() + HOUR > max(t.due_at for t in left)


async def test_a_transition_that_waited_for_a_lock_uses_the_time_after_the_wait(
    ledger: Ledger, replica: Ledger, clock: TurnableClock
) -> None:
    """Another transaction has the row locked while the grant's end passes. ACTIVATE must then be refused."""
    request = await bring(ledger, clock, State.APPROVED)
    request = await ledger.requests.advance(request.id, command_for(Transition.START, request))
    async with open_transaction(replica, f"UPDATE requests SET reason = reason WHERE id = {request.id}"):
        waiting = asyncio.create_task(ledger.requests.advance(request.id, command_for(Transition.ACTIVATE, request)))
        await _blocked(replica)
        clock.turn(2 * HOUR)
    with pytest.raises(NotPossible) as lost:
        await waiting
    assert lost.value.obstacle is Obstacle.ENDED


async def _blocked(ledger: Ledger) -> None:
    """Wait until a transaction waits for a lock. SQLite does not show this, and there the time is read after the wait anyway."""
    deadline = asyncio.get_running_loop().time() + 10
    while not ledger.is_sqlite and asyncio.get_running_loop().time() < deadline:
        waits = "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted AND datname = current_database()"
        if await ledger.database.read(lambda tx, query=waits: tx.exec_driver_sql(query).scalar_one()):
            return


async def test_a_task_cannot_be_claimed_by_another_worker_during_its_transition(
    ledger: Ledger, replica: Ledger, clock: TurnableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease expires between the check of the claim and the commit. The other worker sees the task only after the commit.

    On PostgreSQL the other worker claims another task meanwhile, without waiting. SQLite has one writer at a time.
    """
    request = await bring(ledger, clock, State.APPROVED)
    while (claim := await ledger.tasks.claim("slow", LEASE)) is not None and claim.task.kind is not TaskKind.PROVISION:
        await ledger.tasks.finish(claim)
    assert claim is not None
    within, go_on, follow_up = asyncio.Event(), threading.Event(), interpreter.follow_up
    loop = asyncio.get_running_loop()

    def slowly(*arguments: Any) -> None:
        loop.call_soon_threadsafe(within.set)
        assert go_on.wait(TRANSACTION_PATIENCE)
        follow_up(*arguments)

    monkeypatch.setattr(interpreter, "follow_up", slowly)
    advancing = asyncio.create_task(
        ledger.requests.advance(request.id, command_for(Transition.START, request), claim=claim)
    )
    await within.wait()
    clock.turn(LEASE)
    other = asyncio.create_task(replica.tasks.claim("other", LEASE))
    await asyncio.wait([other], timeout=1 if ledger.is_sqlite else 10)
    taken_early = other.result() if other.done() else None
    go_on.set()
    assert (await advancing).started_at is not None
    await other
    assert (taken_early and taken_early.task.kind) == (None if ledger.is_sqlite else TaskKind.POST_CARD)


async def _assert_user_is_planned_only_if_approved(ledger: Ledger, request: Request) -> None:
    kinds = {t.kind for t in await ledger.tasks.all(request_id=request.id)}
    expected = {TaskKind.REVOKE, TaskKind.PROVISION} if request.state is State.APPROVED else set()
    assert kinds & {TaskKind.REVOKE, TaskKind.PROVISION} == expected
    assert TaskKind.TIME_OUT not in kinds


async def test_ten_simultaneous_requests_stay_within_a_limit(ledger: Ledger, replica: Ledger) -> None:
    drafts = [draft(database=f"db-{n % 3}") for n in range(10)]
    drafts = [replace(d, terms=replace(d.terms, duration=(n + 1) * HOUR)) for n, d in enumerate(drafts)]
    asked = await asyncio.gather(
        *(
            on.requests.submit(d, is_allowed=lambda usage: usage.waiting_of_person < 3)
            for d, on in zip(drafts, cycle((ledger, replica)), strict=False)
        ),
        return_exceptions=True,
    )
    assert sum(isinstance(one, LimitReached) for one in asked) == 7
    assert len(await ledger.requests.pending()) == 3


async def extension_of(ledger: Ledger, grant: Request, hours: int, *, max_total: timedelta) -> Request:
    more = draft(person=grant.requester_id)
    terms = replace(more.terms, duration=hours * HOUR, max_total=max_total)
    asked, _ = await ledger.requests.submit(replace(more, kind=RequestKind.EXTENSION, parent_id=grant.id, terms=terms))
    return asked


async def test_simultaneous_extensions_stay_within_max_total(
    ledger: Ledger, replica: Ledger, clock: TurnableClock
) -> None:
    for _ in range(ROUNDS // 4):
        grant = await bring(ledger, clock, State.ACTIVE)
        assert grant.expires_at is not None
        assert grant.started_at is not None
        max_total = grant.expires_at - grant.started_at + 4 * HOUR
        asked = [await extension_of(ledger, grant, hours, max_total=max_total) for hours in (1, 2, 3, 4)]
        tries = [approve(on, r) for r, on in zip(asked, (ledger, replica) * 2, strict=True)]
        won, lost = await race(tries)
        assert {e.obstacle for e in lost} == {Obstacle.TOO_LONG}
        after = await ledger.requests.get(grant.id)
        assert after.expires_at is not None
        assert after.expires_at - grant.expires_at == sum((r.duration or HOUR for r in won), timedelta()) <= 4 * HOUR
        clock.turn(HOUR / 60)


async def test_a_grant_that_ends_is_not_extended(ledger: Ledger, replica: Ledger, clock: TurnableClock) -> None:
    """In either order, the grant ends. The extension is applied only if it came first."""
    for _ in range(ROUNDS):
        grant = await bring(ledger, clock, State.ACTIVE)
        asked = await extension_of(ledger, grant, 1, max_total=48 * HOUR)
        over = RevokeGrant(actor=grant.requester_id, cause=Cause.DONE)
        won, lost = await race([
            approve(ledger, asked),
            replica.requests.advance(grant.id, over),
        ])  # fmt: skip
        after, extension = await ledger.requests.get(grant.id), await ledger.requests.get(asked.id)
        assert after.state is State.REVOKING
        assert {e.obstacle for e in lost} <= {Obstacle.GRANT_ENDED}
        assert (extension.state is State.APPLIED) == (after.expires_at != grant.expires_at)
        assert len(won) == 2 - len(lost)
        clock.turn(HOUR / 60)
