"""Writes ``benchmarks/results.json``, ``docs/performance.md`` and its plots."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, by_group, percentile, shown
from benchmarks.plots import Bar, Curve, bars, curves

ROOT = Path(__file__).parents[1]
RESULTS, PAGE, NOTES = ROOT / "benchmarks/results.json", ROOT / "docs/performance.md", ROOT / "benchmarks/notes.md"
PLOTS = {"ratios": "performance-ratios.svg", "ends": "performance-ends.svg", "growth": "performance-growth.svg"}
QUANTILES = 50

INTRODUCTION = """# Performance

`python -m benchmarks --write` measures these figures and writes this page. `make bench` measures them and prints them.

The real bot runs as a process, between the strict fake Slack of the tests (real HTTP and Socket Mode) and a private PostgreSQL 15
that writes durably. The bot is driven by commands and clicks, and it is measured from outside: by the times in the fake Slack, by
logins and open sessions on the server, and by the operating system. Many live grants and a long history are copies of a real grant in the ledger.

**Bare** is the limit, measured in the same run: the same SQL over one open connection by the bare driver, and one durable commit
for each change of state. For commands it is a Bolt listener that only acknowledges. For the growth it is the same figure with an
empty ledger. The driver, the fake Slack, the bot and PostgreSQL share the processors of one machine, so that all figures include their competition.
"""


@dataclass(frozen=True, kw_only=True)
class Skipped:
    """A measurement that was not made, and why."""

    name: str
    why: str


def machine(ledger: str, durable_commit: float, load: float) -> dict[str, Any]:
    """What the figures depend on, without the name of the machine. ``load`` is that of other programs."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": _processor(),
        "processors": os.cpu_count(),
        "memory_gib": round(memory),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "target": "PostgreSQL 15",
        "ledger": f"SQLite {sqlite3.sqlite_version}" if ledger == "sqlite" else "PostgreSQL 15",
        "load_before": round(load, 2),
        "durable_commit_ms": round(durable_commit * 1000, 2),
    }


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


def write(facts: dict[str, Any], figures: Sequence[Figure], skipped: Sequence[Skipped]) -> None:
    """Write the results, the page and the plots."""
    found = [figure.to_json() for figure in figures]
    left = [{"name": one.name, "why": one.why} for one in skipped]
    RESULTS.write_text(json.dumps({"machine": facts, "figures": found, "skipped": left}, indent=1) + "\n")
    drawn = _plots(figures)
    for name, picture in drawn.items():
        (PAGE.parent / PLOTS[name]).write_text(picture)
    PAGE.write_text(_page(facts, figures, skipped, set(drawn)))


def _page(facts: dict[str, Any], figures: Sequence[Figure], skipped: Sequence[Skipped], drawn: set[str]) -> str:
    parts = [INTRODUCTION, _machine_line(facts)]
    captions = {
        "ratios": "How many times the bare limit the median takes. The line is the value to be reached.",
        "ends": "The share of sessions that are dead and of users that are removed, by the seconds after their end. The dashed lines are the values to be reached.",
        "growth": "How many times the value with an empty ledger. The line is the value to be reached.",
    }
    parts += [f"![{caption}]({PLOTS[name]})" for name, caption in captions.items() if name in drawn]
    parts += [f"## {group}\n\n{table(found)}" for group, found in by_group(figures).items()]
    if skipped:
        parts.append("## Not measured\n\n" + "\n".join(f"- {one.name}: {one.why}" for one in skipped))
    if NOTES.exists():
        parts.append(NOTES.read_text().strip())
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _machine_line(facts: dict[str, Any]) -> str:
    return (
        f"Measured on {facts['processors']} processors ({facts['processor']}), {facts['memory_gib']} GiB of memory, {facts['system']}, "
        f"Python {facts['python']}; ledger on {facts['ledger']}, a durable commit of SQLite takes {facts['durable_commit_ms']} ms. "
        f"Before the run, other programs used {facts['load_before']} processors (the load of one minute)."
    )


def table(figures: Sequence[Figure]) -> str:
    """The figures of one group."""
    head = "| figure | n | median | p95 | p99 | least to most | bare | ratio | to be reached | |"
    return "\n".join([head, "|---|---|---|---|---|---|---|---|---|---|", *(_row(figure) for figure in figures)])


def _row(figure: Figure) -> str:
    unit, values = figure.unit, figure.values
    numbers = [figure.median, percentile(values, 95), percentile(values, 99)]
    goal = figure.goal.text(unit) if figure.goal else ""
    reached = {True: "yes", False: "**no**", None: ""}[figure.is_reached]
    ratio = f"{figure.ratio:.2g}" if figure.ratio is not None else ""
    name = f"{figure.name} ({figure.note})" if figure.note else figure.name
    spread = f"{shown(min(values), unit)} to {shown(max(values), unit)}" if len(values) > 1 else ""
    cells = [
        name,
        f"{len(values):,}",
        *(shown(n, unit) for n in numbers),
        spread,
        shown(figure.bare, unit),
        ratio,
        goal,
        reached,
    ]
    return "| " + " | ".join(cells) + " |"


# The plots.


def _plots(figures: Sequence[Figure]) -> dict[str, str]:
    growth = [f for f in figures if f.group == "Growth" and f.ratio]
    ratios = [f for f in figures if f.group != "Growth" and f.ratio and f.unit == "s"]
    many = [f for f in figures if len(f.values) >= QUANTILES and "ends in one second" in f.name and f.group != "Growth"]
    found = {}
    if ratios:
        found["ratios"] = bars("Times the bare limit", [_bar(f) for f in ratios])
    if growth:
        found["growth"] = bars("Times the value with an empty ledger", [_bar(f) for f in growth], is_linear=True)
    if many:
        most = max(len(f.values) for f in many)
        drawn = [_curve(f) for f in many if len(f.values) == most]
        found["ends"] = curves(f"{most:,} ends in the same second", drawn, "s")
    return found


def _bar(figure: Figure) -> Bar:
    goal = figure.goal.at_most if figure.goal and figure.goal.statistic == "ratio" else None
    ratio = figure.ratio or 0.0
    is_reached = figure.is_reached if goal is not None else None
    return Bar(label=_short(figure.name), value=ratio, shown=f"{ratio:.2g} ×", goal=goal, is_reached=is_reached)


def _short(name: str) -> str:
    for long, short in (
        (" requests of history", ""),
        ("processor time of the bot from request to end", "processor time"),
    ):
        name = name.replace(long, short)
    return name.replace("`", "")


def _curve(figure: Figure) -> Curve:
    quantiles = [percentile(figure.values, 100 * n / QUANTILES) for n in range(QUANTILES + 1)]
    goal = figure.goal.at_most if figure.goal else None
    return Curve(label=figure.name.partition("until ")[2].replace("each", "the"), quantiles=quantiles, goal=goal)
