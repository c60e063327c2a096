"""The parts of the state machine: transitions, guards, task plans, cascades. Pure.

``lifecycle.TRANSITIONS`` combines them. ``commands`` has what the caller of each transition brings.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, TypeAlias

from storage.audit_kinds import AuditKind
from storage.records import Decision, Json, Purpose, Request, State, TaskKind, Verdict

if TYPE_CHECKING:
    from storage.commands import Command

FILL_WITHIN = timedelta(minutes=5)
"""A grant fails when its credential message is not filled this long after START."""

WARN_AT_MOST = timedelta(minutes=15)
"""The requester is warned this long before the end; for a short grant, in its last quarter."""


class Transition(StrEnum):
    """Everything that can happen to a request. A verb; some transitions leave the state as it is."""

    REQUEST = "request"
    APPROVE_STAGE = "approve stage"
    APPROVE = "approve"
    APPLY_EXTENSION = "apply extension"
    EXTEND = "extend"
    DENY = "deny"
    CANCEL = "cancel"
    TIME_OUT = "time out"
    OUTDATE = "outdate"
    ESCALATE = "escalate"
    START = "start"
    RETRY_PROVISION = "retry provision"
    ACTIVATE = "activate"
    RENEW_PASSWORD = "renew password"  # noqa: S105 - the name of a transition
    SHOW_PASSWORD = "show password"  # noqa: S105 - the name of a transition
    SIGN_OFF = "sign off"
    REPAIR = "repair"
    FAIL = "fail"
    REVOKE = "revoke"
    CONFIRM = "confirm"


class Obstacle(StrEnum):
    """The reason why a transition was not possible."""

    STATE = "the request is in another state"
    WRONG_KIND = "this transition is for another kind of request"
    TIMED_OUT = "the time to decide is over"
    NOT_TIMED_OUT = "the time to decide is not over"
    ALREADY_DECIDED = "this person has decided before"
    STAGE_MOVED_ON = "another stage is open"
    STAGES_OPEN = "more approvals are needed"
    STAGES_COMPLETE = "no further approval is needed"
    LOCKED_DOWN = "a lockdown is in force"
    CONFIGURATION_OLDER = "a newer configuration is in force"
    IN_RECOVERY = "the ledger is in recovery mode"
    TOO_LATE = "the time to start is over"
    STARTED = "the grant has started before"
    NOT_STARTED = "the grant has not started"
    NOT_A_MEMBER = "the requester is no longer a member"
    ENDED = "the end has come"
    NOT_ENDED = "the end has not come"
    NO_RECEIPT = "nothing was read back from the server"
    CLAIM_LOST = "another worker has the task"
    GRANT_ENDED = "the grant to be extended has ended"
    TOO_LONG = "the grant would last longer than max_total"
    REVIEWED = "it was signed off before"


@dataclass(frozen=True, kw_only=True)
class GuardInput:
    """Everything that a guard may use. ``parent`` is the grant that an extension extends; its row is locked first.

    ``newest_configuration`` is its digest; None where one bot runs, or none has loaded a configuration.
    """

    now: datetime
    request: Request
    decisions: tuple[Decision, ...]
    is_locked_down: bool
    is_in_recovery: bool = False
    command: Command
    parent: Request | None = None
    newest_configuration: str | None = None


@dataclass(frozen=True, kw_only=True)
class TaskPlan:
    """A task that follows a transition.

    ``is_single``: an unfinished one of the same kind is moved to ``due_at`` instead; with ``keeps_time`` it stays as it is.
    ``priority``: where it differs from the usual one of its kind (``pools.Priority``).
    """

    kind: TaskKind
    lock_key: str
    due_at: datetime
    payload: Json = field(default_factory=dict)
    is_single: bool = False
    keeps_time: bool = False
    priority: int | None = None


class Related(StrEnum):
    """The other requests that a transition may change."""

    PARENT = "the grant that this extension extends"
    WAITING_EXTENSIONS = "the pending extensions of this grant"


Guard: TypeAlias = Callable[[GuardInput], Obstacle | None]
"""None where the transition is possible, else the obstacle."""

Writer: TypeAlias = Callable[[Request, Any, datetime], Mapping[str, Any]]
"""Column values, from the request before the transition, the command, and the time."""

TaskPlanner: TypeAlias = Callable[[Request, datetime], TaskPlan | None]
"""A task, from the request after the transition and the time; None where there is nothing to do."""


@dataclass(frozen=True, kw_only=True)
class Cascade:
    """The effect of a transition on ``related`` requests, in the same transaction.

    ``command`` makes their transition from this request (as it is afterwards) and its command; ``tasks`` are planned for them.
    """

    related: Related
    command: Callable[[Request, Command], Command] | None = None
    tasks: tuple[TaskPlanner, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TransitionRule:
    """One row of the table. ``target``: None leaves the state as it is.

    ``messages`` are written now and posted later. ``clears`` names the tasks that have nothing left to do. A claimed task
    stays: its worker finds the state changed.
    """

    sources: frozenset[State]
    target: State | None
    audit: AuditKind
    guards: tuple[Guard, ...] = ()
    writes: tuple[Writer, ...] = ()
    tasks: tuple[TaskPlanner, ...] = ()
    clears: tuple[TaskKind, ...] = ()
    messages: tuple[Purpose, ...] = ()
    cascades: tuple[Cascade, ...] = ()


def open_stage(request: Request, decisions: tuple[Decision, ...]) -> int | None:
    """The first stage that lacks approvals, or None when all stages are complete. Counts distinct people."""
    for number, stage in enumerate(request.terms.stages):
        approvers = {d.person_id for d in decisions if d.verdict is Verdict.APPROVE and d.stage == number}
        if len(approvers) < stage.count:
            return number
    return None


# Times of a grant.


def latest_end(request: Request) -> datetime:
    """The latest end of an approved grant: it starts as late as permitted and lasts its whole duration."""
    assert request.start_before is not None, "an approved request has start_before"
    return request.start_before + request.effective_duration


def moved_end(grant: Request | None, by: timedelta) -> datetime:
    """The end of a live grant, moved by ``by``."""
    assert grant is not None, "a live grant"
    assert grant.expires_at is not None, "a live grant has its end"
    return grant.expires_at + by


def warn_at(request: Request) -> datetime:
    """The time at which the requester of a live grant is warned of its end."""
    assert request.expires_at is not None, "a live grant has its end"
    whole = request.expires_at - (request.started_at or request.requested_at)
    return request.expires_at - min(WARN_AT_MOST, whole / 4)
