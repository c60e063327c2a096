"""Guards of transitions. Each returns the obstacle, or None if the transition is possible. Pure."""

from __future__ import annotations

from datetime import timedelta
from typing import TypeVar

from storage.commands import ApplyExtension, Command, ConfirmRevocation, DecisionCommand, RevokeGrant, StartGrant
from storage.records import Cause, Decision, ReceiptOutcome, RequestKind, State
from storage.transitions import GuardInput, Obstacle, latest_end, moved_end, open_stage

C = TypeVar("C", bound=Command)


def _command(s: GuardInput, kind: type[C]) -> C:
    assert isinstance(s.command, kind), f"{s.command.transition} is made with {kind.__name__}"
    return s.command


def _decision(s: GuardInput) -> Decision | None:
    return s.command.decision if isinstance(s.command, DecisionCommand) else None


# Pending requests.


def not_timed_out(s: GuardInput) -> Obstacle | None:
    """A request can be decided until its time is over, even if the task that times it out is late."""
    return Obstacle.TIMED_OUT if s.now >= s.request.lapses_at else None


def is_timed_out(s: GuardInput) -> Obstacle | None:
    """Its time is over, or the grant it extends has ended."""
    return None if s.now >= s.request.lapses_at or parent_is_active(s) is not None else Obstacle.NOT_TIMED_OUT


def not_decided_before(s: GuardInput) -> Obstacle | None:
    """A person decides once per request, over all stages."""
    mine = _decision(s)
    return Obstacle.ALREADY_DECIDED if mine and any(d.person_id == mine.person_id for d in s.decisions) else None


def stage_is_open(s: GuardInput) -> Obstacle | None:
    """The decision was authorized for one stage. If another stage is open now, it must be authorized again."""
    mine = _decision(s)
    return Obstacle.STAGE_MOVED_ON if mine and mine.stage != open_stage(s.request, s.decisions) else None


def stages_complete(s: GuardInput) -> Obstacle | None:
    """With this decision no approval is missing. The guard counts again and does not trust the caller."""
    return None if _open_stage_afterwards(s) is None else Obstacle.STAGES_OPEN


def stages_open(s: GuardInput) -> Obstacle | None:
    """Even with this decision an approval is missing."""
    return Obstacle.STAGES_COMPLETE if _open_stage_afterwards(s) is None else None


def _open_stage_afterwards(s: GuardInput) -> int | None:
    mine = _decision(s)
    return open_stage(s.request, (*s.decisions, *((mine,) if mine else ())))


def is_extension(s: GuardInput) -> Obstacle | None:
    return None if s.request.kind is RequestKind.EXTENSION else Obstacle.WRONG_KIND


def is_no_extension(s: GuardInput) -> Obstacle | None:
    return Obstacle.WRONG_KIND if s.request.kind is RequestKind.EXTENSION else None


def parent_is_active(s: GuardInput) -> Obstacle | None:
    """The grant to be extended is active and its end has not come. Other kinds of request have no parent."""
    if s.request.kind is not RequestKind.EXTENSION:
        return None
    is_active = s.parent is not None and s.parent.state is State.ACTIVE and s.parent.expires_at is not None
    return None if is_active and s.now < moved_end(s.parent, timedelta(0)) else Obstacle.GRANT_ENDED


def within_max_total(s: GuardInput) -> Obstacle | None:
    """The whole life of the grant with this extension. The grant's row is locked, since two extensions may race."""
    assert s.parent is not None, "checked after parent_is_active"
    assert s.parent.started_at is not None, "an active grant has started"
    mine = _command(s, ApplyExtension).decision
    end = moved_end(s.parent, (mine.duration if mine else None) or s.request.terms.duration)
    return None if end - s.parent.started_at <= s.request.terms.max_total else Obstacle.TOO_LONG


# Grants.


def not_locked_down(s: GuardInput) -> Obstacle | None:
    """Lockdowns are read in the same transaction."""
    return Obstacle.LOCKED_DOWN if s.is_locked_down else None


def configuration_is_newest(s: GuardInput) -> Obstacle | None:
    """A replica with an older configuration grants nothing. The newest one is read in the same transaction."""
    mine, newest = s.command.configuration, s.newest_configuration
    return None if mine is None or newest in (None, mine) else Obstacle.CONFIGURATION_OLDER


def not_in_recovery(s: GuardInput) -> Obstacle | None:
    """Recovery mode is read in the same transaction."""
    return Obstacle.IN_RECOVERY if s.is_in_recovery else None


def may_still_start(s: GuardInput) -> Obstacle | None:
    """START happens once, and only within ``provision_within`` of the approval."""
    if s.request.expires_at is not None:
        return Obstacle.STARTED
    return Obstacle.TOO_LATE if s.request.start_before is None or s.now >= s.request.start_before else None


def requester_is_member(s: GuardInput) -> Obstacle | None:
    return None if _command(s, StartGrant).requester_is_member else Obstacle.NOT_A_MEMBER


def has_started(s: GuardInput) -> Obstacle | None:
    return Obstacle.NOT_STARTED if s.request.started_at is None else None


def end_is_ahead(s: GuardInput) -> Obstacle | None:
    """Access is never delivered after its end."""
    if s.request.expires_at is None:
        return Obstacle.NOT_STARTED
    return Obstacle.ENDED if s.now >= s.request.expires_at else None


def end_has_come(s: GuardInput) -> Obstacle | None:
    """The clock may end a grant only when its time is over. A person may end it at any time."""
    cause = _command(s, RevokeGrant).cause
    if cause is Cause.UNCLAIMED:
        is_over = s.request.unclaimed_at is not None and s.now >= s.request.unclaimed_at
        return None if is_over else Obstacle.NOT_ENDED
    if cause not in (Cause.EXPIRED, Cause.NOT_STARTED):
        return None
    end = s.request.expires_at or latest_end(s.request)
    return None if s.now >= end else Obstacle.NOT_ENDED


def not_reviewed(s: GuardInput) -> Obstacle | None:
    """A break-glass grant is signed off once."""
    return None if s.request.reviewed_at is None else Obstacle.REVIEWED


def is_break_glass(s: GuardInput) -> Obstacle | None:
    return None if s.request.kind is RequestKind.BREAK_GLASS else Obstacle.WRONG_KIND


def is_proven(s: GuardInput) -> Obstacle | None:
    """A revoked grant was read back from the server, or was never created, or an administrator declared the server gone."""
    receipt = _command(s, ConfirmRevocation).receipt
    is_complete = {
        ReceiptOutcome.VERIFIED: receipt.read_back_at is not None,
        ReceiptOutcome.NOTHING_CREATED: s.request.activated_at is None,
        ReceiptOutcome.DECLARED_GONE: bool(receipt.reason),
    }
    return None if is_complete[receipt.outcome] else Obstacle.NO_RECEIPT
