"""The fetching of local-slack: once, whole, also where several processes ask for it at the same moment."""

from __future__ import annotations

import multiprocessing
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from demo import local_slack

PROCESSES = 4
PACKAGE = local_slack.PACKAGES.get((platform.system(), platform.machine()))
NPM = """
import io, pathlib, sys, tarfile, time
place = pathlib.Path(sys.argv[sys.argv.index("--pack-destination") + 1])
with open({calls!r}, "a") as calls:
    calls.write("call\\n")
program = b"#!/bin/sh\\necho running\\n" + b"#" * 2_000_000
entry = tarfile.TarInfo("package/bin/local-slack")
entry.size, entry.mode = len(program), 0o755
with tarfile.open(place / {archive!r}, "w:gz", compresslevel=1) as packed:
    packed.addfile(entry, io.BytesIO(program))
"""


def _fetch_and_run(cache: Path, npm: list[str], gate: multiprocessing.Barrier, told: multiprocessing.Queue) -> None:  # type: ignore[type-arg,valid-type]
    local_slack.CACHE, local_slack._npm, local_slack.INTEGRITY = cache, lambda: npm, {}  # type: ignore[assignment]
    gate.wait()  # type: ignore[attr-defined]
    try:
        told.put(subprocess.run([local_slack.binary()], capture_output=True, text=True, check=True).stdout)
    except Exception as error:  # noqa: BLE001 - the parent judges it
        told.put(repr(error))


@pytest.mark.skipif(PACKAGE is None, reason="there is no local-slack for this machine")
def test_processes_that_fetch_at_the_same_moment_all_get_a_whole_program(tmp_path: Path) -> None:
    calls, npm = tmp_path / "calls", tmp_path / "npm.py"
    npm.write_text(NPM.format(calls=str(calls), archive=f"{PACKAGE}-{local_slack.VERSION}.tgz"))
    context = multiprocessing.get_context("spawn")
    gate, told = context.Barrier(PROCESSES), context.Queue()
    arguments = (tmp_path / "cache", [sys.executable, str(npm)], gate, told)
    children = [context.Process(target=_fetch_and_run, args=arguments) for _ in range(PROCESSES)]
    for child in children:
        child.start()
    answers = [told.get(timeout=120) for _ in children]
    for child in children:
        child.join()
    assert answers == ["running\n"] * PROCESSES
    assert calls.read_text() == "call\n"
