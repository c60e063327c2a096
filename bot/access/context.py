"""What every verb is given: the ledger, the files in force, people, messages, engines."""

from __future__ import annotations

from dataclasses import dataclass

from bot.access.errors import Refused
from bot.access.files import Files
from bot.access.ports import Directory, DirectoryUnavailable, Messenger, Person
from bot.engines import Engines
from bot.policy.loader import Config
from storage.ledger import Ledger

NOTHING_GRANTED = "dbaccess grants nothing at the moment: its configuration has mistakes. Its administrators find them by dbaccess policy check."
NO_DIRECTORY = "Slack did not answer who you are, so nothing was done. Please try again."


class IdentityUnavailable(Refused):
    """Slack did not say who acts."""

    def __init__(self) -> None:
        super().__init__(NO_DIRECTORY)


@dataclass(frozen=True, kw_only=True)
class Context:
    """Built once in ``bot.app``. ``prefix`` begins the names of the users we make."""

    ledger: Ledger
    files: Files
    directory: Directory
    messenger: Messenger
    engines: Engines
    prefix: str

    def config_in_force(self) -> Config:
        """The configuration to judge by, as the files are now. Raises Refused where none was ever good."""
        self.files.refresh()
        if self.files.config is None:
            raise Refused(NOTHING_GRANTED)
        return self.files.config

    async def member(self, person_id: str) -> Person:
        """Who acts, as the directory knows them now. Raises Refused for all but our own full members."""
        try:
            person = await self.directory.person(person_id)
        except DirectoryUnavailable:
            raise IdentityUnavailable from None
        if not person.is_member:
            raise Refused(f"Only members of this workspace can use dbaccess ({person.why_not}).")
        return person

    async def member_for_own_end(self, person_id: str) -> Person:
        """Who gives their own grant back. As ``member``, but a directory that does not answer stops nobody: it is an end, and Slack says whose click it is."""
        try:
            return await self.member(person_id)
        except IdentityUnavailable:
            return Person(id=person_id, name=person_id, is_member=True)
