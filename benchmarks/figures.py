"""One measured figure: its distribution, its limit measured in the same run, and the value it should reach."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Literal

THOUSAND = 1_000
Statistic = Literal["median", "p99", "most", "ratio"]


@dataclass(frozen=True, kw_only=True)
class Goal:
    """The figure is reached where ``statistic`` is at most ``at_most``, in the unit of the figure."""

    statistic: Statistic
    at_most: float

    def text(self, unit: str) -> str:
        if self.statistic == "ratio":
            return f"≤ {self.at_most:g} × bare"
        return f"{self.statistic.replace('most', 'all')} ≤ {shown(self.at_most, unit)}"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """``values`` are in ``unit``. ``bare`` is the median of the same work without dbaccess, measured in the same run."""

    group: str
    name: str
    unit: str
    values: Sequence[float]
    bare: float | None = None
    goal: Goal | None = None
    note: str = ""
    more: dict[str, Any] = field(default_factory=dict)
    """Further measured facts, for ``results.json`` only."""

    @property
    def median(self) -> float:
        return median(self.values)

    @property
    def ratio(self) -> float | None:
        return self.median / self.bare if self.bare else None

    def statistic(self, name: Statistic) -> float | None:
        match name:
            case "median":
                return self.median
            case "p99":
                return percentile(self.values, 99)
            case "most":
                return max(self.values)
            case "ratio":
                return self.ratio

    @property
    def is_reached(self) -> bool | None:
        """None without a goal."""
        if self.goal is None:
            return None
        found = self.statistic(self.goal.statistic)
        return found is not None and found <= self.goal.at_most

    def to_json(self) -> dict[str, Any]:
        plain = {
            "n": len(self.values),
            "median": self.median,
            "p95": percentile(self.values, 95),
            "p99": percentile(self.values, 99),
            "least": min(self.values),
            "most": max(self.values),
            "bare": self.bare,
            "ratio": self.ratio,
        }
        rounded = {key: _rounded(value) for key, value in plain.items()}
        goal = {**asdict(self.goal), "text": self.goal.text(self.unit)} if self.goal else None
        names = {"group": self.group, "name": self.name, "unit": self.unit}
        return {**names, **rounded, "goal": goal, "is_reached": self.is_reached, "note": self.note, "more": self.more}


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")


def by_group(figures: Sequence[Figure]) -> dict[str, list[Figure]]:
    """The figures of each group, in the order in which the groups were measured first."""
    found: dict[str, list[Figure]] = {}
    for figure in figures:
        found.setdefault(figure.group, []).append(figure)
    return found


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile: a value that was measured."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def shown(value: float | None, unit: str) -> str:
    """The value for people, with three significant digits."""
    if value is None:
        return ""
    if unit == "s" and abs(value) < 1:
        return f"{value * 1000:.3g} ms"
    digits = f"{value:.3g}" if abs(value) < THOUSAND else f"{value:,.0f}"
    return f"{digits} {unit}".strip()
