"""Benchmarks of the policy: evaluate 10,000 rules; load 1,000 ordinary rules."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, Goal
from bot.policy.catalog import catalog_entries
from bot.policy.evaluation import evaluate
from bot.policy.facts import Facts
from bot.policy.loader import load
from bot.policy.questions import PolicyQuestion

TITLE = "Policy"
ROUNDS = 7
EVALUATED_WITHIN, LOADED_WITHIN = 0.05, 1.0
RULES, ORDINARY, DATABASES = 10_000, 1_000, 200
GROUP = frozenset(f"U{n:05}A" for n in range(50))


def timed(name: str, limit: float, call: Callable[[], object]) -> Figure:
    """Measure ``call``, in seconds of the wall clock. The median leaves out lucky rounds and other load of the machine."""
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return Figure(group=TITLE, name=name, unit="s", values=times, goal=Goal(statistic="median", at_most=limit))


def databases() -> str:
    """A databases.yml of 200 databases with three levels each."""
    entry = '    engine: postgresql\n    labels: {{shelf: "{shelf}"}}\n    admin_url: env:X\n    levels: {{readonly: {{roles: [r]}}, readwrite: {{roles: [w]}}, migrate: {{roles: [m]}}}}\n'
    parts = [f"  db-{n}:\n{entry.format(shelf=n % 20)}" for n in range(DATABASES)]
    return "databases:\n" + "".join(parts)


def rule(number: int, **keys: Any) -> str:
    """One ordinary rule."""
    found = {
        "name": f"team {number} reads its own production",
        "requesters": f"[S{number}TEAM, U{number:05}B]",
        "databases": f'[db-{number % DATABASES}, {{shelf: "{number % 20}"}}]',
        "levels": "[readonly, migrate]",
        "max_duration": "4h",
        "ticket": "'[A-Z]+-[0-9]+'",
        "hours": '{days: mon-fri, from: "08:00", to: "19:00", tz: Europe/Berlin}',
        "approvals": f"[{{from: [S{number}LEADS]}}, {{from: [S1DBA]}}]",
        **keys,
    }
    lines = [f"{key}: {value}" for key, value in found.items()]
    return "  - " + "\n    ".join(lines) + "\n"


def policy(number: int, **keys: Any) -> str:
    """A policy.yml of this many rules. The last one answers."""
    last = rule(
        number, name="the last", requesters="[U99999Z]", databases='["*"]', levels='["*"]', ticket="'P'", **keys
    )
    return "defaults: {channel: C01CARDS}\nrules:\n" + "".join(rule(n) for n in range(number - 1)) + last


def measure_policy() -> list[Figure]:
    """Run the benchmarks of this file."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "databases.yml").write_text(databases())
        (folder / "policy.yml").write_text(policy(ORDINARY))
        loaded = timed("1,000 ordinary rules, 200 databases: load and check", LOADED_WITHIN, lambda: load(folder))
        (folder / "policy.yml").write_text(policy(RULES))
        return [loaded, *_evaluated(folder)]


def _evaluated(folder: Path) -> list[Figure]:
    config = load(folder)
    members = dict.fromkeys(config.directory_names, GROUP)
    facts = Facts(members=members | {"S1DBA": frozenset({"U00001D", "U00002D"}), "S10000LEADS": GROUP})
    at = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
    last = PolicyQuestion(
        person_id="U99999Z", database="db-7", level="readonly", duration=timedelta(hours=1), reason="PAY-311 x", at=at
    )
    nobody = PolicyQuestion(person_id="U88888Z", database="db-7", level="readonly", reason="PAY-311 x", at=at)
    return [
        timed("10,000 rules: the last one answers", EVALUATED_WITHIN, lambda: evaluate(config, last, facts)),
        timed("10,000 rules: none answers", EVALUATED_WITHIN, lambda: evaluate(config, nobody, facts)),
        timed(
            "10,000 rules: the catalog of one person",
            EVALUATED_WITHIN,
            lambda: catalog_entries(config, "U99999Z", facts),
        ),
    ]
