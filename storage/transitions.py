"""What a move of a request is made of: its name, what its caller brings, what its condition may look at, what follows. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeAlias

from storage.audit_log import AuditKind
from storage.records import Cause, Decision, Json, Purpose, Request, State, TaskKind, Verdict

FILL_WITHIN = timedelta(minutes=5)
"""A credential message not filled this long after START fails the grant."""

WARN_AT_MOST = timedelta(minutes=15)
"""The requester is warned so long before the end; of a short grant in its last quarter."""


class Transition(StrEnum):
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


class Obstacle(StrEnum):
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
    NOT_A_MEMBER = "the requester is no longer a member"
    ENDED = "its end has come"
    NOT_ENDED = "its end has not come"
    NO_RECEIPT = "nothing was read back from the server"
    CLAIM_LOST = "another worker has the task"
    GRANT_ENDED = "the grant it extends has ended"
    TOO_LONG = "the grant would live longer than it may in all"
    REVIEWED = "it was signed off before"


@dataclass(frozen=True, kw_only=True)
class TransitionInput:
    """What the caller of a move brings: who did it, and the facts to be written with it.

    ``set`` holds the columns of ``Request`` the move writes (username, target, identity, receipt …);
    the state, times and version are the table's. ``facts`` and ``text`` go into the audit event.
    """

    actor: str
    decision: Decision | None = None
    cause: Cause | None = None
    words: str | None = None
    requester_is_member: bool = True
    set: Json = field(default_factory=dict)
    facts: Json = field(default_factory=dict)
    text: str | None = None
    audit: AuditKind | None = None


@dataclass(frozen=True, kw_only=True)
class GuardInput:
    """The request with its row taken, and all a condition may look at."""

    now: datetime
    request: Request
    decisions: tuple[Decision, ...]
    is_locked_down: bool
    change: TransitionInput
    parent: Request | None = None
    """The grant an extension is about, with its row taken before that of the extension."""


@dataclass(frozen=True, kw_only=True)
class TaskPlan:
    """A task that follows. ``is_single``: an unfinished one of this kind is moved to ``due_at`` instead of doubled."""

    kind: TaskKind
    lock_key: str
    due_at: datetime
    payload: Json = field(default_factory=dict)
    is_single: bool = False


Guard: TypeAlias = Callable[[GuardInput], Obstacle | None]
TaskPlanner: TypeAlias = Callable[[Request, datetime], TaskPlan | None]


@dataclass(frozen=True, kw_only=True)
class TransitionRule:
    """One row of the table. ``messages``: rows written now, posted later. ``clears``: tasks with nothing left to do."""

    sources: frozenset[State]
    target: State | None
    audit: AuditKind
    only_if: tuple[Guard, ...] = ()
    then: tuple[TaskPlanner, ...] = ()
    clears: tuple[TaskKind, ...] = ()
    messages: tuple[Purpose, ...] = ()


def open_stage(request: Request, decisions: tuple[Decision, ...]) -> int | None:
    """The first stage that still lacks people, or None when all are complete. Counts distinct people."""
    for number, stage in enumerate(request.terms.stages):
        people = {d.person_id for d in decisions if d.verdict is Verdict.APPROVE and d.stage == number}
        if len(people) < stage.count:
            return number
    return None


# Ends.


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
    whole = request.expires_at - (request.started_at or request.requested_at)
    return request.expires_at - min(WARN_AT_MOST, whole / 4)
