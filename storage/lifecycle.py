"""Every move a request can make, with its condition and the tasks that follow. Pure.

``TRANSITIONS`` is the architecture on one screen. ``Ledger.advance`` is the only caller that makes
it true: row taken, condition, compare-and-set, audit event and tasks in one transaction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, TypeAlias

from storage.audit import AuditKind
from storage.records import Cause, Decision, Json, Kind, Purpose, Request, State, TaskKind, Verdict

FILL_WITHIN = timedelta(minutes=5)
"""A credential message not filled this long after START fails the grant."""

WARN_AT_MOST = timedelta(minutes=15)
"""The requester is warned so long before the end; of a short grant in its last quarter."""


class Move(StrEnum):
    """The verbs of a request's life."""

    ASK = "ask"
    DECIDE = "decide"
    APPROVE = "approve"
    APPLY = "apply"
    DENY = "deny"
    CANCEL = "cancel"
    LAPSE = "lapse"
    OUTDATE = "outdate"
    START = "start"
    ACTIVATE = "activate"
    NOTE = "note"
    FAIL = "fail"
    REVOKE = "revoke"
    CONFIRM = "confirm"


class Why(StrEnum):
    """Why a move was not possible."""

    STATE = "the request has moved on"
    LAPSED = "its time is over"
    NOT_LAPSED = "its time is not over"
    ALREADY_DECIDED = "this person has decided before"
    STAGE_MOVED_ON = "another stage is open"
    STAGES_OPEN = "more people are needed"
    LOCKED_DOWN = "a lockdown is in force"
    TOO_LATE = "it may not begin any more"
    STARTED = "its clock runs already"
    NOT_STARTED = "its clock does not run yet"
    NOT_OURS = "the requester is no longer a member"
    ENDED = "its end has come"
    NOT_ENDED = "its end has not come"
    NO_RECEIPT = "nothing was read back from the server"
    CLAIM_LOST = "another worker has the task"
    GRANT_ENDED = "the grant it extends has ended"
    TOO_LONG = "the grant would live longer than it may in all"
    REVIEWED = "it was signed off before"


@dataclass(frozen=True, kw_only=True)
class Change:
    """What the caller of a move brings: who did it, and the facts to be written with it.

    ``set`` holds the columns of ``Request`` the move writes (username, target, identity, receipt …);
    the state, times and version are the table's. ``facts`` and ``text`` go into the audit event.
    """

    actor: str
    decision: Decision | None = None
    cause: Cause | None = None
    words: str | None = None
    requester_is_ours: bool = True
    set: Json = field(default_factory=dict)
    facts: Json = field(default_factory=dict)
    text: str | None = None
    audit: AuditKind | None = None


@dataclass(frozen=True, kw_only=True)
class Situation:
    """The request with its row taken, and all a condition may look at."""

    now: datetime
    request: Request
    decisions: tuple[Decision, ...]
    is_locked_down: bool
    change: Change
    parent: Request | None = None
    """The grant an extension is about, with its row taken before that of the extension."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A task that follows. ``is_single``: an unfinished one of this kind is moved to ``due_at`` instead of doubled."""

    kind: TaskKind
    lane: str
    due_at: datetime
    payload: Json = field(default_factory=dict)
    is_single: bool = False


Condition: TypeAlias = Callable[[Situation], Why | None]
Follow: TypeAlias = Callable[[Request, datetime], Plan | None]


@dataclass(frozen=True, kw_only=True)
class Transition:
    """One row of the table. ``messages``: rows written now, posted later. ``clears``: tasks with nothing left to do."""

    sources: frozenset[State]
    target: State | None
    audit: AuditKind
    only_if: tuple[Condition, ...] = ()
    then: tuple[Follow, ...] = ()
    clears: tuple[TaskKind, ...] = ()
    messages: tuple[Purpose, ...] = ()


def open_stage(request: Request, decisions: tuple[Decision, ...]) -> int | None:
    """The first stage that still lacks people, or None when all are complete. Counts distinct people."""
    for number, stage in enumerate(request.terms.stages):
        people = {d.person_id for d in decisions if d.verdict is Verdict.APPROVE and d.stage == number}
        if len(people) < stage.count:
            return number
    return None


