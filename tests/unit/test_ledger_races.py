"""Who is faster wins, once; everybody else learns what happened. On both stores, from two programs at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import chain, cycle
from typing import Any

import pytest

import storage.ledger as ledger_module
from storage.audit_log import AuditKind
from storage.commands import RevokeGrant
from storage.errors import LimitReached, NotPossible
from storage.ledger import Ledger
from storage.records import Cause, Purpose, Request, RequestKind, State, TaskKind
from storage.transitions import Obstacle, Transition
from tests.unit.ledgers import HOUR, LEASE, WAY, TurnableClock, approve, bring, command_for, draft

ROUNDS = 20


async def race(tries: Sequence[Awaitable[Request]]) -> tuple[list[Request], list[NotPossible]]:
    """Who won and who lost. Any other error is the test's."""
    ends = await asyncio.gather(*tries, return_exceptions=True)
    for end in ends:
        if isinstance(end, BaseException) and not isinstance(end, NotPossible):
            raise end
    return [e for e in ends if isinstance(e, Request)], [e for e in ends if isinstance(e, NotPossible)]


async def test_ten_approvals_at_once_are_one(ledger: Ledger, replica: Ledger) -> None:
    for turn in range(ROUNDS):
        request, _ = await ledger.submit(draft(person=f"U{turn}"))
        on = cycle((ledger, replica))
        won, lost = await race([approve(next(on), request, f"ULEAD{n}") for n in range(10)])
        assert [r.state for r in won] == [State.APPROVED]
        assert {(e.obstacle, e.request.state) for e in lost} == {(Obstacle.STATE, State.APPROVED)}
        (decision,) = await ledger.decisions(request.id)
        assert {e.decisions for e in lost} == {(decision,)}
        kinds = [t.kind for t in await ledger.tasks(request_id=request.id)]
        assert (kinds.count(TaskKind.REVOKE), kinds.count(TaskKind.PROVISION)) == (1, 1)
        assert len(await ledger.messages(request.id, Purpose.CREDENTIALS)) == 1
        approvals = [e for e in await ledger.history(request.id) if e.kind == AuditKind.APPROVED]
        assert [e.actor for e in approvals] == [decision.person_id]


