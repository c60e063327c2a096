"""Runs a program, and all it starts, with the real-time clock ahead: what depends on the date of today shows itself.

``python -m tests.clock_ahead 366 python -m pytest …`` preloads ``ahead.c``, which moves that clock alone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

SOURCE = Path(__file__).parent / "ahead.c"
SECONDS = "CLOCK_AHEAD_SECONDS"


class NoCompiler(Exception):
    """There is no gcc to compile the library with."""


def said() -> timedelta | None:
    """How far ahead the clock of this process was set; None where it was not."""
    seconds = os.environ.get(SECONDS)
    return None if seconds is None else timedelta(seconds=int(seconds))


@contextmanager
def environment(ahead: timedelta) -> Iterator[Mapping[str, str]]:
    """What to start a program with. The library lies where a server's unprivileged account can read it."""
    with tempfile.TemporaryDirectory(prefix="dbaccess-clock-") as name:
        Path(name).chmod(0o755)
        library = _compiled(Path(name))
        yield {**os.environ, "LD_PRELOAD": str(library), SECONDS: str(round(ahead.total_seconds()))}


def today(variables: Mapping[str, str]) -> dict[str, str]:
    """The same environment with the clock of today: for what checks signatures by their dates."""
    return {name: value for name, value in variables.items() if name not in moving(variables)}


def moving(variables: Mapping[str, str]) -> dict[str, str]:
    """What of an environment moves the clock: for a program that is given an environment of its own."""
    return {name: variables[name] for name in ("LD_PRELOAD", SECONDS)} if SECONDS in variables else {}


def _compiled(folder: Path) -> Path:
    compiler = shutil.which("gcc")
    if compiler is None:
        raise NoCompiler("gcc is needed to set the clock ahead")
    library = folder / "ahead.so"
    subprocess.run([compiler, "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-o", library, SOURCE], check=True)
    library.chmod(0o755)
    return library
