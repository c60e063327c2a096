"""Runs a program and its children with the real-time clock set ahead, to find tests that depend on today's date.

``python -m tests.clock_ahead 366 python -m pytest …`` preloads ``ahead.c``, which moves only that clock.
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


def clock_offset() -> timedelta | None:
    """How far ahead the clock of this process is set; None if it is not."""
    seconds = os.environ.get(SECONDS)
    return None if seconds is None else timedelta(seconds=int(seconds))


@contextmanager
def environment(ahead: timedelta) -> Iterator[Mapping[str, str]]:
    """The environment to start a program with. A server's unprivileged account can read the library's folder."""
    with tempfile.TemporaryDirectory(prefix="dbaccess-clock-") as name:
        Path(name).chmod(0o755)
        library = _compiled(Path(name))
        yield {**os.environ, "LD_PRELOAD": str(library), SECONDS: str(round(ahead.total_seconds()))}


def without_offset(variables: Mapping[str, str]) -> dict[str, str]:
    """The same environment without the moved clock, for a program that checks signatures by their dates."""
    return {name: value for name, value in variables.items() if name not in offset_variables(variables)}


def offset_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """The variables that move the clock, for a program that gets an environment of its own."""
    return {name: variables[name] for name in ("LD_PRELOAD", SECONDS)} if SECONDS in variables else {}


def _compiled(folder: Path) -> Path:
    compiler = shutil.which("gcc")
    if compiler is None:
        raise NoCompiler("gcc is needed to set the clock ahead")
    library = folder / "ahead.so"
    subprocess.run([compiler, "-O2", "-fPIC", "-shared", "-fvisibility=hidden", "-o", library, SOURCE], check=True)
    library.chmod(0o755)
    return library