def resolve(move: Move, request: Request, decisions: tuple[Decision, ...]) -> Move:
    """A DECIDE that completes the last stage is an APPROVE (or APPLY, for an extension)."""
    if move is not Move.DECIDE or open_stage(request, decisions) is not None:
        return move
    return Move.APPLY if request.kind is Kind.EXTENSION else Move.APPROVE


# Conditions: each answers None where the move may be made, else why not.


def not_lapsed(s: Situation) -> Why | None:
    """A waiting request can be decided until its time is over, even if the clock's own task is late."""
    return Why.LAPSED if s.now >= s.request.lapses_at else None


def is_lapsed(s: Situation) -> Why | None:
    """LAPSE belongs to the clock alone: its time is over, or the grant it extends has ended."""
    return None if s.now >= s.request.lapses_at or grant_lives(s) is not None else Why.NOT_LAPSED


def grant_lives(s: Situation) -> Why | None:
    """What is extended is live and its end has not come; whatever is no extension has nothing to ask here."""
    if s.request.kind is not Kind.EXTENSION:
        return None
    lives = s.parent is not None and s.parent.state is State.ACTIVE and s.parent.expires_at is not None
    return None if lives and s.now < moved_end(s.parent, timedelta(0)) else Why.GRANT_ENDED


def within_its_total(s: Situation) -> Why | None:
    """The whole life of the grant with this extension; checked with its row taken, since two may race."""
    assert s.parent is not None, "asked after grant_lives"
    assert s.parent.started_at is not None, "a live grant has begun"
    end = moved_end(s.parent, extension(s.request, s.change.decision))
    return None if end - s.parent.started_at <= s.request.terms.max_total else Why.TOO_LONG


def not_reviewed(s: Situation) -> Why | None:
    """A sign-off counts once."""
    mine = s.change.decision
    is_late = mine is not None and mine.verdict is Verdict.SIGN_OFF and s.request.reviewed_at is not None
    return Why.REVIEWED if is_late else None


def not_decided_before(s: Situation) -> Why | None:
    """A person decides once per request, over all stages."""
    mine = s.change.decision
    return Why.ALREADY_DECIDED if mine and any(d.person_id == mine.person_id for d in s.decisions) else None


def stage_is_open(s: Situation) -> Why | None:
    """The vote was judged for one stage; if another is open by now it must be judged again."""
    mine = s.change.decision
    return Why.STAGE_MOVED_ON if mine and mine.stage != open_stage(s.request, s.decisions) else None


def stages_complete(s: Situation) -> Why | None:
    """With this vote counted nobody is missing; an approval never comes from the caller's word alone."""
    mine = (s.change.decision,) if s.change.decision else ()
    return None if open_stage(s.request, (*s.decisions, *mine)) is None else Why.STAGES_OPEN


def not_locked_down(s: Situation) -> Why | None:
    """The lockdown row is read in the same transaction."""
    return Why.LOCKED_DOWN if s.is_locked_down else None


def may_still_start(s: Situation) -> Why | None:
    """START happens once, and only within provision_within of the approval."""
    if s.request.expires_at is not None:
        return Why.STARTED
    return Why.TOO_LATE if s.request.start_before is None or s.now >= s.request.start_before else None


def requester_is_ours(s: Situation) -> Why | None:
    """Looked up just before, outside the transaction; no answer was taken as no."""
    return None if s.change.requester_is_ours else Why.NOT_OURS


def end_is_ahead(s: Situation) -> Why | None:
    """Access whose end has come is never handed out."""
    if s.request.expires_at is None:
        return Why.NOT_STARTED
    return Why.ENDED if s.now >= s.request.expires_at else None


def end_has_come(s: Situation) -> Why | None:
    """Only the clock is bound to the time; a person ends a grant whenever they may."""
    if s.change.cause is Cause.UNCLAIMED:
        return None if s.request.unclaimed_at is not None and s.now >= s.request.unclaimed_at else Why.NOT_ENDED
    if s.change.cause not in (Cause.EXPIRED, Cause.NOT_STARTED):
        return None
    end = s.request.expires_at or latest_end(s.request)
    return None if s.now >= end else Why.NOT_ENDED


