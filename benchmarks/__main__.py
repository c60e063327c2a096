"""Run the benchmarks and print each figure beside its limit. Exit status 1 where a figure is not reached or not measured."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import time

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.figures import Figure, by_group, percentile, shown
from benchmarks.report import machine, write
from benchmarks.runs import MEASUREMENTS, Run, prepare, rest_and_starvation
from benchmarks.world import new_server

STOPPED = 130
QUIET = 0.3
"""The load of a machine on which nothing else works."""


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--write", action="store_true", help="write benchmarks/results.json and docs/performance.md")
    parser.add_argument(
        "--full", action="store_true", help="also with 1,000,000 requests of history, and five minutes at rest"
    )
    parser.add_argument("--ledger", choices=["sqlite", "postgresql"], default="sqlite", help="where the ledger is")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=list(MEASUREMENTS),
        default=list(MEASUREMENTS),
        metavar="NAME",
        help=", ".join(MEASUREMENTS),
    )
    return parser.parse_args()


async def run(options: argparse.Namespace) -> Run:
    """Measure what was asked for. The server is removed afterwards, also where the run is terminated."""
    this = asyncio.current_task()
    assert this is not None, "a coroutine runs in a task"
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this.cancel)
    server = new_server()
    try:
        found = await prepare(server, ledger=options.ledger, is_full=options.full)
        wanted = [name for name in MEASUREMENTS if name in options.only]
        together = {"rest", "starvation"}
        for name in wanted:
            if together <= set(wanted) and name in together:
                if name == "rest":
                    await rest_and_starvation(found)
            else:
                await MEASUREMENTS[name](found)
        return found
    finally:
        server.remove()


def show(found: Run) -> None:
    """Print a table for each group."""
    console = Console(width=max(150, Console().width))
    for group, figures in by_group(found.figures).items():
        table = Table(title=group, box=box.SIMPLE, title_justify="left")
        for column in ("", "n", "median", "p95", "p99", "most", "bare", "ratio", "to be reached", ""):
            table.add_column(column, justify="left" if not column else "right")
        for figure in figures:
            table.add_row(*_cells(figure))
        console.print(table)
    for one in found.skipped:
        console.print(f"not measured: {one.name}: {one.why}")


def _cells(figure: Figure) -> list[str]:
    unit, values = figure.unit, figure.values
    numbers = (figure.median, percentile(values, 95), percentile(values, 99), max(values), figure.bare)
    ratio = f"{figure.ratio:.2g}" if figure.ratio is not None else ""
    goal = figure.goal.text(unit) if figure.goal else ""
    name = f"{figure.name} ({figure.note})" if figure.note else figure.name
    return [
        name,
        f"{len(values):,}",
        *(shown(n, unit) for n in numbers),
        ratio,
        goal,
        {True: "yes", False: "NO", None: ""}[figure.is_reached],
    ]


def main() -> int:
    options, started, load = _options(), time.monotonic(), os.getloadavg()[0]
    if load > QUIET:
        print(
            f"other programs use {load:.1f} processors: the figures will be worse than on a quiet machine",
            file=sys.stderr,
        )
    try:
        found = asyncio.run(run(options))
    except (asyncio.CancelledError, KeyboardInterrupt):
        print("the run was terminated", file=sys.stderr)
        return STOPPED
    show(found)
    if options.write:
        write(machine(options.ledger, found.durable_commit, load), found.figures, found.skipped)
    print(f"{time.monotonic() - started:.0f} s")
    return 1 if found.skipped or any(figure.is_reached is False for figure in found.figures) else 0


if __name__ == "__main__":
    sys.exit(main())
