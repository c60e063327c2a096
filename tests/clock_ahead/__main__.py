"""``python -m tests.clock_ahead DAYS PROGRAM…`` exits with the status of the program."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta

from tests.clock_ahead import NoCompiler, environment


def main(days: str, *program: str) -> int:
    try:
        with environment(timedelta(days=int(days))) as variables:
            return subprocess.run(program, env=variables, check=False).returncode
    except NoCompiler as missing:
        sys.stderr.write(f"{missing}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
