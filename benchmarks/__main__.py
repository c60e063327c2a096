"""Run all benchmarks. Exit status 1 where one is slower than its limit."""

from __future__ import annotations

import os
import platform
import sys

from benchmarks.policy import measure


def main() -> int:
    """Print each measured time with its limit."""
    print(f"{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}")
    results = measure()
    for result in results:
        print(
            f"{'ok  ' if result.is_fast else 'SLOW'}  {result.what:<58} {result.took * 1000:8.1f} ms   limit {result.limit * 1000:.0f} ms"
        )
    return 0 if all(result.is_fast for result in results) else 1


sys.exit(main())
