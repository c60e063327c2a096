"""The records of the ledger, all frozen. Pure.

Times are aware UTC, durations are ``timedelta``. Only ``Ledger.submit`` and ``Ledger.advance`` change a stored request. The
values of the enums are stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, TypeAlias

Json: TypeAlias = Mapping[str, Any]


class RequestKind(StrEnum):
    """What the requester asks for. A grant is the later life of its request and has no row of its own."""

    ACCESS = "access"
    BREAK_GLASS = "break-glass"
    EXTENSION = "extension"


class State(StrEnum):
    """The state of a request. ``lifecycle.TRANSITIONS`` has every way from one to another."""

    PENDING = "pending"
    APPROVED = "approved"
    ACTIVE = "active"
    REVOKING = "revoking"
    REVOKED = "revoked"
    APPLIED = "applied"
    DENIED = "denied"
    CANCELLED = "cancelled"
    LAPSED = "lapsed"
    OUTDATED = "outdated"

    @property
    def is_live(self) -> bool:
        """A user exists on a server, or may exist, and still has to be removed."""
        return self in LIVE

    @property
    def is_over(self) -> bool:
        """The request is final."""
        return self is not State.PENDING and self not in LIVE


LIVE = frozenset({State.APPROVED, State.ACTIVE, State.REVOKING})


class Cause(StrEnum):
    """Why a request or grant ended: the value of ``ended_because``."""

    EXPIRED = "expired"
    DONE = "done"
    REVOKED = "revoked"
    FAILED = "failed"
    NOT_STARTED = "not started"
    UNCLAIMED = "unclaimed"
    LEFT = "left"
    LOCKDOWN = "lockdown"
    GONE = "gone"
    DENIED = "denied"
    CANCELLED = "cancelled"
    LAPSED = "lapsed"
    OUTDATED = "outdated"
    APPLIED = "applied"


class Verdict(StrEnum):
    """What one person decided about one request."""

    APPROVE = "approve"
    DENY = "deny"
    SIGN_OFF = "sign-off"


class Purpose(StrEnum):
    """The purpose of a Slack message. A request may have several messages of one purpose."""

    CARD = "card"
    CARD_COPY = "card copy"
    CREDENTIALS = "credentials"


class TaskKind(StrEnum):
    """Everything that must happen outside the ledger. All kinds are retried by the same rule."""

    POST_CARD = "post_card"
    UPDATE_CARD = "update_card"
    NOTIFY_REQUESTER = "tell"
    ALERT = "alert"
    AUDIT_FEED = "feed"
    TIME_OUT = "lapse"
    REMIND = "remind"
    ESCALATE = "escalate"
    WARN_BEFORE_END = "warn_before_end"
    REVIEW = "review"
    NOTIFY = "notify"
    AUTO_APPROVE = "auto_approve"
    GRANT_BREAK_GLASS = "grant_break_glass"
    PROVISION = "provision"
    RENEW_PASSWORD = "password"  # noqa: S105 - the name of a task, not a secret
    MOVE_EXPIRY = "move_end"
    CLOSE_CREDENTIALS = "close_credentials"
    REVOKE = "revoke"
    REPAIR = "mend"


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of approval, frozen with the request: the named approvers, and how many distinct people are needed."""

    approvers: tuple[str, ...]
    count: int


@dataclass(frozen=True, kw_only=True)
class Escalation:
    """``after`` this time since the request, the people in ``to`` may decide as well, in any stage that is open."""

    after: timedelta
    to: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Review:
    """Who signs off a break-glass grant, and within what time of its start."""

    reviewers: tuple[str, ...]
    within: timedelta


