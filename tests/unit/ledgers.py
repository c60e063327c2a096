"""What the ledger's tests start from: a clock to turn, an ask, and a request brought to any state."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from storage.ledger import Ledger
from storage.records import Cause, Decision, Draft, Request, RequestKind, Stage, State, Terms, Verdict
from storage.transitions import Transition, TransitionInput

START = datetime(2026, 11, 23, 10, 0, 0, 123456, tzinfo=UTC)
HOUR = timedelta(hours=1)
LEASE = timedelta(seconds=90)
TARGET = {"engine": "postgresql", "admin_url": "env:ORDERS_ADMIN_URL"}


@dataclass
class TurnableClock:
    """Stands still until it is turned."""

    moment: datetime = START

    def __call__(self) -> datetime:
        return self.moment

    def turn(self, by: timedelta) -> None:
        self.moment += by


def terms(*, counts: Iterable[int] = (1,), **changes: Any) -> Terms:
    frozen = Terms(
        rule="orders",
        stages=tuple(Stage(approvers=("U01LEAD", "U02LEAD"), count=count) for count in counts),
        channel="C01DBACCESS",
        duration=2 * HOUR,
        request_ttl=24 * HOUR,
        provision_within=HOUR,
        delivery="dm",
        level={"name": "readonly", "roles": ["orders_reader"]},
        policy_digest="abc123",
    )
    return replace(frozen, **changes)


def draft(*, counts: Iterable[int] = (1,), person: str = "U01REQUESTER", **changes: Any) -> Draft:
    asked = Draft(
        kind=RequestKind.ACCESS,
        team_id="T01TEAM",
        requester_id=person,
        requester_name="Ada",
        database="orders-prod",
        level="readonly",
        reason="PAY-311 a refund",
        terms=terms(counts=counts),
    )
    return replace(asked, **changes)


def vote(
    request: Request,
    person: str = "U01LEAD",
    *,
    verdict: Verdict = Verdict.APPROVE,
    stage: int = 0,
    at: datetime = START,
    duration: timedelta | None = None,
) -> Decision:
    return Decision(
        request_id=request.id,
        person_id=person,
        person_name=f"name of {person}",
        verdict=verdict,
        stage=stage,
        at=at,
        duration=duration,
    )


def approval(request: Request, person: str = "U01LEAD", **more: Any) -> TransitionInput:
    grant = {"username": f"jit_{request.id}_ada_{request.key[:4]}", "target": TARGET}
    return TransitionInput(actor=person, decision=vote(request, person, **more), set=grant)


def input_for(move: Transition, request: Request) -> TransitionInput:
    """What an honest caller brings for this move."""
    bot = TransitionInput(actor="bot")
    changes = {
        Transition.DECIDE: approval(request),
        Transition.APPROVE: approval(request),
        Transition.DENY: TransitionInput(
            actor="U01LEAD",
            decision=vote(request, verdict=Verdict.DENY),
            cause=Cause.DENIED,
            words="not today",
            text="not today",
        ),
        Transition.CANCEL: TransitionInput(actor=request.requester_id, cause=Cause.CANCELLED),
        Transition.LAPSE: TransitionInput(actor="clock", cause=Cause.LAPSED),
        Transition.OUTDATE: TransitionInput(actor="policy", cause=Cause.OUTDATED, words="the level changed"),
        Transition.START: replace(bot, set={"identity": "server-1", "unsettled_until": START + HOUR}),
        Transition.NOTE: replace(bot, set={"unsettled_until": START + 2 * HOUR}),
        Transition.FAIL: replace(bot, cause=Cause.FAILED, words="the database said no"),
        Transition.REVOKE: TransitionInput(actor="U01ADMIN", cause=Cause.REVOKED),
        Transition.CONFIRM: replace(bot, set={"receipt": {"was_absent": False, "sessions_ended": 1}}),
    }
    return changes.get(move, bot)


WAY: dict[State, tuple[Transition, ...]] = {
    State.PENDING: (),
    State.APPROVED: (Transition.DECIDE,),
    State.ACTIVE: (Transition.DECIDE, Transition.START, Transition.ACTIVATE),
    State.REVOKING: (Transition.DECIDE, Transition.START, Transition.ACTIVATE, Transition.REVOKE),
    State.REVOKED: (Transition.DECIDE, Transition.START, Transition.ACTIVATE, Transition.REVOKE, Transition.CONFIRM),
    State.DENIED: (Transition.DENY,),
    State.CANCELLED: (Transition.CANCEL,),
    State.OUTDATED: (Transition.OUTDATE,),
}
"""The shortest way to each state; LAPSED needs the clock turned."""


async def bring(ledger: Ledger, clock: TurnableClock, state: State, **ask: Any) -> Request:
    """A fresh request in this state."""
    request, _ = await ledger.ask(draft(person=f"U{clock.moment.timestamp()}{state}", **ask))
    if state is State.LAPSED:
        clock.turn(24 * HOUR)
        return await ledger.advance(request.id, Transition.LAPSE, input_for(Transition.LAPSE, request))
    for move in WAY[state]:
        request = await ledger.advance(request.id, move, input_for(move, request))
    assert request.state is state
    return request


async def open_ledger(url: str, clock: TurnableClock | None = None) -> Ledger:
    ledger = Ledger(url, clock=clock)
    await ledger.open(create=True)
    return ledger
