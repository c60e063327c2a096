"""Run the long tests one after the other, and write ``benchmarks/nightly.json``. Exit status 1 where one of them failed.

``python -m tests.nightly``. It takes some hours. ``--only NAME`` runs parts, and keeps the results of the others.
"""

from __future__ import annotations

import argparse
import ast
import json
import platform
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULT = Path(__file__).parents[2] / "benchmarks" / "nightly.json"
PARTS: dict[str, tuple[str, ...]] = {
    "crash_sqlite": ("crash", "--ledger", "sqlite", "--rounds", "250"),
    "crash_postgresql": ("crash", "--ledger", "postgresql", "--rounds", "250"),
    "state_machine": ("state_machine", "--steps", "10000"),
    "fuzz": ("fuzz", "--inputs", "100000"),
    "load": ("load", "--seconds", "3600"),
}
"""The module of each part, and its arguments."""
LIBRARIES = ("psycopg", "redis", "sqlalchemy", "slack-bolt")


def run_part(module: str, *arguments: str) -> dict[str, Any]:
    """Run one module. The results are the objects that it prints, one a line."""
    started, began = time.monotonic(), datetime.now(UTC)
    print(f"{module} {' '.join(arguments)} …", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", f"tests.nightly.{module}", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    print(done.stdout, flush=True)
    found = [result for line in done.stdout.splitlines() if (result := parsed(line)) is not None]
    return {
        "date": began.date().isoformat(),
        "arguments": " ".join(arguments),
        "passed": done.returncode == 0,
        "seconds": round(time.monotonic() - started),
        "results": found,
    }


def parsed(line: str) -> dict[str, Any] | None:
    """The object on this line, as JSON or as Python writes it. None where there is none."""
    if not line.startswith("{"):
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            value = read(line)
        except (ValueError, SyntaxError):
            continue
        return dict(value)
    return None


def versions() -> dict[str, str]:
    own = {
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "system": f"{platform.system()} {platform.machine()}",
    }
    return own | {name: version(name) for name in ("dbaccess", *LIBRARIES)}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.nightly", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS), metavar="NAME")
    options = parser.parse_args(argv)
    known = json.loads(RESULT.read_text())["parts"] if RESULT.exists() else {}
    for name in options.only:
        known[name] = run_part(*PARTS[name])
        content = {"versions": versions(), "parts": {part: known[part] for part in PARTS if part in known}}
        RESULT.write_text(json.dumps(content, indent=1) + "\n")
    failed = [name for name in options.only if not known[name]["passed"]]
    print(f"failed: {', '.join(failed)}" if failed else "all passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