def has_receipt(s: Situation) -> Why | None:
    """Revoked means read back from the server, or declared gone by an admin; never assumed."""
    return None if s.change.set.get("receipt") else Why.NO_RECEIPT


def latest_end(request: Request) -> datetime:
    """When a grant that has not started is over at the latest."""
    assert request.start_before is not None, "an approved request has start_before"
    return request.start_before + (request.duration or request.terms.duration)


def extension(request: Request, last: Decision | None) -> timedelta:
    """How much longer an approved extension makes its grant: what was asked for, or less where the last approver said so."""
    return (last.duration if last else None) or request.terms.duration


def moved_end(grant: Request | None, by: timedelta) -> datetime:
    """The end of a live grant, moved by so much."""
    assert grant is not None, "a live grant"
    assert grant.expires_at is not None, "a live grant has its end"
    return grant.expires_at + by


def warn_at(request: Request) -> datetime:
    """When the requester of a live grant is told that its end comes."""
    assert request.expires_at is not None, "a live grant has its end"
    whole = request.expires_at - (request.started_at or request.asked_at)
    return request.expires_at - min(WARN_AT_MOST, whole / 4)


# What follows: each is given the request as it is after the move, and the time.


def db_lane(request: Request) -> str:
    """Everything that touches this request's user, and its credential message."""
    return f"db:{request.id}"


def slack_lane(request: Request) -> str:
    """Everything that draws this request's other messages."""
    return f"slack:{request.id}"


def _post_card(r: Request, now: datetime) -> Plan:
    return Plan(kind=TaskKind.POST_CARD, lane=slack_lane(r), due_at=now)


def _update_card(r: Request, now: datetime) -> Plan:
    return Plan(kind=TaskKind.UPDATE_CARD, lane=slack_lane(r), due_at=now, is_single=True)


def _tell(r: Request, now: datetime) -> Plan:
    return Plan(kind=TaskKind.TELL, lane=slack_lane(r), due_at=now, payload={"state": r.state.value})


def _lapse(r: Request, _now: datetime) -> Plan:
    return Plan(kind=TaskKind.LAPSE, lane=slack_lane(r), due_at=r.lapses_at, is_single=True)


def _remind(r: Request, now: datetime) -> Plan | None:
    if r.terms.remind_after is None or not r.terms.stages:
        return None
    return Plan(kind=TaskKind.REMIND, lane=slack_lane(r), due_at=now + r.terms.remind_after, is_single=True)


def _escalate(r: Request, now: datetime) -> Plan | None:
    if r.terms.escalation is None or not r.terms.stages:
        return None
    return Plan(kind=TaskKind.ESCALATE, lane=slack_lane(r), due_at=now + r.terms.escalation.after, is_single=True)


def _notify(r: Request, now: datetime) -> Plan | None:
    if not r.terms.notify and r.kind is not Kind.BREAK_GLASS:
        return None
    return Plan(kind=TaskKind.NOTIFY, lane=slack_lane(r), due_at=now, is_single=True)


def _warn_before_end(r: Request, now: datetime) -> Plan | None:
    if r.expires_at is None:
        return None
    return Plan(kind=TaskKind.WARN_BEFORE_END, lane=slack_lane(r), due_at=max(warn_at(r), now), is_single=True)


def _review(r: Request, now: datetime) -> Plan | None:
    if r.terms.review is None or not r.needs_review:
        return None
    return Plan(kind=TaskKind.REVIEW, lane=slack_lane(r), due_at=now + r.terms.review.within, is_single=True)


def _move_end(r: Request, now: datetime) -> Plan:
    return Plan(kind=TaskKind.MOVE_END, lane=db_lane(r), due_at=now, is_single=True)


def _revoke_at_the_end(r: Request, _now: datetime) -> Plan:
    end = r.expires_at or latest_end(r)
    return Plan(kind=TaskKind.REVOKE, lane=db_lane(r), due_at=min(end, r.unclaimed_at or end), is_single=True)


def _revoke_unclaimed(r: Request, now: datetime) -> Plan | None:
    return _revoke_at_the_end(r, now) if r.unclaimed_at else None


