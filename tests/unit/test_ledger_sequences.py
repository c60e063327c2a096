"""Whatever is tried in whatever order: no request leaves the table, and what is live has its end on disk."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.errors import NotPossible
from storage.ledger import Ledger
from storage.lifecycle import TRANSITIONS, resolve
from storage.records import Cause, Request, State, TaskKind
from storage.transitions import Transition, TransitionInput
from tests.soak import rounds
from tests.unit.ledgers import TurnableClock, approval, draft, input_for, open_ledger

MOVES = [move for move in TRANSITIONS if move is not Transition.ASK]
PEOPLE = [f"U0{n}LEAD" for n in range(3)]
MINUTES = [0, 0, 0, 0, 1, 30, 61, 150, 1500]

Try: TypeAlias = tuple[Transition | None, str, int, bool]

steps = st.lists(
    st.tuples(st.none() | st.sampled_from(MOVES), st.sampled_from(PEOPLE), st.sampled_from(MINUTES), st.booleans()),
    min_size=3,
    max_size=14,
)
numbers = count()


def onwards(request: Request) -> Transition:
    """The next step of a life that goes well, so that the tries get beyond its beginning."""
    if request.state is State.APPROVED:
        return Transition.ACTIVATE if request.expires_at else Transition.START
    return {State.PENDING: Transition.DECIDE, State.ACTIVE: Transition.REVOKE, State.REVOKING: Transition.CONFIRM}.get(
        request.state, Transition.NOTE
    )


def brought(move: Transition, request: Request, person: str, *, by_clock: bool) -> TransitionInput:
    if move in (Transition.DECIDE, Transition.APPROVE):
        return approval(request, person)
    if move is Transition.REVOKE and by_clock:
        cause = Cause.EXPIRED if request.expires_at else Cause.NOT_STARTED
        return TransitionInput(actor="clock", cause=cause)
    return input_for(move, request)


async def assert_invariants(ledger: Ledger, request: Request) -> None:
    revocations = [t for t in await ledger.tasks(request_id=request.id) if t.kind is TaskKind.REVOKE]
    assert len(revocations) == (1 if request.is_live else 0)
    if request.state is State.ACTIVE:
        assert revocations[0].due_at == request.expires_at
    assert len(await ledger.history(request.id)) == request.version
    assert (request.ended_at is not None) == request.state.is_over
    assert (request.receipt is not None) == (request.state is State.REVOKED)
    assert (request.username is not None) == (request.approved_at is not None)
    people = [d.person_id for d in await ledger.decisions(request.id)]
    assert len(people) == len(set(people))
    if request.approved_at is not None:
        assert len(people) == request.terms.stages[0].count


async def assert_table_is_kept(url: str, quorum: int, taken: list[Try]) -> None:
    clock = TurnableClock()
    ledger = await open_ledger(url, clock)
    request, _ = await ledger.ask(draft(counts=(quorum,), person=f"U{next(numbers)}"))
    started = None
    for tried, person, minutes, by_clock in taken:
        clock.turn(timedelta(minutes=minutes))
        move = tried or onwards(request)
        change = brought(move, request, person, by_clock=by_clock)
        decisions = await ledger.decisions(request.id)
        try:
            after = await ledger.advance(request.id, move, change)
        except NotPossible as error:
            lost = error
        else:
            lost = None
        if lost is not None:
            assert lost.request == request == await ledger.request(request.id)
            continue
        made = resolve(move, request, (*decisions, *((change.decision,) if change.decision else ())))
        assert request.state in TRANSITIONS[made].sources
        assert after.state is (TRANSITIONS[made].target or request.state)
        assert after.version == request.version + 1
        started = started or after.expires_at
        assert after.expires_at == started, "the end is written once"
        request = after
        await assert_invariants(ledger, request)
    await ledger.close()


@pytest.mark.parametrize("quorum", [1, 2])
@settings(max_examples=rounds(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(taken=steps)
def test_no_order_of_moves_leaves_the_table(tmp_path: Path, quorum: int, taken: list[Try]) -> None:
    asyncio.run(assert_table_is_kept(f"sqlite+aiosqlite:///{tmp_path / 'ledger.db'}", quorum, taken))
