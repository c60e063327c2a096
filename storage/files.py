"""Files of a SQLite ledger. Only their owner can read and write them, whatever the umask is."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

PRIVATE = 0o600


def make_private(path: Path) -> None:
    """Create the file if it does not exist. Remove all rights of group and others from an existing one.

    An existing file is never opened: closing it would release the locks that SQLite holds on it in this process. A file of
    another owner stays as it is. Raises OSError.
    """
    path = path.resolve()
    if not path.exists():
        _create(path)
    restrict_to_owner(path)


def restrict_to_owner(path: Path) -> None:
    """Keep only the owner's rights on a regular file. A missing file, a device or a pipe stays as it is."""
    with suppress(FileNotFoundError, PermissionError):
        found = path.stat().st_mode
        mode = stat.S_IMODE(found)
        if stat.S_ISREG(found) and mode & ~PRIVATE:
            path.chmod(mode & PRIVATE)


def _create(path: Path) -> None:
    """Create the file under another name first: nobody can open it before its mode is set, and closing it releases no lock."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        os.fchmod(handle, PRIVATE)
        os.close(handle)
        path.hardlink_to(temporary)
    except FileExistsError:
        return  # another process created it
    except OSError:
        path.touch(PRIVATE)  # a file system without hard links
    finally:
        Path(temporary).unlink()
