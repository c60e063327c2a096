"""What the verbs need from Slack, said without Slack: who people are, and where to say things.

``Notice`` names *what* is to be shown; how it looks is ``bot.slack.render``'s affair alone.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


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
class Notice:
    """What is to be shown. ``bot.notifications.notices`` has one class for each kind."""


class Messenger(Protocol):
    """The only way anything is said. Raises Delayed, Undeliverable or MessageGone and nothing else."""

    async def post(self, channel: str, notice: Notice, *, thread: str | None = None) -> Posted:
        """Show it in a channel, in the ``thread`` of a message there, or in the bot's DM with a person when given a person's id."""

    async def update(self, posted: Posted, notice: Notice) -> None:
        """Replace what a message shows, in place."""
