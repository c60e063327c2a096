"""What the ledger holds: frozen records and the words they are made of.

Nothing here talks to a database. Times are aware UTC, durations are ``timedelta``. Records are
changed by ``dataclasses.replace`` and become true only through ``Ledger.advance``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, TypeAlias

Json: TypeAlias = Mapping[str, Any]


class RequestKind(StrEnum):
    """What was asked for. A grant is the later life of its request, never a row of its own."""

    ACCESS = "access"
    BREAK_GLASS = "break-glass"
    EXTENSION = "extension"


class State(StrEnum):
    """Where a request stands; ``lifecycle.TRANSITIONS`` has every way between two of them."""

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
        """A user exists on a server, or may: somebody still has to end it."""
        return self in LIVE

    @property
    def is_over(self) -> bool:
        """Nothing will happen to this request any more."""
        return self is not State.PENDING and self not in LIVE


LIVE = frozenset({State.APPROVED, State.ACTIVE, State.REVOKING})


class Cause(StrEnum):
    """Why a request or grant ended, as ``ended_because`` shows it."""

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
    """What one person said, once, about one request."""

    APPROVE = "approve"
    DENY = "deny"
    SIGN_OFF = "sign-off"


class Purpose(StrEnum):
    """What a Slack message is for; a request may have several of one purpose."""

    CARD = "card"
    CARD_COPY = "card copy"
    CREDENTIALS = "credentials"


class TaskKind(StrEnum):
    """Everything that must happen outside the ledger. One mechanism, one retry rule."""

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
    """One stage of approval as it was when asked: who was named, and how many distinct people it takes."""

    approvers: tuple[str, ...]
    count: int


@dataclass(frozen=True, kw_only=True)
class Escalation:
    """From ``after`` the ask on, these may decide as well, in whatever stage is open."""

    after: timedelta
    to: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Review:
    """Who signs off a break-glass grant afterwards, and within what time of its beginning."""

    reviewers: tuple[str, ...]
    within: timedelta


MAX_TOTAL = timedelta(hours=24)


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What was on the card, frozen at the ask; what is given is exactly this.

    ``level`` is the level's entry of databases.yml as JSON: ``name``, ``description``, ``roles``, ``grants``,
    ``database`` (where it differs), ``settings`` — compared with today's at each click. People are named as the
    policy names them: Slack ids, e-mail addresses, groups. ``max_total`` bounds the whole life of a grant.
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


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A request that is about to be asked; ``Ledger.ask`` gives it its number, key and times."""

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


class ReceiptOutcome(StrEnum):
    """What a receipt rests on."""

    VERIFIED = "verified"
    NOTHING_CREATED = "nothing created"
    DECLARED_GONE = "declared gone"


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """Why a grant counts as revoked.

    VERIFIED: the server was read back at ``read_back_at`` (its own clock) and the user is gone; the fields are those of
    ``adapters.base.Removal``. NOTHING_CREATED: provisioning never started. DECLARED_GONE: an administrator said that the server
    no longer exists, for ``reason``; nothing was read back.
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
class Request:
    """One request and its whole later life.

    ``key`` is random and part of every button, so that a card of another ledger acts on nothing here.
    ``username`` and ``target`` are frozen at approval: a database edited or removed later never strands
    a user. ``start_before`` is the last moment at which provisioning may begin; ``expires_at`` is written
    once, at START. Until ``unsettled_until`` a create whose answer was lost may still land on the server.
    ``version`` counts the moves; messages remember the version they show.
    """

    id: int
    key: str
    kind: RequestKind
    state: State
    version: int
    team_id: str
    requester_id: str
    requester_name: str
    database: str
    level: str
    reason: str
    ticket: str | None
    parent_id: int | None
    terms: Terms
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
        """A user exists on a server, or may."""
        return self.state.is_live

    @property
    def effective_duration(self) -> timedelta:
        """How long the grant lasts: as approved, or as requested where nothing shorter was approved yet."""
        return self.duration or self.terms.duration

    @property
    def unclaimed_at(self) -> datetime | None:
        """When a live grant ends because nobody looked at its password; None where that is not asked, or was done."""
        within = self.terms.claim_within
        waits = within is not None and self.activated_at is not None and self.claimed_at is None
        return self.activated_at + within if waits and within and self.activated_at else None

    @property
    def needs_review(self) -> bool:
        """A break-glass grant was given, or may have been, and nobody has signed it off."""
        given = self.state in (State.APPROVED, State.ACTIVE) or self.started_at is not None
        return self.kind is RequestKind.BREAK_GLASS and given and self.reviewed_at is None

    @property
    def token(self) -> str:
        """What a button's value holds, and nothing more."""
        return f"{self.id}.{self.key}"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One person's verdict on one request; unique per person, over all stages."""

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
    """A Slack message of a request; ``ts`` is None until it is posted, ``version`` is what it shows."""

    id: int
    request_id: int
    purpose: Purpose
    channel: str
    ts: str | None
    version: int


@dataclass(frozen=True, kw_only=True)
class Task:
    """Something to be done outside, due at a time. One of a lock key runs at a time."""

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
    """One line of the record. ``text`` is personal (a reason, a name) and kept apart; the event holds its digest."""

    id: int
    at: datetime
    kind: str
    actor: str
    request_id: int | None
    facts: Json = field(default_factory=dict)
    text: str | None = None


@dataclass(frozen=True, kw_only=True)
class UsageCounts:
    """How much there is already, for the policy's limits; break-glass is not counted.

    ``automatic``: rule → how many asks of this person it granted by itself in the last 24 hours. ``unreviewed``: a
    break-glass grant of this person that nobody has signed off, or that is just being given.
    """

    live_of_person: int = 0
    live_of_database: int = 0
    waiting_of_person: int = 0
    automatic: Mapping[str, int] = field(default_factory=dict)
    unreviewed: int | None = None
