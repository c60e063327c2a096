"""The configuration files. They are loaded and replaced as a whole; the last valid version stays in force."""

from __future__ import annotations

from pathlib import Path

from bot.policy.config import Config
from bot.policy.loader import ConfigError, load


class Files:
    """``config`` is the version in force, ``problems`` is what is wrong with the files on disk.

    ``is_unannounced``: the files changed and ``bot.monitors.configuration`` has not recorded it yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config: Config | None = None
        self.problems: ConfigError | None = None
        self.is_unannounced = False
        self._seen: tuple[tuple[int, int], ...] | None = None

    def forget(self) -> None:
        """Load the files at the next ``refresh``, even where their times and sizes are the same."""
        self._seen = None

    def refresh(self) -> None:
        """Load the files where they changed on disk. Invalid files set ``problems`` and leave ``config`` as it is."""
        stamp = tuple(_stamp(self.folder / name) for name in ("databases.yml", "policy.yml"))
        if stamp == self._seen:
            return
        self._seen, self.is_unannounced = stamp, True
        try:
            self.config, self.problems = load(self.folder), None
        except ConfigError as error:
            self.problems = error


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return (0, 0)
    return (status.st_mtime_ns, status.st_size)
