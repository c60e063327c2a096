"""The SQLite ledger's files: readable and writable for their owner alone, whatever the umask says."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

PRIVATE = 0o600


def make_private(path: Path) -> None:
    """Create the file where there is none, and take the rights of group and others off one that has any.

    A file that is there is never opened: closing it would drop the locks that SQLite holds on it in this process. Where
    the file belongs to somebody else, its owner decides about it. Raises OSError.
    """
    path = path.resolve()
    if not path.exists():
        _create(path)
    narrow(path)


def narrow(path: Path) -> None:
    """Leave of the file's rights only those of its owner. Nothing happens where there is no such file, or where it is a device or a pipe."""
    with suppress(FileNotFoundError, PermissionError):
        found = path.stat().st_mode
        mode = stat.S_IMODE(found)
        if stat.S_ISREG(found) and mode & ~PRIVATE:
            path.chmod(mode & PRIVATE)


def _create(path: Path) -> None:
    """Under another name first: nobody else can open it before it has its rights, and no lock is lost by closing it."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        os.fchmod(handle, PRIVATE)
        os.close(handle)
        path.hardlink_to(temporary)
    except FileExistsError:
        return  # somebody else was faster
    except OSError:
        path.touch(PRIVATE)  # a file system without such links
    finally:
        Path(temporary).unlink()