def _revoke_now(r: Request, now: datetime) -> Plan:
    return Plan(kind=TaskKind.REVOKE, lane=db_lane(r), due_at=now, is_single=True)


def _provision(r: Request, now: datetime) -> Plan:
    return Plan(kind=TaskKind.PROVISION, lane=db_lane(r), due_at=now, is_single=True)


def _close_credentials(r: Request, now: datetime) -> Plan:
    return Plan(kind=TaskKind.CLOSE_CREDENTIALS, lane=db_lane(r), due_at=now, is_single=True)


WAITING = frozenset({State.PENDING})
GIVEN = frozenset({State.APPROVED})
NOT_YET_ENDING = frozenset({State.APPROVED, State.ACTIVE})
ANY = frozenset(State)
CLOCKS_OF_WAITING = (TaskKind.LAPSE, TaskKind.REMIND, TaskKind.ESCALATE)
CLOSED = (_update_card, _tell)
ENDING = (_revoke_now, _close_credentials, _update_card)

TRANSITIONS: dict[Move, Transition] = {
    Move.ASK: Transition(
        sources=frozenset(),
        target=State.PENDING,
        audit=AuditKind.ASKED,
        then=(_post_card, _lapse, _remind, _escalate),
        messages=(Purpose.CARD,),
    ),
    Move.DECIDE: Transition(
        sources=WAITING,
        target=State.PENDING,
        audit=AuditKind.DECIDED,
        only_if=(not_lapsed, not_decided_before, stage_is_open),
        then=(_update_card,),
    ),
    Move.APPROVE: Transition(
        sources=WAITING,
        target=State.APPROVED,
        audit=AuditKind.APPROVED,
        only_if=(not_lapsed, not_decided_before, stage_is_open, stages_complete, not_locked_down),
        then=(_revoke_at_the_end, _provision, _update_card, _notify),
        clears=CLOCKS_OF_WAITING,
        messages=(Purpose.CREDENTIALS,),
    ),
    Move.APPLY: Transition(
        sources=WAITING,
        target=State.APPLIED,
        audit=AuditKind.APPLIED,
        only_if=(
            not_lapsed,
            not_decided_before,
            stage_is_open,
            stages_complete,
            not_locked_down,
            grant_lives,
            within_its_total,
        ),
        then=(*CLOSED, _notify),
        clears=CLOCKS_OF_WAITING,
    ),
    Move.DENY: Transition(
        sources=WAITING,
        target=State.DENIED,
        audit=AuditKind.DENIED,
        only_if=(not_lapsed, not_decided_before),
        then=CLOSED,
        clears=CLOCKS_OF_WAITING,
    ),
    Move.CANCEL: Transition(
        sources=WAITING,
        target=State.CANCELLED,
        audit=AuditKind.CANCELLED,
        then=CLOSED,
        clears=CLOCKS_OF_WAITING,
    ),
    Move.LAPSE: Transition(
        sources=WAITING,
        target=State.LAPSED,
        audit=AuditKind.LAPSED,
        only_if=(is_lapsed,),
        then=CLOSED,
        clears=CLOCKS_OF_WAITING,
    ),
    Move.OUTDATE: Transition(
        sources=WAITING,
        target=State.OUTDATED,
        audit=AuditKind.OUTDATED,
        then=CLOSED,
        clears=CLOCKS_OF_WAITING,
    ),
    Move.START: Transition(
        sources=GIVEN,
        target=State.APPROVED,
        audit=AuditKind.STARTED,
        only_if=(may_still_start, not_locked_down, requester_is_ours),
        then=(_revoke_at_the_end, _review),
    ),
    Move.ACTIVATE: Transition(
        sources=GIVEN,
        target=State.ACTIVE,
        audit=AuditKind.ACTIVATED,
        only_if=(end_is_ahead, not_locked_down),
        then=(_update_card, _warn_before_end, _revoke_unclaimed),
    ),
    Move.NOTE: Transition(
        sources=ANY,
        target=None,
        audit=AuditKind.NOTED,
        only_if=(not_decided_before, not_reviewed),
        then=(_update_card,),
    ),
    Move.FAIL: Transition(
        sources=GIVEN,
        target=State.REVOKING,
        audit=AuditKind.FAILED,
        then=(*ENDING, _tell),
        clears=(TaskKind.PROVISION,),
    ),
    Move.REVOKE: Transition(
        sources=NOT_YET_ENDING,
        target=State.REVOKING,
        audit=AuditKind.REVOKING,
        only_if=(end_has_come,),
        then=ENDING,
        clears=(TaskKind.PROVISION, TaskKind.PASSWORD, TaskKind.WARN_BEFORE_END),
    ),
    Move.CONFIRM: Transition(
        sources=frozenset({State.REVOKING}),
        target=State.REVOKED,
        audit=AuditKind.REVOKED,
        only_if=(has_receipt,),
        then=(_close_credentials, _update_card, _tell),
        clears=(TaskKind.REVOKE,),
    ),
}
"""A clear never removes a task that is claimed: its worker finds the state changed."""

