"""The context of every use case and job: the ledger, the configuration, the directory, the messenger, the engines."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from bot.access.errors import Refused
from bot.access.files import Files
from bot.access.ports import Directory, DirectoryUnavailable, Messenger, Person
from bot.engines import Engines
from bot.policy.config import Config
from storage.ledger import Ledger

NOTHING_GRANTED = "dbaccess grants nothing at the moment: its configuration has errors. An administrator can list them with dbaccess policy check."
NEWER_CONFIGURATION = "A newer configuration is in force on another replica. Please try again in a moment."
NO_DIRECTORY = "Slack did not answer who you are, so nothing was done. Please try again."

ServerKey: TypeAlias = tuple[str, str, str | None, str]

_lookups: set[asyncio.Future[Any]] = set()
"""Lookups under way. The event loop itself keeps only weak references."""


class IdentityUnavailable(Refused):
    """Slack did not answer who the acting person is."""

    def __init__(self) -> None:
        super().__init__(NO_DIRECTORY)


@dataclass(frozen=True, kw_only=True)
class Context:
    """Built once in ``bot.app``. ``prefix`` starts the name of every managed user.

    ``compared`` has the servers (``targets.server_key``) whose users were compared with the ledger since the start of this process.
    """

    ledger: Ledger
    files: Files
    directory: Directory
    messenger: Messenger
    engines: Engines
    prefix: str
    compared: set[ServerKey] = field(default_factory=set, compare=False)

    def config_in_force(self) -> Config:
        """The configuration in force, after a look at the files. Raises Refused where no version of the files was ever valid."""
        self.files.refresh()
        if self.files.config is None:
            raise Refused(NOTHING_GRANTED)
        return self.files.config

    async def check_configuration_is_newest(self) -> None:
        """Raises Refused where another replica has a newer configuration: this one grants nothing until it has loaded it."""
        if not await self.ledger.replicas.has_newest(self.config_in_force().digest):
            raise Refused(NEWER_CONFIGURATION)

    async def member(self, person_id: str) -> Person:
        """The acting person, as the directory knows them now.

        Raises IdentityUnavailable where the directory does not answer, and Refused for everybody who is not a full member of the workspace.
        """
        self._ask_for_groups()
        try:
            person = await self.directory.person(person_id)
        except DirectoryUnavailable:
            raise IdentityUnavailable from None
        if not person.is_member:
            raise Refused(f"Only members of this workspace can use dbaccess ({person.not_member_reason}).")
        return person

    def _ask_for_groups(self) -> None:
        """Ask for the groups of the policy beside the person: a decision needs both, and the directory shares a call under way."""
        config = self.files.config
        if config is not None and config.group_names:
            lookup = asyncio.ensure_future(self.directory.members(config.group_names))
            _lookups.add(lookup)
            lookup.add_done_callback(_lookups.discard)

    async def member_for_own_end(self, person_id: str) -> Person:
        """The person who ends their own grant. As ``member``, but works without the directory.

        An end never waits for Slack. The click itself proves who the person is.
        """
        try:
            return await self.member(person_id)
        except IdentityUnavailable:
            return Person(id=person_id, name=person_id, is_member=True)