async def test_three_of_three_among_ten_at_once(ledger: Ledger, replica: Ledger) -> None:
    for turn in range(ROUNDS // 2):
        request, _ = await ledger.submit(draft(counts=(3,), person=f"U{turn}"))
        people = [f"ULEAD{n}" for n in range(5)] * 2
        tries = [approve(on, request, p) for p, on in zip(people, cycle((ledger, replica)), strict=False)]
        won, lost = await race(tries)
        assert sorted(r.state for r in won) == [State.APPROVED, State.PENDING, State.PENDING]
        assert {e.obstacle for e in lost} <= {Obstacle.STATE, Obstacle.ALREADY_DECIDED}
        assert len({d.person_id for d in await ledger.decisions(request.id)}) == 3


async def test_one_person_clicking_ten_times_is_one_vote(ledger: Ledger, replica: Ledger) -> None:
    request, _ = await ledger.submit(draft(counts=(2,)))
    tries = [approve(on, request) for on in (ledger, replica) * 5]
    won, lost = await race(tries)
    assert [r.state for r in won] == [State.PENDING]
    assert {e.obstacle for e in lost} == {Obstacle.ALREADY_DECIDED}


@pytest.mark.parametrize("other", [Transition.DENY, Transition.CANCEL, Transition.OUTDATE])
async def test_an_approval_against_a_closing(ledger: Ledger, replica: Ledger, other: Transition) -> None:
    for turn in range(ROUNDS):
        request, _ = await ledger.submit(draft(person=f"U{turn}"))
        closing = command_for(other, request)
        tries = [
            approve(ledger, request, "ULEAD7"),
            replica.advance(request.id, closing),
        ]
        won, lost = await race(tries if turn % 2 else tries[::-1])
        assert (len(won), len(lost)) == (1, 1)
        assert lost[0].request == won[0] == await ledger.request(request.id)
        await _user_is_planned_exactly_if_approved(ledger, won[0])


async def test_an_approval_against_the_clock_s_lapse(ledger: Ledger, replica: Ledger, clock: TurnableClock) -> None:
    for turn in range(ROUNDS):
        request, _ = await ledger.submit(draft(person=f"U{turn}"))
        clock.moment = request.lapses_at - timedelta(microseconds=turn % 2)
        won, lost = await race(
            [
                approve(ledger, request),
                replica.advance(request.id, command_for(Transition.TIME_OUT, request)),
            ]
        )
        assert (len(won), len(lost)) == (1, 1)
        assert won[0].state is (State.APPROVED if turn % 2 else State.LAPSED)
        await _user_is_planned_exactly_if_approved(ledger, won[0])


@pytest.mark.parametrize("move", [Transition.START, Transition.ACTIVATE, Transition.FAIL])
async def test_an_end_against_the_bot_s_step(
    ledger: Ledger, replica: Ledger, clock: TurnableClock, move: Transition
) -> None:
    """Whoever is first, the grant is being ended, its revocation is due now, and nothing is started after it."""
    for turn in range(ROUNDS):
        request = await bring(ledger, clock, State.APPROVED, database=f"db-{turn}")
        if move is Transition.ACTIVATE:
            request = await ledger.advance(request.id, command_for(Transition.START, request))
        tries = [
            replica.advance(request.id, RevokeGrant(actor="U1", cause=Cause.DONE)),
            ledger.advance(request.id, command_for(move, request)),
        ]
        won, lost = await race(tries if turn % 2 else tries[::-1])
        assert {e.obstacle for e in lost} <= {Obstacle.STATE}
        now = await ledger.request(request.id)
        assert now.state is State.REVOKING
        assert now in won
        (revocation,) = [t for t in await ledger.tasks(request_id=request.id) if t.kind is TaskKind.REVOKE]
        assert revocation.due_at == clock()
        clock.turn(timedelta(seconds=1))


async def test_ten_ends_at_once_are_one(ledger: Ledger, replica: Ledger, clock: TurnableClock) -> None:
    for turn in range(ROUNDS // 2):
        request = await bring(ledger, clock, State.ACTIVE, database=f"db-{turn}")
        causes = (Cause.DONE, Cause.REVOKED)
        won, lost = await race(
            [
                on.advance(request.id, RevokeGrant(actor=f"U{cause}", cause=cause))
                for cause, on in zip(causes * 5, cycle((ledger, replica)), strict=False)
            ]
        )
        assert len(won) == 1
        assert {e.request.ended_because for e in lost} == {won[0].ended_because}
        assert [e.kind for e in await ledger.history(request.id)].count(AuditKind.REVOKING) == 1
        clock.turn(timedelta(seconds=1))


async def test_the_same_command_delivered_many_times_is_one_request(ledger: Ledger, replica: Ledger) -> None:
    asked = await asyncio.gather(*[on.submit(draft()) for on in (ledger, replica) * 5])
    assert len({request.id for request, _ in asked}) == 1
    assert [is_new for _, is_new in asked].count(True) == 1


async def test_a_reader_of_the_record_misses_nothing_that_commits_late(ledger: Ledger, replica: Ledger) -> None:
    """Numbers are given out in one order and committed in another; the cursor must not run ahead of a slow writer."""
    seen: list[int] = []
    writing = 120

    async def write(on: Ledger, count: int) -> None:
        for n in range(count):
            await on.record(AuditKind.CLICK_REFUSED, actor=f"U{n}")

    async def read() -> None:
        while len(seen) < writing:
            seen.extend(e.id for e in await ledger.events_after(seen[-1] if seen else 0, limit=7))
            await asyncio.sleep(0)

    writers = [write(on, writing // 6) for on in (ledger, replica) * 3]
    await asyncio.wait_for(asyncio.gather(read(), *writers), 300)
    async with ledger.reading() as tx:
        rows = (await tx.exec_driver_sql("SELECT id FROM audit_events ORDER BY id")).scalars().all()
    assert seen == list(rows)


async def test_moves_of_many_requests_at_once_do_not_hinder_each_other(
    ledger: Ledger, replica: Ledger, clock: TurnableClock
) -> None:
    asked = [(await ledger.submit(draft(person=f"U{n}")))[0] for n in range(12)]

    async def live(on: Ledger, request: Request) -> Request:
        for move in WAY[State.REVOKED]:
            request = await on.advance(request.id, command_for(move, request))
        return request

    ended = await asyncio.gather(*[live(on, r) for r, on in zip(asked, cycle((ledger, replica)), strict=False)])
    assert {r.state for r in ended} == {State.REVOKED}
    left = list(chain.from_iterable([await ledger.tasks(request_id=r.id) for r in ended]))
    assert TaskKind.REVOKE not in {t.kind for t in left}
    assert clock() + HOUR > max(t.due_at for t in left)


async def test_a_move_that_waited_is_judged_by_the_time_at_which_its_turn_came(
    ledger: Ledger, replica: Ledger, clock: TurnableClock
) -> None:
    """Somebody else has the row while the end passes: access whose end has come is not handed out."""
    request = await bring(ledger, clock, State.APPROVED)
    request = await ledger.advance(request.id, command_for(Transition.START, request))
    async with replica.writing() as tx:
        await tx.exec_driver_sql(f"UPDATE requests SET reason = reason WHERE id = {request.id}")
        waiting = asyncio.create_task(ledger.advance(request.id, command_for(Transition.ACTIVATE, request)))
        await _blocked(replica)
        clock.turn(2 * HOUR)
    with pytest.raises(NotPossible) as lost:
        await waiting
    assert lost.value.obstacle is Obstacle.ENDED


async def _blocked(ledger: Ledger) -> None:
    """Until somebody waits for a lock; SQLite does not tell, and takes the time after its turn anyway."""
    deadline = asyncio.get_running_loop().time() + 10
    while not ledger.is_sqlite and asyncio.get_running_loop().time() < deadline:
        async with ledger.reading() as tx:
            waits = "SELECT count(*) FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted AND datname = current_database()"
            if (await tx.exec_driver_sql(waits)).scalar_one():
                return


async def test_a_task_is_not_taken_over_in_the_middle_of_its_move(
    ledger: Ledger, replica: Ledger, clock: TurnableClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lease runs out between the look at the claim and the commit: the other worker sees the task after the move.

    On PostgreSQL it takes something else meanwhile and waits for nobody; on SQLite there is one writer at a time.
    """
    request = await bring(ledger, clock, State.APPROVED)
    while (claim := await ledger.claim("slow", LEASE)) is not None and claim.task.kind is not TaskKind.PROVISION:
        await ledger.finish(claim)
    assert claim is not None
    within, go_on, follow = asyncio.Event(), asyncio.Event(), ledger_module._follow

    async def slowly(*arguments: Any) -> None:
        within.set()
        await go_on.wait()
        await follow(*arguments)

    monkeypatch.setattr(ledger_module, "_follow", slowly)
    moving = asyncio.create_task(ledger.advance(request.id, command_for(Transition.START, request), claim=claim))
    await within.wait()
    clock.turn(LEASE)
    other = asyncio.create_task(replica.claim("other", LEASE))
    await asyncio.wait([other], timeout=1 if ledger.is_sqlite else 10)
    taken_early = other.result() if other.done() else None
    go_on.set()
    assert (await moving).started_at is not None
    await other
    assert (taken_early and taken_early.task.kind) == (None if ledger.is_sqlite else TaskKind.POST_CARD)


async def _user_is_planned_exactly_if_approved(ledger: Ledger, request: Request) -> None:
    kinds = {t.kind for t in await ledger.tasks(request_id=request.id)}
    expected = {TaskKind.REVOKE, TaskKind.PROVISION} if request.state is State.APPROVED else set()
    assert kinds & {TaskKind.REVOKE, TaskKind.PROVISION} == expected
    assert TaskKind.TIME_OUT not in kinds


async def test_ten_asks_at_once_stay_within_a_limit(ledger: Ledger, replica: Ledger) -> None:
    drafts = [draft(database=f"db-{n % 3}") for n in range(10)]
    drafts = [replace(d, terms=replace(d.terms, duration=(n + 1) * HOUR)) for n, d in enumerate(drafts)]
    asked = await asyncio.gather(
        *(
            on.submit(d, is_allowed=lambda tally: tally.waiting_of_person < 3)
            for d, on in zip(drafts, cycle((ledger, replica)), strict=False)
        ),
        return_exceptions=True,
    )
    assert sum(isinstance(one, LimitReached) for one in asked) == 7
    assert len(await ledger.pending_requests()) == 3


async def more_time(ledger: Ledger, grant: Request, hours: int, *, in_all: timedelta) -> Request:
    more = draft(person=grant.requester_id)
    terms = replace(more.terms, duration=hours * HOUR, max_total=in_all)
    asked, _ = await ledger.submit(replace(more, kind=RequestKind.EXTENSION, parent_id=grant.id, terms=terms))
    return asked


async def test_extensions_at_once_never_pass_the_whole_life_of_a_grant(
    ledger: Ledger, replica: Ledger, clock: TurnableClock
) -> None:
    for _ in range(ROUNDS // 4):
        grant = await bring(ledger, clock, State.ACTIVE)
        assert grant.expires_at is not None
        assert grant.started_at is not None
        in_all = grant.expires_at - grant.started_at + 4 * HOUR
        asked = [await more_time(ledger, grant, hours, in_all=in_all) for hours in (1, 2, 3, 4)]
        tries = [approve(on, r) for r, on in zip(asked, (ledger, replica) * 2, strict=True)]
        won, lost = await race(tries)
        assert {e.obstacle for e in lost} == {Obstacle.TOO_LONG}
        after = await ledger.request(grant.id)
        assert after.expires_at is not None
        assert after.expires_at - grant.expires_at == sum((r.duration or HOUR for r in won), timedelta()) <= 4 * HOUR
        clock.turn(HOUR / 60)


async def test_an_extension_against_the_end(ledger: Ledger, replica: Ledger, clock: TurnableClock) -> None:
    """Whoever is first: a grant that ends is never extended, and one that was extended ends as it was told to."""
    for _ in range(ROUNDS):
        grant = await bring(ledger, clock, State.ACTIVE)
        asked = await more_time(ledger, grant, 1, in_all=48 * HOUR)
        over = RevokeGrant(actor=grant.requester_id, cause=Cause.DONE)
        won, lost = await race([
            approve(ledger, asked),
            replica.advance(grant.id, over),
        ])  # fmt: skip
        after, extension = await ledger.request(grant.id), await ledger.request(asked.id)
        assert after.state is State.REVOKING
        assert {e.obstacle for e in lost} <= {Obstacle.GRANT_ENDED}
        assert (extension.state is State.APPLIED) == (after.expires_at != grant.expires_at)
        assert len(won) == 2 - len(lost)
        clock.turn(HOUR / 60)
