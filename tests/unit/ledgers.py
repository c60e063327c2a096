"""Set-up of the ledger's tests: a turnable clock, drafts, commands, and a request in any state."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Executable

from storage.commands import (
    ActivateGrant,
    ApplyExtension,
    ApproveRequest,
    ApproveStage,
    CancelRequest,
    Command,
    ConfirmRevocation,
    DenyRequest,
    Escalate,
    ExtendGrant,
    FailGrant,
    OutdateRequest,
    RenewPassword,
    Repair,
    RetryProvision,
    RevokeGrant,
    ShowPassword,
    SignOff,
    StartGrant,
    TimeOutRequest,
)
from storage.errors import NotPossible
from storage.ledger import Ledger
from storage.records import (
    Cause,
    Decision,
    Draft,
    Receipt,
    ReceiptOutcome,
    Request,
    RequestKind,
    Stage,
    State,
    Terms,
    Verdict,
)
from storage.transitions import Obstacle, Transition, open_stage

START = datetime(2026, 11, 23, 10, 0, 0, 123456, tzinfo=UTC)
HOUR = timedelta(hours=1)
LEASE = timedelta(seconds=90)
TRANSACTION_PATIENCE = 60.0
"""Seconds after which a transaction of a test gives up, so that a fault fails the test and does not block it."""
TARGET = {"engine": "postgresql", "admin_url": "env:ORDERS_ADMIN_URL"}


@dataclass
class TurnableClock:
    """A clock that stands still until a test turns it."""

    time: datetime = START

    def __call__(self) -> datetime:
        return self.time

    def turn(self, by: timedelta) -> None:
        self.time += by


def terms(*, counts: Iterable[int] = (1,), **changes: Any) -> Terms:
    usual = Terms(
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
    return replace(usual, **changes)


def draft(*, counts: Iterable[int] = (1,), person: str = "U01REQUESTER", **changes: Any) -> Draft:
    usual = Draft(
        kind=RequestKind.ACCESS,
        team_id="T01TEAM",
        requester_id=person,
        requester_name="Ada",
        database="orders-prod",
        level="readonly",
        reason="PAY-311 a refund",
        terms=terms(counts=counts),
    )
    return replace(usual, **changes)


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


RECEIPT = Receipt(outcome=ReceiptOutcome.VERIFIED, sessions_ended=1, read_back_at=START)


def approval(
    request: Request, person: str = "U01LEAD", *, made: tuple[Decision, ...] = (), **more: Any
) -> ApproveStage | ApproveRequest | ApplyExtension:
    """The command of an approval that follows the decisions in ``made``."""
    decision = vote(request, person, **more)
    if open_stage(request, (*made, decision)) is not None:
        return ApproveStage(actor=person, decision=decision)
    if request.kind is RequestKind.EXTENSION:
        return ApplyExtension(actor=person, decision=decision)
    username = f"jit_{request.id}_ada_{request.key[:4]}"
    return ApproveRequest(actor=person, decision=decision, username=username, target=TARGET)


async def approve(ledger: Ledger, request: Request, person: str = "U01LEAD", **more: Any) -> Request:
    """Approve as the use case does: try again if another approval was stored meanwhile."""
    while True:
        command = approval(request, person, made=await ledger.requests.decisions(request.id), **more)
        try:
            return await ledger.requests.advance(request.id, command)
        except NotPossible as lost:
            if lost.obstacle not in (Obstacle.STAGES_OPEN, Obstacle.STAGES_COMPLETE):
                raise


def command_for(transition: Transition, request: Request) -> Command:
    """A valid command for this transition."""
    username = f"jit_{request.id}_ada_{request.key[:4]}"
    bot, decision = "bot", vote(request)
    commands: dict[Transition, Command] = {
        Transition.APPROVE_STAGE: ApproveStage(actor="U01LEAD", decision=decision),
        Transition.APPROVE: ApproveRequest(actor="U01LEAD", decision=decision, username=username, target=TARGET),
        Transition.APPLY_EXTENSION: ApplyExtension(actor="U01LEAD", decision=decision),
        Transition.EXTEND: ExtendGrant(actor="U01LEAD", by=HOUR),
        Transition.DENY: DenyRequest(
            actor="U01LEAD", decision=vote(request, verdict=Verdict.DENY), note="not today", text="not today"
        ),
        Transition.CANCEL: CancelRequest(actor=request.requester_id),
        Transition.TIME_OUT: TimeOutRequest(actor="clock"),
        Transition.OUTDATE: OutdateRequest(actor="policy", note="the level changed"),
        Transition.ESCALATE: Escalate(actor="clock"),
        Transition.START: StartGrant(
            actor=bot, identity="server-1", unsettled_until=START + HOUR, requester_is_member=True
        ),
        Transition.RETRY_PROVISION: RetryProvision(actor=bot, unsettled_until=START + 2 * HOUR),
        Transition.ACTIVATE: ActivateGrant(actor=bot),
        Transition.RENEW_PASSWORD: RenewPassword(actor=request.requester_id),
        Transition.SHOW_PASSWORD: ShowPassword(actor=request.requester_id),
        Transition.SIGN_OFF: SignOff(actor="U09", decision=vote(request, "U09", verdict=Verdict.SIGN_OFF)),
        Transition.REPAIR: Repair(actor=bot),
        Transition.FAIL: FailGrant(actor=bot, note="the database refused"),
        Transition.REVOKE: RevokeGrant(actor="U01ADMIN", cause=Cause.REVOKED),
        Transition.CONFIRM: ConfirmRevocation(actor=bot, receipt=RECEIPT),
    }
    return commands[transition]


PATHS: dict[State, tuple[Transition, ...]] = {
    State.PENDING: (),
    State.APPROVED: (Transition.APPROVE,),
    State.ACTIVE: (Transition.APPROVE, Transition.START, Transition.ACTIVATE),
    State.REVOKING: (Transition.APPROVE, Transition.START, Transition.ACTIVATE, Transition.REVOKE),
    State.REVOKED: (Transition.APPROVE, Transition.START, Transition.ACTIVATE, Transition.REVOKE, Transition.CONFIRM),
    State.DENIED: (Transition.DENY,),
    State.CANCELLED: (Transition.CANCEL,),
    State.OUTDATED: (Transition.OUTDATE,),
}
"""The shortest path to each state. LAPSED also needs the clock turned, and APPLIED an extension."""


async def bring(ledger: Ledger, clock: TurnableClock, state: State, **changes: Any) -> Request:
    """A new request in this state."""
    if state is State.APPLIED:
        grant = await bring(ledger, clock, State.ACTIVE, **changes)
        extended = draft(person=grant.requester_id, kind=RequestKind.EXTENSION, parent_id=grant.id)
        request, _ = await ledger.requests.submit(extended)
        return await approve(ledger, request)
    request, _ = await ledger.requests.submit(draft(person=f"U{clock.time.timestamp()}{state}", **changes))
    if state is State.LAPSED:
        clock.turn(24 * HOUR)
        return await ledger.requests.advance(request.id, command_for(Transition.TIME_OUT, request))
    for transition in PATHS[state]:
        request = await ledger.requests.advance(request.id, command_for(transition, request))
    assert request.state is state
    return request


def make_ledger(url: str) -> None:
    """Create a ledger, also from inside a running event loop. A bot creates none while its servers do not answer."""

    async def make() -> None:
        await (await open_ledger(url)).close()

    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, make()).result()


async def open_ledger(url: str, clock: TurnableClock | None = None) -> Ledger:
    ledger = Ledger(url, clock=clock)
    await ledger.open(create=True)
    return ledger


async def execute(ledger: Ledger, statement: Executable | str) -> int:
    """Run one statement in a transaction of its own. Returns the number of changed rows."""

    def transaction(tx: Connection) -> int:
        return (tx.exec_driver_sql(statement) if isinstance(statement, str) else tx.execute(statement)).rowcount

    return await ledger.database.write(transaction, announce=False)


class RollBack(Exception):
    """Rolls a transaction back."""


@asynccontextmanager
async def open_transaction(ledger: Ledger, statement: str, *, rolls_back: bool = False) -> AsyncIterator[None]:
    """A transaction that has run this statement, and commits or rolls back at the end of the block."""
    loop, begun, may_end = asyncio.get_running_loop(), asyncio.Event(), threading.Event()

    def transaction(tx: Connection) -> None:
        tx.exec_driver_sql(statement)
        loop.call_soon_threadsafe(begun.set)
        assert may_end.wait(TRANSACTION_PATIENCE), "the block did not end"
        if rolls_back:
            raise RollBack

    running = asyncio.create_task(ledger.database.write(transaction))
    try:
        await asyncio.wait_for(begun.wait(), TRANSACTION_PATIENCE)
        yield
    finally:
        may_end.set()
        (outcome,) = await asyncio.gather(running, return_exceptions=True)
    if isinstance(outcome, BaseException) and not isinstance(outcome, RollBack):
        raise outcome
