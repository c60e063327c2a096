"""Protocols of what the use cases and jobs need from Slack: the directory and the messenger.

A ``Notice`` is *what* a message shows. ``bot.slack.render`` alone decides how it looks.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

OPERATOR_PREFIX = "cli:"
"""The id of a person who uses the command line is this and the name of their operating system user."""


@dataclass(frozen=True, kw_only=True)
class Person:
    """A person as the directory knows them now.

    ``is_member``: an active full member of this workspace or organisation, no guest and no bot. ``not_member_reason`` says
    why not, in a few words.
    """

    id: str
    name: str
    is_member: bool
    not_member_reason: str = ""

    @property
    def is_operator(self) -> bool:
        """The person uses the command line. A person who can run it controls the ledger and the configuration already."""
        return self.id.startswith(OPERATOR_PREFIX)


class DirectoryUnavailable(Exception):
    """The directory gave no answer. The caller must treat that as a no."""


class Directory(Protocol):
    """People and groups, as Slack has them. Answers about people are at most 60 seconds old."""

    async def person(self, person_id: str, *, fresh: bool = False) -> Person:
        """The person with this id; an unknown id gives a Person that is no member. ``fresh``: do not answer from the cache.

        Raises DirectoryUnavailable.
        """

    async def team_id(self) -> str:
        """The id of this workspace. Raises DirectoryUnavailable until Slack was reached once."""

    async def outside(self, channel: str, people: Sequence[str]) -> tuple[str, ...]:
        """Those of ``people`` who are not in the channel and so do not see its messages. Raises DirectoryUnavailable."""

    async def members(self, names: Collection[str]) -> Mapping[str, frozenset[str]]:
        """The members of each of these groups (``S…`` ids, ``@handles``), or the owner of each e-mail address (one person, or nobody).

        A name without an answer is missing in the result: that means unknown, never nobody. Never raises. Groups are at
        most one minute old, addresses some minutes.
        """

    async def group_ids(self, handles: Collection[str]) -> Mapping[str, str]:
        """``@handle`` → the id of the group that has it now. Handles without an answer or without a group are missing."""

    def forget(self, person_id: str) -> None:
        """Drop what is cached about this person."""

    def forget_groups(self) -> None:
        """Drop what is cached about groups."""


class DeliveryError(Exception):
    """A message could not be posted or updated. The error text holds no text of the message."""


class Delayed(DeliveryError):
    """A retry may help. ``retry_after`` is the pause in seconds that Slack asked for; None where it named none.

    ``is_paced``: Slack was not asked, since it is not the turn of this message yet.
    """

    def __init__(self, reason: str, *, retry_after: float | None = None, is_paced: bool = False) -> None:
        super().__init__(reason)
        self.retry_after = retry_after
        self.is_paced = is_paced


class Undeliverable(DeliveryError):
    """A retry does not help: no such channel, the bot is not in it, it is archived, or the person takes no messages."""


class MessageGone(Undeliverable):
    """The message to be updated was deleted."""


@dataclass(frozen=True, kw_only=True)
class Posted:
    """The place of a message: a channel (``C…``, or ``D…`` for a DM) and its ts."""

    channel: str
    ts: str


@dataclass(frozen=True, kw_only=True)
class Notice:
    """The content of a message. ``bot.notifications.notices`` has one class for each kind."""


class Messenger(Protocol):
    """Posts and updates messages. Its methods raise Delayed, Undeliverable or MessageGone and nothing else."""

    async def post(self, channel: str, notice: Notice, *, thread: str | None = None) -> Posted:
        """Post to a channel, to the ``thread`` of a message there, or, given a person's id as ``channel``, to the DM with that person."""

    async def update(self, posted: Posted, notice: Notice) -> None:
        """Replace the content of a message."""
