"""The state machine of a request. Pure: this module does no I/O.

``TRANSITIONS`` defines for every transition: source states, target state, guards, written columns, tasks that follow, and what
happens to related requests. ``storage.interpreter`` executes the table for ``Ledger.advance``, in one database transaction
per transition. A target state of None leaves the state as it is.
"""

from __future__ import annotations

from storage import guards, task_plans, writes
from storage.audit_kinds import AuditKind
from storage.commands import ApplyExtension, Command, ExtendGrant
from storage.records import LIVE, Purpose, Request, State, TaskKind
from storage.transitions import Cascade, Related, Transition, TransitionRule

PENDING = frozenset({State.PENDING})
APPROVED = frozenset({State.APPROVED})
ACTIVE = frozenset({State.ACTIVE})
TIMERS = (TaskKind.TIME_OUT, TaskKind.REMIND, TaskKind.ESCALATE, TaskKind.AUTO_APPROVE, TaskKind.GRANT_BREAK_GLASS)
"""The tasks of a pending request. A transition that ends PENDING clears them."""

CLOSED = (task_plans.update_card, task_plans.notify_requester)
"""The tasks that follow when a pending request gets a final state."""
ENDING = (task_plans.revoke_now, task_plans.close_credentials, task_plans.update_card)
"""The tasks that follow when a grant begins to end."""


def _extend_grant(extension: Request, command: Command) -> Command:
    assert isinstance(command, ApplyExtension), "the command of APPLY_EXTENSION"
    return ExtendGrant(actor=command.actor, by=extension.effective_duration, facts={"extension": extension.id})


EXTEND_PARENT = Cascade(related=Related.PARENT, command=_extend_grant)
TIME_OUT_EXTENSIONS = Cascade(related=Related.WAITING_EXTENSIONS, tasks=(task_plans.time_out_now,))

