"""The right to run a bot on a SQLite ledger. The operating system keeps it, and frees it when the process ends.

There are two locks. One is on the file ``<ledger>.lock``: it also holds against a ledger that was put in the place of this one. The other is
``flock`` on the ledger itself, on Linux: it holds under every name of the file, also where the lock file was removed. SQLite locks with
``fcntl``, which is independent of ``flock`` there (flock(2), "NOTES"; not on NFS, where SQLite's write-ahead log does not work either).
"""

from __future__ import annotations

import fcntl
import os
import sys
from pathlib import Path

import fasteners

from storage.errors import LedgerReplaced
from storage.files import make_private


class RunLock:
    """The lock of one ledger file. ``close`` must come after SQLite's last connection of this process.

    Closing any descriptor of a file frees all ``fcntl`` locks of the process on it, those of SQLite too (fcntl(2)).
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        self._lock_file: fasteners.InterProcessLock | None = None

    def acquire(self, *, is_to_be_made: bool = False) -> bool:
        """Take the lock. False if another process has it. Raises LedgerReplaced if the ledger's file is missing.

        ``is_to_be_made``: a missing ledger is about to be made. Then the lock file alone is locked.
        """
        lock_path = Path(f"{self._path.resolve()}.lock")
        make_private(lock_path)
        self._lock_file = fasteners.InterProcessLock(lock_path)
        if not self._lock_file.acquire(blocking=False):
            self._lock_file.lockfile.close()
            return False
        if (is_to_be_made and not self._path.exists()) or self._lock_ledger():
            return True
        self._lock_file.release()
        return False

    def _lock_ledger(self) -> bool:
        if self._file is None:
            try:
                self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                raise LedgerReplaced from None
        if sys.platform != "linux":
            return True
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    @property
    def is_replaced(self) -> bool:
        """Whether the locked file was removed, or another one has its name now."""
        if self._file is None:
            return False
        try:
            return not os.path.samestat(self._path.stat(), os.fstat(self._file))
        except OSError:
            return True

    def release(self) -> None:
        """Free the lock. The file stays open until ``close``."""
        if self._lock_file is not None and self._lock_file.acquired:
            self._lock_file.release()
        if self._file is not None and sys.platform == "linux":
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def close(self) -> None:
        """Free the lock, and close the ledger's file."""
        self.release()
        if self._file is not None:
            os.close(self._file)
            self._file = None