MAX_TOTAL = timedelta(hours=24)


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What the approval card shows, frozen with the request. The grant gets exactly this.

    ``level`` is the level's entry of databases.yml as JSON: ``name``, ``description``, ``roles``, ``grants``, ``database`` (if it
    differs), ``settings``. Each decision compares it with the current entry. People are named as in the policy: Slack ids, e-mail
    addresses, groups. ``max_total`` limits the whole life of a grant, extensions included.
    """

    rule: str
    stages: tuple[Stage, ...]
    channel: str
    duration: timedelta
    request_ttl: timedelta
    provision_within: timedelta
    delivery: str
    level: Json
    policy_digest: str
    max_total: timedelta = MAX_TOTAL
    remind_after: timedelta | None = None
    claim_within: timedelta | None = None
    escalation: Escalation | None = None
    review: Review | None = None
    notify: tuple[str, ...] = ()


class ReceiptOutcome(StrEnum):
    """What proves that a grant is over."""

    VERIFIED = "verified"
    NOTHING_CREATED = "nothing created"
    DECLARED_GONE = "declared gone"


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """Why a grant counts as revoked.

    VERIFIED: the server was read back at ``read_back_at`` (the server's clock) and the user is gone; the fields are those of
    ``adapters.base.Removal``. NOTHING_CREATED: provisioning never started. DECLARED_GONE: an administrator declared that the
    server no longer exists, with ``reason``; nothing was read back.
    """

    outcome: ReceiptOutcome
    was_absent: bool = False
    sessions_ended: int = 0
    left_behind: tuple[str, ...] = ()
    left_with: str | None = None
    read_back_at: datetime | None = None
    notes: tuple[str, ...] = ()
    reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A request before it is stored. ``Ledger.submit`` gives it its number, key and times."""

    kind: RequestKind
    team_id: str
    requester_id: str
    requester_name: str
    database: str
    level: str
    reason: str
    terms: Terms
    ticket: str | None = None
    parent_id: int | None = None


@dataclass(frozen=True, kw_only=True)
class Request(Draft):
    """One request, and the whole life of its grant: the fields of its draft, and what happened since.

    ``key`` is random and part of every button, so that a card of another ledger has no effect here. ``username`` and
    ``target`` are frozen at approval: if the database is edited or removed later, the user can still be found and removed.
    Provisioning starts before ``start_before``. START writes ``expires_at``, and only an extension moves it. Until
    ``unsettled_until``, a create whose answer was lost may still arrive at the server. ``version`` counts the transitions;
    messages store the version they show.
    """

    id: int
    key: str
    state: State
    version: int
    requested_at: datetime
    lapses_at: datetime
    approved_at: datetime | None = None
    duration: timedelta | None = None
    start_before: datetime | None = None
    username: str | None = None
    target: Json | None = None
    identity: str | None = None
    started_at: datetime | None = None
    unsettled_until: datetime | None = None
    expires_at: datetime | None = None
    activated_at: datetime | None = None
    claimed_at: datetime | None = None
    reviewed_at: datetime | None = None
    ended_at: datetime | None = None
    ended_because: Cause | None = None
    ended_by: str | None = None
    ended_note: str | None = None
    receipt: Receipt | None = None

    @property
    def is_live(self) -> bool:
        """A user exists on a server, or may exist."""
        return self.state.is_live

    @property
    def effective_duration(self) -> timedelta:
        """The duration of the grant: as approved, or as requested if nothing shorter was approved."""
        return self.duration or self.terms.duration

    @property
    def unclaimed_at(self) -> datetime | None:
        """When an active grant ends because its password was not revealed. None if the rule does not require that, or it was."""
        within = self.terms.claim_within
        waits = within is not None and self.activated_at is not None and self.claimed_at is None
        return self.activated_at + within if waits and within and self.activated_at else None

    @property
    def needs_review(self) -> bool:
        """A break-glass grant was given, or may have been given, and is not signed off."""
        given = self.state in (State.APPROVED, State.ACTIVE) or self.started_at is not None
        return self.kind is RequestKind.BREAK_GLASS and given and self.reviewed_at is None

    @property
    def token(self) -> str:
        """The whole value of a button."""
        return f"{self.id}.{self.key}"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One person's verdict on one request. A person decides once per request, over all stages."""

    request_id: int
    person_id: str
    person_name: str
    verdict: Verdict
    stage: int
    at: datetime
    reason: str | None = None
    duration: timedelta | None = None


@dataclass(frozen=True, kw_only=True)
class Message:
    """A Slack message of a request. ``ts`` is None until it is posted; ``version`` is the request's version that it shows."""

    id: int
    request_id: int
    purpose: Purpose
    channel: str
    ts: str | None
    version: int


@dataclass(frozen=True, kw_only=True)
class Task:
    """Something to be done outside the ledger, due at a time. One task of a lock key runs at a time."""

    id: int
    kind: TaskKind
    lock_key: str
    request_id: int | None
    payload: Json
    due_at: datetime
    created_at: datetime
    attempts: int
    last_error: str | None = None


@dataclass(frozen=True, kw_only=True)
class AuditEvent:
    """One line of the audit log. ``text`` is personal (a reason, a name) and stored apart; the event holds its digest."""

    id: int
    at: datetime
    kind: str
    actor: str
    request_id: int | None
    facts: Json = field(default_factory=dict)
    text: str | None = None


@dataclass(frozen=True, kw_only=True)
class UsageCounts:
    """What counts towards the policy's limits. The numbers do not include break-glass access.

    ``automatic``: rule → how many requests of this person it granted automatically in the last 24 hours. ``unreviewed``: the
    number of a break-glass grant of this person that is not signed off, or that is being given now.
    """

    live_of_person: int = 0
    live_of_database: int = 0
    waiting_of_person: int = 0
    automatic: Mapping[str, int] = field(default_factory=dict)
    unreviewed: int | None = None