TRANSITIONS: dict[Transition, TransitionRule] = {
    Transition.REQUEST: TransitionRule(
        sources=frozenset(),
        target=State.PENDING,
        audit=AuditKind.REQUESTED,
        tasks=(
            task_plans.auto_approve,
            task_plans.grant_break_glass,
            task_plans.post_card,
            task_plans.time_out,
            task_plans.remind,
            task_plans.escalate,
        ),
        messages=(Purpose.CARD,),
    ),
    Transition.APPROVE_STAGE: TransitionRule(
        sources=PENDING,
        target=State.PENDING,
        audit=AuditKind.DECIDED,
        guards=(
            guards.not_timed_out,
            guards.not_decided_before,
            guards.stage_is_open,
            guards.stages_open,
            guards.configuration_is_newest,
        ),
        tasks=(task_plans.update_card,),
    ),
    Transition.APPROVE: TransitionRule(
        sources=PENDING,
        target=State.APPROVED,
        audit=AuditKind.APPROVED,
        guards=(
            guards.is_no_extension,
            guards.not_timed_out,
            guards.not_decided_before,
            guards.stage_is_open,
            guards.stages_complete,
            guards.not_in_recovery,
            guards.not_locked_down,
            guards.configuration_is_newest,
        ),
        writes=(writes.approval,),
        tasks=(task_plans.revoke_at_the_end, task_plans.provision, task_plans.update_card, task_plans.notify),
        clears=TIMERS,
        messages=(Purpose.CREDENTIALS,),
    ),
    Transition.APPLY_EXTENSION: TransitionRule(
        sources=PENDING,
        target=State.APPLIED,
        audit=AuditKind.APPLIED,
        guards=(
            guards.is_extension,
            guards.not_timed_out,
            guards.not_decided_before,
            guards.stage_is_open,
            guards.stages_complete,
            guards.not_in_recovery,
            guards.not_locked_down,
            guards.configuration_is_newest,
            guards.parent_is_active,
            guards.within_max_total,
        ),
        writes=(writes.applied_extension,),
        tasks=(*CLOSED, task_plans.notify),
        clears=TIMERS,
        cascades=(EXTEND_PARENT,),
    ),
    Transition.EXTEND: TransitionRule(
        sources=ACTIVE,
        target=State.ACTIVE,
        audit=AuditKind.EXTENDED,
        writes=(writes.moved_expiry,),
        tasks=(
            task_plans.revoke_at_the_end,
            task_plans.warn_before_end,
            task_plans.move_expiry,
            task_plans.update_card,
        ),
    ),
    Transition.DENY: TransitionRule(
        sources=PENDING,
        target=State.DENIED,
        audit=AuditKind.DENIED,
        guards=(guards.not_timed_out, guards.not_decided_before),
        writes=(writes.cause, writes.end),
        tasks=CLOSED,
        clears=TIMERS,
    ),
    Transition.CANCEL: TransitionRule(
        sources=PENDING,
        target=State.CANCELLED,
        audit=AuditKind.CANCELLED,
        writes=(writes.cause, writes.end),
        tasks=CLOSED,
        clears=TIMERS,
    ),
    Transition.TIME_OUT: TransitionRule(
        sources=PENDING,
        target=State.LAPSED,
        audit=AuditKind.LAPSED,
        guards=(guards.is_timed_out,),
        writes=(writes.cause, writes.end),
        tasks=CLOSED,
        clears=TIMERS,
    ),
    Transition.OUTDATE: TransitionRule(
        sources=PENDING,
        target=State.OUTDATED,
        audit=AuditKind.OUTDATED,
        writes=(writes.cause, writes.end),
        tasks=CLOSED,
        clears=TIMERS,
    ),
    Transition.ESCALATE: TransitionRule(
        sources=PENDING,
        target=None,
        audit=AuditKind.ESCALATED,
        tasks=(task_plans.update_card,),
    ),
    Transition.START: TransitionRule(
        sources=APPROVED,
        target=State.APPROVED,
        audit=AuditKind.STARTED,
        guards=(
            guards.may_still_start,
            guards.not_in_recovery,
            guards.not_locked_down,
            guards.configuration_is_newest,
            guards.requester_is_member,
        ),
        writes=(writes.start,),
        tasks=(task_plans.revoke_at_the_end, task_plans.review),
    ),
    Transition.RETRY_PROVISION: TransitionRule(
        sources=APPROVED,
        target=State.APPROVED,
        audit=AuditKind.NOTED,
        guards=(guards.has_started, guards.not_in_recovery),
        writes=(writes.unsettled,),
    ),
    Transition.ACTIVATE: TransitionRule(
        sources=APPROVED,
        target=State.ACTIVE,
        audit=AuditKind.ACTIVATED,
        guards=(guards.end_is_ahead, guards.not_in_recovery, guards.not_locked_down),
        writes=(writes.activation,),
        tasks=(task_plans.update_card, task_plans.warn_before_end, task_plans.revoke_unclaimed),
    ),
    Transition.RENEW_PASSWORD: TransitionRule(
        sources=ACTIVE,
        target=State.ACTIVE,
        audit=AuditKind.PASSWORD_RENEWED,
        guards=(guards.end_is_ahead,),
    ),
    Transition.SHOW_PASSWORD: TransitionRule(
        sources=ACTIVE,
        target=State.ACTIVE,
        audit=AuditKind.PASSWORD_SHOWN,
        guards=(guards.end_is_ahead,),
        writes=(writes.claim,),
    ),
    Transition.SIGN_OFF: TransitionRule(
        sources=LIVE | {State.REVOKED},
        target=None,
        audit=AuditKind.SIGNED_OFF,
        guards=(guards.is_break_glass, guards.not_reviewed, guards.not_decided_before),
        writes=(writes.review,),
        tasks=(task_plans.update_card,),
    ),
    Transition.REPAIR: TransitionRule(
        sources=frozenset(State),
        target=None,
        audit=AuditKind.REPAIRED,
        tasks=(task_plans.update_card,),
    ),
    Transition.FAIL: TransitionRule(
        sources=APPROVED,
        target=State.REVOKING,
        audit=AuditKind.FAILED,
        writes=(writes.cause,),
        tasks=(*ENDING, task_plans.notify_requester),
        clears=(TaskKind.PROVISION,),
        cascades=(TIME_OUT_EXTENSIONS,),
    ),
    Transition.REVOKE: TransitionRule(
        sources=APPROVED | ACTIVE,
        target=State.REVOKING,
        audit=AuditKind.REVOKING,
        guards=(guards.end_has_come,),
        writes=(writes.cause,),
        tasks=ENDING,
        clears=(TaskKind.PROVISION, TaskKind.RENEW_PASSWORD, TaskKind.WARN_BEFORE_END),
        cascades=(TIME_OUT_EXTENSIONS,),
    ),
    Transition.CONFIRM: TransitionRule(
        sources=frozenset({State.REVOKING}),
        target=State.REVOKED,
        audit=AuditKind.REVOKED,
        guards=(guards.is_proven,),
        writes=(writes.receipt, writes.end),
        tasks=(task_plans.close_credentials, task_plans.update_card, task_plans.notify_requester),
        clears=(TaskKind.REVOKE,),
    ),
}
