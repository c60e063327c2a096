"""The records of the ledger, as immutable dataclasses. Pure: this module does no I/O.

Times are aware UTC, durations are ``timedelta``. Only ``Ledger.submit`` and ``Ledger.advance`` change a stored request. The
ledger stores the values of the enums, so a changed value needs a migration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from typing import Any, TypeAlias

Json: TypeAlias = Mapping[str, Any]


class RequestKind(StrEnum):
    """The kind of a request. A grant is an approved request. It has no row of its own."""

    ACCESS = "access"
    BREAK_GLASS = "break-glass"
    EXTENSION = "extension"


class State(StrEnum):
    """The state of a request. ``lifecycle.TRANSITIONS`` lists every change of state."""

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
        """The state is final. It does not change again."""
        return self is not State.PENDING and self not in LIVE


LIVE = frozenset({State.APPROVED, State.ACTIVE, State.REVOKING})


class Cause(StrEnum):
    """The reason for the end of a request or grant: the value of ``ended_because``."""

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
    """The content of one person's decision about one request."""

    APPROVE = "approve"
    DENY = "deny"
    SIGN_OFF = "sign-off"


class Purpose(StrEnum):
    """The purpose of a Slack message. A request may have several messages of one purpose."""

    CARD = "card"
    CARD_COPY = "card copy"
    CREDENTIALS = "credentials"


class TaskKind(StrEnum):
    """The kind of a task. The runner retries every kind by the same rule."""

    POST_CARD = "post_card"
    UPDATE_CARD = "update_card"
    NOTIFY_REQUESTER = "tell"
    ALERT = "alert"
    LOCKDOWN = "lockdown"
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


class Priority(IntEnum):
    """The order of claims, lowest number first. SAFETY has the tasks that end access, and alerts."""

    SAFETY = 0
    GRANT = 1
    DECISION = 2
    BACKGROUND = 3


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of approval, frozen with the request: the named approvers, and how many distinct people are needed."""

    approvers: tuple[str, ...]
    count: int


@dataclass(frozen=True, kw_only=True)
class Escalation:
    """``after`` the request, the people in ``to`` may also decide, in any open stage."""

    after: timedelta
    to: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Review:
    """The reviewers of a break-glass grant, and the time they have from its start."""

    reviewers: tuple[str, ...]
    within: timedelta


MAX_TOTAL = timedelta(hours=24)


@dataclass(frozen=True, kw_only=True)
class Terms:
    """The content of the approval card. The request stores its terms, and they never change. The grant gets exactly these terms.

    ``level`` is the level's entry of databases.yml as JSON: ``name``, ``description``, ``roles``, ``grants``, ``database`` (if it
    differs), ``settings``, ``set_role``. Each decision compares it with the current entry. People are named as in the policy: Slack ids, e-mail
    addresses, groups. ``max_total`` is the longest duration of a grant with all its extensions.
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
    """The proof that a grant is over."""

    VERIFIED = "verified"
    NOTHING_CREATED = "nothing created"
    DECLARED_GONE = "declared gone"


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """The stored proof that a grant is revoked.

    VERIFIED: the server was read back at ``read_back_at`` (the server's clock) and the user is gone; the fields are those of
    ``adapters.base.Removal``. NOTHING_CREATED: dbaccess created no user. DECLARED_GONE: an administrator declared that the
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
    left_count: int = 0


@dataclass(frozen=True, kw_only=True)
class Draft:
    """A request before it is stored. ``Ledger.submit`` adds the number, the key and the times."""

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
    """One request and its grant: the fields of the draft, and everything that happened later.

    ``key`` is random and part of every button, so a button from another ledger does nothing here. ``username`` and
    ``target`` are frozen at approval. If the database is edited or removed later, the job ``revoke`` still finds the user.
    Provisioning starts before ``start_before``. START writes ``expires_at``, and only an extension moves it. If the
    answer to a create statement is lost, the server may still run the statement until ``unsettled_until``. ``version`` counts the
    transitions. Each message stores the version that it shows. ``level_state`` is what the job ``provision`` read of the level's roles
    just before START, as JSON text (``adapters.level_state``).
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
    level_state: str | None = None
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
        """The time at which an active grant ends if nobody reveals its password. None if the rule sets no such limit, or after the reveal."""
        within = self.terms.claim_within
        waits = within is not None and self.activated_at is not None and self.claimed_at is None
        return self.activated_at + within if waits and within and self.activated_at else None

    @property
    def needs_review(self) -> bool:
        """True for a break-glass grant that may still start or has started, and that nobody has signed off."""
        given = self.state in (State.APPROVED, State.ACTIVE) or self.started_at is not None
        return self.kind is RequestKind.BREAK_GLASS and given and self.reviewed_at is None

    @property
    def token(self) -> str:
        """The value of each button of this request: its number and its key."""
        return f"{self.id}.{self.key}"


