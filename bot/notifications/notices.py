"""The content of messages, as data. ``bot.slack.render`` alone decides how it looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from adapters.base import Endpoint
from bot.access.ports import Notice
from storage.records import AuditEvent, Decision, Lockdown, Request


@dataclass(frozen=True, kw_only=True)
class CardNotice(Notice):
    """The approval card of a request.

    ``enforced`` is what the server ends by itself, ``engine`` the name of the engine to show, ``reaches`` the description of
    the access level. ``waits_for`` lists who may decide now. ``ticket_url`` is None where the policy has no pattern for it.
    ``grant`` is the grant to be extended, for an extension. ``warnings`` are sentences about what may outlive the grant.
    """

    request: Request
    decisions: tuple[Decision, ...]
    enforced: str
    engine: str
    reaches: str
    waits_for: tuple[str, ...] = ()
    ticket_url: str | None = None
    grant: Request | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ReminderNotice(Notice):
    """A request is still pending. ``is_escalation``: further approvers may decide it from now on."""

    request: Request
    waits_for: tuple[str, ...]
    is_escalation: bool = False


@dataclass(frozen=True, kw_only=True)
class EndingSoonNotice(Notice):
    """To the requester: the grant ends soon."""

    request: Request


@dataclass(frozen=True, kw_only=True)
class ReviewNotice(Notice):
    """To the reviewers: the time to sign off is over."""

    request: Request


@dataclass(frozen=True, kw_only=True)
class GrantedNotice(Notice):
    """To the people and channels that the rule notifies: access was granted."""

    request: Request
    decisions: tuple[Decision, ...]


@dataclass(frozen=True, kw_only=True)
class PreparingNotice(Notice):
    """The credential message before the user exists. ``trouble`` is a sentence that says why it takes longer."""

    request: Request
    trouble: str | None = None


@dataclass(frozen=True, kw_only=True)
class CredentialsNotice(Notice):
    """The credential message with its password. The notice exists for one call; it is never stored or logged.

    ``password`` is None where the rule delivers by ``reveal``: the requester has it shown.
    """

    request: Request
    endpoint: Endpoint
    password: str | None = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class ClosedNotice(Notice):
    """The credential message of a grant that is ending or has ended: no password, and the receipt where there is one."""

    request: Request


@dataclass(frozen=True, kw_only=True)
class StateChangeNotice(Notice):
    """One line to the requester: denied, lapsed, outdated, cancelled, failed or ended.

    ``decision`` is the denial, where a person denied. ``trouble`` replaces the line. ``grant`` is the grant to be extended.
    """

    request: Request
    decision: Decision | None = None
    trouble: str | None = None
    grant: Request | None = None


@dataclass(frozen=True, kw_only=True)
class FeedNotice(Notice):
    """Lines of the audit feed in one message. ``requests`` has the requests of the events, by id."""

    events: Sequence[AuditEvent]
    requests: dict[int, Request]


@dataclass(frozen=True, kw_only=True)
class LockdownNotice(Notice):
    """A lockdown, in force or lifted. ``left`` is the number of its grants that have not ended yet."""

    lockdown: Lockdown
    left: int


@dataclass(frozen=True, kw_only=True)
class AlertNotice(Notice):
    """The problem, since when, what is already safe, how often it was tried, the next try, and what to do now: steps, and statements to paste.

    ``resolved_at`` and ``resolution`` are set when it is over. ``is_event``: it happened at ``since`` and is not resolved later.
    ``request`` is the break-glass access that it tells of. Plain text without secrets; it may have times (``descriptions.time_mark``).
    """

    what: str
    since: datetime | None = None
    tries: int = 0
    steps: tuple[str, ...] = ()
    statements: tuple[str, ...] = ()
    enforced: str | None = None
    next_try_at: datetime | None = None
    resolved_at: datetime | None = None
    resolution: str | None = None
    is_event: bool = False
    request: Request | None = None
