"""Every move a request can make, with its condition and the tasks that follow. Pure.

``TRANSITIONS`` is the architecture on one screen. ``Ledger.advance`` is the only caller that makes
it true: row taken, condition, compare-and-set, audit event and tasks in one transaction.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from storage.audit_log import AuditKind
from storage.guards import (
    end_has_come,
    end_is_ahead,
    grant_lives,
    has_receipt,
    is_lapsed,
    may_still_start,
    not_decided_before,
    not_lapsed,
    not_locked_down,
    not_reviewed,
    requester_is_member,
    stage_is_open,
    stages_complete,
    within_its_total,
)
from storage.records import Cause, Decision, Purpose, Request, RequestKind, State, TaskKind, Verdict
from storage.task_plans import (
    close_credentials,
    escalate,
    lapse,
    move_expiry,
    notify,
    post_card,
    provision,
    remind,
    review,
    revoke_at_the_end,
    revoke_now,
    revoke_unclaimed,
    tell,
    update_card,
    warn_before_end,
)
from storage.transitions import Transition, TransitionInput, TransitionRule, extension, open_stage


def resolve(move: Transition, request: Request, decisions: tuple[Decision, ...]) -> Transition:
    """A DECIDE that completes the last stage is an APPROVE (or APPLY, for an extension)."""
    if move is not Transition.DECIDE or open_stage(request, decisions) is not None:
        return move
    return Transition.APPLY if request.kind is RequestKind.EXTENSION else Transition.APPROVE


WAITING = frozenset({State.PENDING})
GIVEN = frozenset({State.APPROVED})
NOT_YET_ENDING = frozenset({State.APPROVED, State.ACTIVE})
ANY = frozenset(State)
CLOCKS_OF_WAITING = (TaskKind.LAPSE, TaskKind.REMIND, TaskKind.ESCALATE)
CLOSED = (update_card, tell)
ENDING = (revoke_now, close_credentials, update_card)

TRANSITIONS: dict[Transition, TransitionRule] = {
    Transition.ASK: TransitionRule(
        sources=frozenset(),
        target=State.PENDING,
        audit=AuditKind.ASKED,
        then=(post_card, lapse, remind, escalate),
        messages=(Purpose.CARD,),
    ),
    Transition.DECIDE: TransitionRule(
        sources=WAITING,
        target=State.PENDING,
        audit=AuditKind.DECIDED,
        only_if=(not_lapsed, not_decided_before, stage_is_open),
        then=(update_card,),
    ),
    Transition.APPROVE: TransitionRule(
        sources=WAITING,
        target=State.APPROVED,
        audit=AuditKind.APPROVED,
        only_if=(not_lapsed, not_decided_before, stage_is_open, stages_complete, not_locked_down),
        then=(revoke_at_the_end, provision, update_card, notify),
        clears=CLOCKS_OF_WAITING,
        messages=(Purpose.CREDENTIALS,),
    ),
    Transition.APPLY: TransitionRule(
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
        then=(*CLOSED, notify),
        clears=CLOCKS_OF_WAITING,
    ),
    Transition.DENY: TransitionRule(
        sources=WAITING,
        target=State.DENIED,
        audit=AuditKind.DENIED,
        only_if=(not_lapsed, not_decided_before),
        then=CLOSED,
        clears=CLOCKS_OF_WAITING,
    ),
    Transition.CANCEL: TransitionRule(
        sources=WAITING,
        target=State.CANCELLED,
        audit=AuditKind.CANCELLED,
        then=CLOSED,
        clears=CLOCKS_OF_WAITING,
    ),
    Transition.LAPSE: TransitionRule(
        sources=WAITING,
        target=State.LAPSED,
        audit=AuditKind.LAPSED,
        only_if=(is_lapsed,),
        then=CLOSED,
        clears=CLOCKS_OF_WAITING,
    ),
    Transition.OUTDATE: TransitionRule(
        sources=WAITING,
        target=State.OUTDATED,
        audit=AuditKind.OUTDATED,
        then=CLOSED,
        clears=CLOCKS_OF_WAITING,
    ),
    Transition.START: TransitionRule(
        sources=GIVEN,
        target=State.APPROVED,
        audit=AuditKind.STARTED,
        only_if=(may_still_start, not_locked_down, requester_is_member),
        then=(revoke_at_the_end, review),
    ),
    Transition.ACTIVATE: TransitionRule(
        sources=GIVEN,
        target=State.ACTIVE,
        audit=AuditKind.ACTIVATED,
        only_if=(end_is_ahead, not_locked_down),
        then=(update_card, warn_before_end, revoke_unclaimed),
    ),
    Transition.NOTE: TransitionRule(
        sources=ANY,
        target=None,
        audit=AuditKind.NOTED,
        only_if=(not_decided_before, not_reviewed),
        then=(update_card,),
    ),
    Transition.FAIL: TransitionRule(
        sources=GIVEN,
        target=State.REVOKING,
        audit=AuditKind.FAILED,
        then=(*ENDING, tell),
        clears=(TaskKind.PROVISION,),
    ),
    Transition.REVOKE: TransitionRule(
        sources=NOT_YET_ENDING,
        target=State.REVOKING,
        audit=AuditKind.REVOKING,
        only_if=(end_has_come,),
        then=ENDING,
        clears=(TaskKind.PROVISION, TaskKind.PASSWORD, TaskKind.WARN_BEFORE_END),
    ),
    Transition.CONFIRM: TransitionRule(
        sources=frozenset({State.REVOKING}),
        target=State.REVOKED,
        audit=AuditKind.REVOKED,
        only_if=(has_receipt,),
        then=(close_credentials, update_card, tell),
        clears=(TaskKind.REVOKE,),
    ),
}
"""A clear never removes a task that is claimed: its worker finds the state changed."""

EXTENDED = TransitionRule(
    sources=frozenset({State.ACTIVE}),
    target=None,
    audit=AuditKind.EXTENDED,
    then=(revoke_at_the_end, warn_before_end, move_expiry, update_card),
)
"""What APPLY does to the grant, in the same transaction: its end, its ``revoke`` and its warning move together."""


# What a move writes besides state and version; pure, so that it can be read and tested as a table.

CLOSING = frozenset({Transition.DENY, Transition.CANCEL, Transition.LAPSE, Transition.OUTDATE})
BRINGS: dict[Transition, frozenset[str]] = {
    Transition.APPROVE: frozenset({"username", "target"}),
    Transition.START: frozenset({"identity", "unsettled_until"}),
    Transition.NOTE: frozenset({"unsettled_until"}),
    Transition.CONFIRM: frozenset({"receipt"}),
}
"""Columns whose values the caller brings in ``TransitionInput.set``; every other column is the table's, or nobody's."""


def written(move: Transition, before: Request, change: TransitionInput, now: datetime) -> dict[str, Any]:
    """Column values of ``move``. Raises ValueError where the caller brings more than it may.

    Whoever decides brings what an approval writes; where more people are needed it is left aside.
    """
    target = TRANSITIONS[move].target
    state: dict[str, Any] = {"state": target} if target is not None else {}
    brought = {} if move in (Transition.DECIDE, Transition.APPLY) else dict(change.set)
    if too_much := set(brought) - BRINGS.get(move, frozenset()):
        raise ValueError(f"{move} may not write {', '.join(sorted(too_much))}")
    return brought | state | _times(move, before, change, now) | _ending(move, change, now)


def _times(move: Transition, before: Request, change: TransitionInput, now: datetime) -> dict[str, Any]:
    if move is Transition.APPROVE:
        shorter = change.decision.duration if change.decision else None
        duration = shorter or before.terms.duration
        return {"approved_at": now, "duration": duration, "start_before": now + before.terms.provision_within}
    if move is Transition.APPLY:
        return {"approved_at": now, "duration": extension(before, change.decision)}
    if move is Transition.NOTE:
        return _noted(before, change, now)
    if move is Transition.START:
        return {"started_at": now, "expires_at": now + (before.duration or before.terms.duration)}
    if move is Transition.ACTIVATE:
        return {"activated_at": now, "unsettled_until": None}
    return {}


def _noted(before: Request, change: TransitionInput, now: datetime) -> dict[str, Any]:
    if change.decision is not None and change.decision.verdict is Verdict.SIGN_OFF:
        return {"reviewed_at": now}
    return {"claimed_at": before.claimed_at or now} if change.audit is AuditKind.PASSWORD_SHOWN else {}


def _ending(move: Transition, change: TransitionInput, now: datetime) -> dict[str, Any]:
    if move is Transition.APPLY:
        return {"ended_because": Cause.APPLIED, "ended_by": change.actor, "ended_at": now}
    if move in CLOSING:
        return {"ended_because": change.cause, "ended_by": change.actor, "ended_note": change.words, "ended_at": now}
    if move in (Transition.REVOKE, Transition.FAIL):
        return {"ended_because": change.cause, "ended_by": change.actor, "ended_note": change.words}
    return {"ended_at": now} if move is Transition.CONFIRM else {}