EXTENDED = Transition(
    sources=frozenset({State.ACTIVE}),
    target=None,
    audit=AuditKind.EXTENDED,
    then=(_revoke_at_the_end, _warn_before_end, _move_end, _update_card),
)
"""What APPLY does to the grant, in the same transaction: its end, its ``revoke`` and its warning move together."""


# What a move writes besides state and version; pure, so that it can be read and tested as a table.

CLOSING = frozenset({Move.DENY, Move.CANCEL, Move.LAPSE, Move.OUTDATE})
BRINGS: dict[Move, frozenset[str]] = {
    Move.APPROVE: frozenset({"username", "target"}),
    Move.START: frozenset({"identity", "unsettled_until"}),
    Move.NOTE: frozenset({"unsettled_until"}),
    Move.CONFIRM: frozenset({"receipt"}),
}
"""Columns whose values the caller brings in ``Change.set``; every other column is the table's, or nobody's."""


def written(move: Move, before: Request, change: Change, now: datetime) -> dict[str, Any]:
    """Column values of ``move``. Raises ValueError where the caller brings more than it may.

    Whoever decides brings what an approval writes; where more people are needed it is left aside.
    """
    target = TRANSITIONS[move].target
    state: dict[str, Any] = {"state": target} if target is not None else {}
    brought = {} if move in (Move.DECIDE, Move.APPLY) else dict(change.set)
    if too_much := set(brought) - BRINGS.get(move, frozenset()):
        raise ValueError(f"{move} may not write {', '.join(sorted(too_much))}")
    return brought | state | _times(move, before, change, now) | _ending(move, change, now)


def _times(move: Move, before: Request, change: Change, now: datetime) -> dict[str, Any]:
    if move is Move.APPROVE:
        shorter = change.decision.duration if change.decision else None
        duration = shorter or before.terms.duration
        return {"approved_at": now, "duration": duration, "start_before": now + before.terms.provision_within}
    if move is Move.APPLY:
        return {"approved_at": now, "duration": extension(before, change.decision)}
    if move is Move.NOTE:
        return _noted(before, change, now)
    if move is Move.START:
        return {"started_at": now, "expires_at": now + (before.duration or before.terms.duration)}
    if move is Move.ACTIVATE:
        return {"activated_at": now, "unsettled_until": None}
    return {}


def _noted(before: Request, change: Change, now: datetime) -> dict[str, Any]:
    if change.decision is not None and change.decision.verdict is Verdict.SIGN_OFF:
        return {"reviewed_at": now}
    return {"claimed_at": before.claimed_at or now} if change.audit is AuditKind.PASSWORD_SHOWN else {}


def _ending(move: Move, change: Change, now: datetime) -> dict[str, Any]:
    if move is Move.APPLY:
        return {"ended_because": Cause.APPLIED, "ended_by": change.actor, "ended_at": now}
    if move in CLOSING:
        return {"ended_because": change.cause, "ended_by": change.actor, "ended_words": change.words, "ended_at": now}
    if move in (Move.REVOKE, Move.FAIL):
        return {"ended_because": change.cause, "ended_by": change.actor, "ended_words": change.words}
    return {"ended_at": now} if move is Move.CONFIRM else {}
