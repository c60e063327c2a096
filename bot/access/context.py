"""What every verb is given: the ledger, the files in force, people, messages, engines."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bot.access.errors import Refused
from bot.access.ports import Directory, DirectoryUnavailable, Messenger, Person
from bot.engines import Engines
from bot.policy.load import Config, ConfigError, load
from storage.ledger import Ledger

NOTHING_GRANTED = "dbaccess grants nothing at the moment: its configuration has mistakes. Its administrators have been told."
NO_DIRECTORY = "Slack did not answer who you are, so nothing was done. Please try again."


class Files:
    """databases.yml and policy.yml as they are in force; the last good ones stay when a change is broken."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config: Config | None = None
        self.problems: ConfigError | None = None
        self._seen: tuple[tuple[int, int], ...] | None = None

    def refresh(self) -> bool:
        """Load again what changed on disk; True where the attempt was made, whatever came of it."""
        stamp = tuple(_stamp(self.folder / name) for name in ("databases.yml", "policy.yml"))
        if stamp == self._seen:
            return False
        self._seen = stamp
        try:
            self.config, self.problems = load(self.folder), None
        except ConfigError as mistake:
            self.problems = mistake
        return True

    def in_force(self) -> Config:
        """The configuration to judge by, as the files are now. Raises Refused where none was ever good."""
        self.refresh()
        if self.config is None:
            raise Refused(NOTHING_GRANTED)
        return self.config


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return (0, 0)
    return (status.st_mtime_ns, status.st_size)


@dataclass(frozen=True, kw_only=True)
class Context:
    """Built once in ``bot.app``. ``prefix`` begins the names of the users we make."""

    ledger: Ledger
    files: Files
    directory: Directory
    messenger: Messenger
    engines: Engines
    prefix: str
    team_id: str

    async def member(self, person_id: str) -> Person:
        """Who acts, as the directory knows them now. Raises Refused for all but our own full members."""
        try:
            person = await self.directory.person(person_id)
        except DirectoryUnavailable:
            raise Refused(NO_DIRECTORY) from None
        if not person.is_ours:
            raise Refused(f"Only members of this workspace can use dbaccess ({person.why_not}).")
        return person
