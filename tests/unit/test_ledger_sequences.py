"""Random sequences of transitions follow ``TRANSITIONS``, and every live grant has its revocation task."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.commands import Command, RevokeGrant
from storage.errors import NotPossible
from storage.ledger import Ledger
from storage.lifecycle import TRANSITIONS
from storage.records import Cause, Decision, Request, State, TaskKind
from storage.transitions import Transition
from tests.soak import rounds
from tests.unit.ledgers import TurnableClock, approval, command_for, draft, open_ledger

ALL = [transition for transition in TRANSITIONS if transition not in (Transition.REQUEST, Transition.EXTEND)]
PEOPLE = [f"U0{n}LEAD" for n in range(3)]
MINUTES = [0, 0, 0, 0, 1, 30, 61, 150, 1500]

Try: TypeAlias = tuple[Transition | None, str, int, bool]

steps = st.lists(
    st.tuples(st.none() | st.sampled_from(ALL), st.sampled_from(PEOPLE), st.sampled_from(MINUTES), st.booleans()),
    min_size=3,
    max_size=14,
)
numbers = count()


def next_step(request: Request) -> Transition:
    """The next step of a successful life, so that the sequences get beyond its beginning."""
    if request.state is State.APPROVED:
        return Transition.ACTIVATE if request.expires_at else Transition.START
    usual = {State.PENDING: Transition.APPROVE, State.ACTIVE: Transition.REVOKE, State.REVOKING: Transition.CONFIRM}
    return usual.get(request.state, Transition.REPAIR)


def command_of(
    transition: Transition, request: Request, person: str, made: tuple[Decision, ...], *, by_clock: bool
) -> Command:
    if transition in (Transition.APPROVE_STAGE, Transition.APPROVE):
        return approval(request, person, made=made)
    if transition is Transition.REVOKE and by_clock:
        return RevokeGrant(actor="clock", cause=Cause.EXPIRED if request.expires_at else Cause.NOT_STARTED)
    return command_for(transition, request)


async def assert_invariants(ledger: Ledger, request: Request) -> None:
    revocations = [t for t in await ledger.tasks.all(request_id=request.id) if t.kind is TaskKind.REVOKE]
    assert len(revocations) == (1 if request.is_live else 0)
    if request.state is State.ACTIVE:
        assert revocations[0].due_at == request.expires_at
    assert len(await ledger.audit.history(request.id)) == request.version
    assert (request.ended_at is not None) == request.state.is_over
    assert (request.receipt is not None) == (request.state is State.REVOKED)
    assert (request.username is not None) == (request.approved_at is not None)
    people = [d.person_id for d in await ledger.requests.decisions(request.id)]
    assert len(people) == len(set(people))
    if request.approved_at is not None:
        assert len(people) == request.terms.stages[0].count


async def assert_sequence_follows_the_table(url: str, quorum: int, taken: list[Try]) -> None:
    clock = TurnableClock()
    ledger = await open_ledger(url, clock)
    request, _ = await ledger.requests.submit(draft(counts=(quorum,), person=f"U{next(numbers)}"))
    started = None
    for tried, person, minutes, by_clock in taken:
        clock.turn(timedelta(minutes=minutes))
        decisions = await ledger.requests.decisions(request.id)
        command = command_of(tried or next_step(request), request, person, decisions, by_clock=by_clock)
        try:
            after = await ledger.requests.advance(request.id, command)
        except NotPossible as error:
            lost = error
        else:
            lost = None
        if lost is not None:
            assert lost.request == request == await ledger.requests.get(request.id)
            continue
        rule = TRANSITIONS[command.transition]
        assert request.state in rule.sources
        assert after.state is (rule.target or request.state)
        assert after.version == request.version + 1
        started = started or after.expires_at
        assert after.expires_at == started, "the expiry is written once"
        request = after
        await assert_invariants(ledger, request)
    await ledger.close()


@pytest.mark.parametrize("quorum", [1, 2])
@settings(max_examples=rounds(60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(taken=steps)
def test_any_sequence_of_transitions_follows_the_table(tmp_path: Path, quorum: int, taken: list[Try]) -> None:
    asyncio.run(assert_sequence_follows_the_table(f"sqlite+aiosqlite:///{tmp_path / 'ledger.db'}", quorum, taken))
