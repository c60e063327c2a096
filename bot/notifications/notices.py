"""What is to be shown, as data. ``bot.slack.render`` alone decides how it looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from adapters.base import Endpoint
from bot.access.ports import Notice
from storage.records import AuditEvent, Decision, Request


@dataclass(frozen=True, kw_only=True)
class CardNotice(Notice):
    """The approval card of a request as it stands. ``waits_for``: who may decide now, as the policy names them.

    ``grant`` is what an extension is about; ``ticket_url`` leads to the ticket where the policy knows the way.
    """

    request: Request
    decisions: tuple[Decision, ...]
    enforced: str
    engine: str
    reaches: str
    waits_for: tuple[str, ...] = ()
    ticket_url: str | None = None
    grant: Request | None = None


@dataclass(frozen=True, kw_only=True)
class ReminderNotice(Notice):
    """A request still waits; with ``is_escalation`` others may decide it as well from now on."""

    request: Request
    waits_for: tuple[str, ...]
    is_escalation: bool = False


@dataclass(frozen=True, kw_only=True)
class EndingSoonNotice(Notice):
    """To the requester, a while before the end."""

    request: Request


@dataclass(frozen=True, kw_only=True)
class ReviewNotice(Notice):
    """To those who sign off: the time to do it is over."""

    request: Request


@dataclass(frozen=True, kw_only=True)
class GrantedNotice(Notice):
    """To those whom the rule tells and does not ask."""

    request: Request
    decisions: tuple[Decision, ...]


@dataclass(frozen=True, kw_only=True)
class PreparingNotice(Notice):
    """The credential message before there is a user. ``trouble``: why it takes longer, in plain words."""

    request: Request
    trouble: str | None = None


@dataclass(frozen=True, kw_only=True)
class CredentialsNotice(Notice):
    """The credential message with its secret: lives for one call, is never stored and never logged.

    Without ``password`` it has all but that: the requester has it shown (delivery ``reveal``).
    """

    request: Request
    endpoint: Endpoint
    password: str | None = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class ClosedNotice(Notice):
    """The credential message when the grant is ending or over: no password, the receipt where there is one."""

    request: Request


@dataclass(frozen=True, kw_only=True)
class StateChangeNotice(Notice):
    """One line to the requester at a turn: denied, lapsed, outdated, cancelled, failed, ended. ``decision`` where someone decided."""

    request: Request
    decision: Decision | None = None
    trouble: str | None = None
    grant: Request | None = None


@dataclass(frozen=True, kw_only=True)
class FeedNotice(Notice):
    """Lines of the audit feed that share a message. ``requests`` has those the events speak of, by id."""

    events: Sequence[AuditEvent]
    requests: dict[int, Request]


@dataclass(frozen=True, kw_only=True)
class AlertNotice(Notice):
    """What is wrong, since when, what was tried, and what to do now, as steps. Plain text, no secret."""

    what: str
    since: datetime | None = None
    tries: int = 0
    next_try: datetime | None = None
    steps: tuple[str, ...] = ()
