"""Conditions of moves: each answers None where the move may be made, else why not. Pure."""

from __future__ import annotations

from datetime import timedelta

from storage.records import Cause, RequestKind, State, Verdict
from storage.transitions import GuardInput, Obstacle, extension, latest_end, moved_end, open_stage


def not_lapsed(s: GuardInput) -> Obstacle | None:
    """A waiting request can be decided until its time is over, even if the clock's own task is late."""
    return Obstacle.LAPSED if s.now >= s.request.lapses_at else None


def is_lapsed(s: GuardInput) -> Obstacle | None:
    """LAPSE belongs to the clock alone: its time is over, or the grant it extends has ended."""
    return None if s.now >= s.request.lapses_at or grant_lives(s) is not None else Obstacle.NOT_LAPSED


def grant_lives(s: GuardInput) -> Obstacle | None:
    """What is extended is live and its end has not come; whatever is no extension has nothing to ask here."""
    if s.request.kind is not RequestKind.EXTENSION:
        return None
    lives = s.parent is not None and s.parent.state is State.ACTIVE and s.parent.expires_at is not None
    return None if lives and s.now < moved_end(s.parent, timedelta(0)) else Obstacle.GRANT_ENDED


def within_its_total(s: GuardInput) -> Obstacle | None:
    """The whole life of the grant with this extension; checked with its row taken, since two may race."""
    assert s.parent is not None, "asked after grant_lives"
    assert s.parent.started_at is not None, "a live grant has begun"
    end = moved_end(s.parent, extension(s.request, s.change.decision))
    return None if end - s.parent.started_at <= s.request.terms.max_total else Obstacle.TOO_LONG


def not_reviewed(s: GuardInput) -> Obstacle | None:
    """A sign-off counts once."""
    mine = s.change.decision
    is_late = mine is not None and mine.verdict is Verdict.SIGN_OFF and s.request.reviewed_at is not None
    return Obstacle.REVIEWED if is_late else None


def not_decided_before(s: GuardInput) -> Obstacle | None:
    """A person decides once per request, over all stages."""
    mine = s.change.decision
    return Obstacle.ALREADY_DECIDED if mine and any(d.person_id == mine.person_id for d in s.decisions) else None


def stage_is_open(s: GuardInput) -> Obstacle | None:
    """The vote was judged for one stage; if another is open by now it must be judged again."""
    mine = s.change.decision
    return Obstacle.STAGE_MOVED_ON if mine and mine.stage != open_stage(s.request, s.decisions) else None


def stages_complete(s: GuardInput) -> Obstacle | None:
    """With this vote counted nobody is missing; an approval never comes from the caller's word alone."""
    mine = (s.change.decision,) if s.change.decision else ()
    return None if open_stage(s.request, (*s.decisions, *mine)) is None else Obstacle.STAGES_OPEN


def not_locked_down(s: GuardInput) -> Obstacle | None:
    """The lockdown row is read in the same transaction."""
    return Obstacle.LOCKED_DOWN if s.is_locked_down else None


def may_still_start(s: GuardInput) -> Obstacle | None:
    """START happens once, and only within provision_within of the approval."""
    if s.request.expires_at is not None:
        return Obstacle.STARTED
    return Obstacle.TOO_LATE if s.request.start_before is None or s.now >= s.request.start_before else None


def requester_is_member(s: GuardInput) -> Obstacle | None:
    """Looked up just before, outside the transaction; no answer was taken as no."""
    return None if s.change.requester_is_member else Obstacle.NOT_A_MEMBER


def end_is_ahead(s: GuardInput) -> Obstacle | None:
    """Access whose end has come is never handed out."""
    if s.request.expires_at is None:
        return Obstacle.NOT_STARTED
    return Obstacle.ENDED if s.now >= s.request.expires_at else None


def end_has_come(s: GuardInput) -> Obstacle | None:
    """Only the clock is bound to the time; a person ends a grant whenever they may."""
    if s.change.cause is Cause.UNCLAIMED:
        return None if s.request.unclaimed_at is not None and s.now >= s.request.unclaimed_at else Obstacle.NOT_ENDED
    if s.change.cause not in (Cause.EXPIRED, Cause.NOT_STARTED):
        return None
    end = s.request.expires_at or latest_end(s.request)
    return None if s.now >= end else Obstacle.NOT_ENDED


def has_receipt(s: GuardInput) -> Obstacle | None:
    """Revoked means read back from the server, or declared gone by an admin; never assumed."""
    return None if s.change.set.get("receipt") else Obstacle.NO_RECEIPT
