"""The configuration in force: loaded as a whole, swapped at once, the last good one kept."""

from __future__ import annotations

from pathlib import Path

from bot.policy.loader import Config, ConfigError, load


class Files:
    """databases.yml and policy.yml as they are in force; ``problems`` says what is wrong with those on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config: Config | None = None
        self.problems: ConfigError | None = None
        self.has_news = False
        self._seen: tuple[tuple[int, int], ...] | None = None

    def forget(self) -> None:
        """Read them at the next look, whether they seem to have changed or not."""
        self._seen = None

    def refresh(self) -> None:
        """Load again what changed on disk since the last look; a change that is broken leaves what is in force."""
        stamp = tuple(_stamp(self.folder / name) for name in ("databases.yml", "policy.yml"))
        if stamp == self._seen:
            return
        self._seen, self.has_news = stamp, True
        try:
            self.config, self.problems = load(self.folder), None
        except ConfigError as mistake:
            self.problems = mistake


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return (0, 0)
    return (status.st_mtime_ns, status.st_size)
