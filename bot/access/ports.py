"""What the verbs need from Slack, said without Slack: who people are, and where to say things.

``Notice`` names *what* is to be shown; how it looks is ``bot.slack.render.cards``' affair alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, TypeAlias

from adapters.base import Endpoint
from storage.records import AuditEvent, Decision, Request


@dataclass(frozen=True, kw_only=True)
class Person:
    """Someone as the directory knows them now. ``is_member``: a full member of our own workspace or organisation, active, no guest, no bot."""

    id: str
    name: str
    is_member: bool
    why_not: str = ""

    @property
    def is_operator(self) -> bool:
        """The command line: whoever may run it has the store and the configuration in hand."""
        return self.id.startswith("cli:")


class DirectoryUnavailable(Exception):
    """The directory gave no answer. Whoever asked must take that as a no."""


class Directory(Protocol):
    """People, as Slack has them; answers are at most 60 s old."""

    async def person(self, person_id: str, *, fresh: bool = False) -> Person:
        """Raises DirectoryUnavailable; an unknown id is a Person that is not ours."""

    async def team_id(self) -> str:
        """Our own workspace. Raises DirectoryUnavailable while Slack was never reached."""

    async def outside(self, channel: str, people: Sequence[str]) -> tuple[str, ...]:
        """Those of ``people`` who are not in the channel and would not see what is posted there. Raises DirectoryUnavailable."""

    async def members(self, names: Collection[str]) -> Mapping[str, frozenset[str]]:
        """Who is in each of these groups (``S…`` ids, ``@handles``) or has this e-mail address: one person, or nobody.

        A name that got no answer is missing in the result: whoever reads it takes that as unknown, never as nobody.
        Never raises. Groups are at most a minute old; an address is believed for some minutes.
        """

    async def group_ids(self, handles: Collection[str]) -> Mapping[str, str]:
        """``@handle`` → the id of the group that has it now; handles that gave no answer, or that nobody has, are missing."""

    def forget(self, person_id: str) -> None:
        """What is known of this person is old: ask again next time."""

    def forget_groups(self) -> None:
        """Groups changed: ask again next time."""


class DeliveryError(Exception):
    """A message could not be shown. The sentence holds no text of the message."""


class Delayed(DeliveryError):
    """Try again, not before ``retry_after`` seconds where Slack named a time."""

    def __init__(self, why: str, *, retry_after: float | None = None) -> None:
        super().__init__(why)
        self.retry_after = retry_after


class Undeliverable(DeliveryError):
    """It will not help to try again: no such channel, not a member, archived, messages closed."""


class MessageGone(Undeliverable):
    """The message to be redrawn was deleted."""


@dataclass(frozen=True, kw_only=True)
class Posted:
    """Where a message is: a channel (``C…``, or ``D…`` for a DM) and its ts."""

    channel: str
    ts: str


@dataclass(frozen=True, kw_only=True)
class CardNotice:
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
class ReminderNotice:
    """A request still waits; with ``is_escalation`` others may decide it as well from now on."""

    request: Request
    waits_for: tuple[str, ...]
    is_escalation: bool = False


@dataclass(frozen=True, kw_only=True)
class EndingSoonNotice:
    """To the requester, a while before the end."""

    request: Request


@dataclass(frozen=True, kw_only=True)
class ReviewNotice:
    """To those who sign off: the time to do it is over."""

    request: Request


@dataclass(frozen=True, kw_only=True)
class GrantedNotice:
    """To those whom the rule tells and does not ask."""

    request: Request
    decisions: tuple[Decision, ...]


@dataclass(frozen=True, kw_only=True)
class PreparingNotice:
    """The credential message before there is a user. ``trouble``: why it takes longer, in plain words."""

    request: Request
    trouble: str | None = None


@dataclass(frozen=True, kw_only=True)
class CredentialsNotice:
    """The credential message with its secret: lives for one call, is never stored and never logged.

    Without ``password`` it has all but that: the requester has it shown (delivery ``reveal``).
    """

    request: Request
    endpoint: Endpoint
    password: str | None = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Shown:
    """A password on its way to the one person it is for. Lives for one call; ``times`` counts how often one was shown."""

    request: Request
    endpoint: Endpoint
    times: int
    password: str = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class ClosedNotice:
    """The credential message when the grant is ending or over: no password, the receipt where there is one."""

    request: Request


@dataclass(frozen=True, kw_only=True)
class TurnNotice:
    """One line to the requester at a turn: denied, lapsed, outdated, cancelled, failed, ended. ``decision`` where someone decided."""

    request: Request
    decision: Decision | None = None
    trouble: str | None = None
    grant: Request | None = None


@dataclass(frozen=True, kw_only=True)
class FeedNotice:
    """Lines of the audit feed that share a message. ``requests`` has those the events speak of, by id."""

    events: Sequence[AuditEvent]
    requests: dict[int, Request]


@dataclass(frozen=True, kw_only=True)
class AlertNotice:
    """What is wrong, since when, what was tried, and what to do now, as steps. Plain text, no secret."""

    what: str
    since: datetime | None = None
    tries: int = 0
    next_try: datetime | None = None
    steps: tuple[str, ...] = ()


Notice: TypeAlias = (
    CardNotice
    | ReminderNotice
    | EndingSoonNotice
    | ReviewNotice
    | GrantedNotice
    | PreparingNotice
    | CredentialsNotice
    | ClosedNotice
    | TurnNotice
    | FeedNotice
    | AlertNotice
)


class Messenger(Protocol):
    """The only way anything is said. Raises Delayed, Undeliverable or MessageGone and nothing else."""

    async def post(self, channel: str, notice: Notice, *, thread: str | None = None) -> Posted:
        """Show it in a channel, in the ``thread`` of a message there, or in the bot's DM with a person when given a person's id."""

    async def redraw(self, posted: Posted, notice: Notice) -> None:
        """Replace what a message shows, in place."""