@dataclass(frozen=True, kw_only=True)
class Decision:
    """One person's verdict on one request. A person decides at most once per request, in one stage only."""

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
    """Something to be done outside the ledger, due at a time. Tasks with the same lock key run one at a time.

    ``pool`` and ``server`` (the address, for tasks that talk to a target server) say where it runs, ``priority`` (``pools.Priority``) how soon.
    ``blocked_at``: the time at which the login of the user to be ended was blocked, together with other ends of the same server.
    """

    id: int
    kind: TaskKind
    lock_key: str
    request_id: int | None
    payload: Json
    due_at: datetime
    created_at: datetime
    attempts: int
    priority: int
    pool: str
    server: str | None = None
    blocked_at: datetime | None = None
    last_error: str | None = None


@dataclass(frozen=True, kw_only=True)
class AuditEvent:
    """One line of the audit log. The ledger stores the personal ``text`` (a reason, a name) apart; the event holds its digest."""

    id: int
    at: datetime
    kind: str
    actor: str
    request_id: int | None
    facts: Json = field(default_factory=dict)
    text: str | None = None


@dataclass(frozen=True, kw_only=True)
class Lockdown:
    """While it is in force, matching grants are ended and new ones refused. A database or person of None matches all.

    ``grants`` is the number of grants that were live when it was set. ``all_ended_at`` is when the last of them was seen to have ended.
    """

    id: int
    database: str | None
    person_id: str | None
    locked_by: str
    at: datetime
    locked_by_name: str | None = None
    person_name: str | None = None
    grants: int = 0
    all_ended_at: datetime | None = None
    unlocked_by: str | None = None
    unlocked_by_name: str | None = None
    unlocked_at: datetime | None = None

    @property
    def is_in_force(self) -> bool:
        return self.unlocked_at is None

    @property
    def is_of_everything(self) -> bool:
        return self.database is None and self.person_id is None

    def covers(self, *, database: str | None, person_id: str | None) -> bool:
        """Whether it matches all grants of this person on this database. None stands for every person or database."""
        return self.database in (None, database) and self.person_id in (None, person_id)


@dataclass(frozen=True, kw_only=True)
class LockdownMessage:
    """A message that shows a lockdown. ``place`` is where it was sent to, ``channel`` and ``ts`` where it is, ``shown`` what it says."""

    lockdown_id: int
    place: str
    channel: str
    ts: str
    shown: str


@dataclass(frozen=True, kw_only=True)
class UsageCounts:
    """The counts for the policy's limits. They do not include break-glass access.

    ``automatic`` maps a rule to the count of this person's requests that it approved automatically in the last 24 hours.
    ``unreviewed`` is the request number of a break-glass grant of this person that nobody has signed off. It may still be pending.
    """

    live_of_person: int = 0
    live_of_database: int = 0
    waiting_of_person: int = 0
    automatic: Mapping[str, int] = field(default_factory=dict)
    unreviewed: int | None = None
