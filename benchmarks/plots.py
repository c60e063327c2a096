"""Two kinds of plot as SVG: bars on a logarithmic scale, and curves of what has happened by a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT, ROW = 980, 450, 90, 30
CURVE_HEIGHT = 300
TOP, BOTTOM = 64, 40
MARKS_AT_LEAST = 4
FONT = 'font-family="Helvetica, Arial, sans-serif"'
INK, SOFT, GRID = "#1f2933", "#616e7c", "#e4e7eb"
REACHED, MISSED, NEUTRAL = "#3ebd93", "#e12d39", "#62b0e8"
CURVE_COLOURS = ("#2680c2", "#e12d39", "#e0913f", "#3ebd93")


@dataclass(frozen=True, kw_only=True)
class Bar:
    """``goal`` is drawn as a line across the bar. ``is_reached`` is None without one."""

    label: str
    value: float
    shown: str
    goal: float | None = None
    is_reached: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Curve:
    """``quantiles`` are the times at which 0, …, 100 percent have happened, evenly spaced. All of it should happen before ``goal``."""

    label: str
    quantiles: Sequence[float]
    goal: float | None = None


def bars(title: str, found: Sequence[Bar], *, is_linear: bool = False) -> str:
    """Horizontal bars, on a logarithmic scale from 1, or from less where a value is less; or on a linear scale from 0."""
    values = [v for bar in found for v in (bar.value, bar.goal or 0.0)]
    most, height = max(values) * 1.1, TOP + ROW * len(found) + BOTTOM
    low = min(0.0, *(math.log10(v) for v in values if v > 0))

    def x(value: float) -> float:
        share = value / most if is_linear else (math.log10(max(value, 10**low)) - low) / (math.log10(most) - low)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    marks = [n * _step(most) for n in range(int(most / _step(most)) + 1)]
    if not is_linear:
        marks = [10.0**power for power in range(math.ceil(low), math.floor(math.log10(most)) + 1)]
    parts = [_grid(x(mark), TOP - 8, height - BOTTOM, f"{mark:g}") for mark in marks]
    for n, bar in enumerate(found):
        y = TOP + n * ROW
        colour = NEUTRAL if bar.is_reached is None else REACHED if bar.is_reached else MISSED
        parts += [
            _text(LEFT - 10, y + 15, bar.label, anchor="end"),
            f'<rect x="{LEFT}" y="{y + 3}" width="{max(2.0, x(bar.value) - LEFT):.1f}" height="17" rx="3" fill="{colour}"/>',
            _text(x(_farthest(bar)) + 6, y + 16, bar.shown, colour=SOFT),
        ]
        if bar.goal is not None:
            at = f"{x(bar.goal):.1f}"
            parts.append(f'<line x1="{at}" y1="{y}" x2="{at}" y2="{y + 23}" stroke="{INK}" stroke-width="2"/>')
    return _picture(title, height, parts)


def curves(title: str, found: Sequence[Curve], unit: str) -> str:
    """How many percent have happened by a time."""
    longest = max(max(curve.quantiles[-1], curve.goal or 0.0) for curve in found) * 1.05
    height, left = CURVE_HEIGHT + TOP + BOTTOM, 70

    def x(value: float) -> float:
        return left + max(0.0, value) / longest * (WIDTH - left - 20)

    def y(share: float) -> float:
        return TOP + CURVE_HEIGHT * (1 - share)

    step = _step(longest)
    parts = [
        _grid(x(n * step), TOP, TOP + CURVE_HEIGHT, f"{n * step:g} {unit}") for n in range(int(longest / step) + 1)
    ]
    parts += [_text(left - 8, y(share) + 4, f"{share:.0%}", anchor="end", colour=SOFT) for share in (0, 0.5, 1)]
    for n, curve in enumerate(found):
        colour = CURVE_COLOURS[n % len(CURVE_COLOURS)]
        last = len(curve.quantiles) - 1
        points = " ".join(f"{x(value):.1f},{y(i / last):.1f}" for i, value in enumerate(curve.quantiles))
        at = TOP + 24 + n * 22
        parts += [
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2.5"/>',
            *([_goal(x(curve.goal), colour)] if curve.goal is not None else []),
            f'<rect x="{WIDTH - 330}" y="{TOP + CURVE_HEIGHT - at - 8 + TOP}" width="14" height="14" fill="{colour}"/>',
            _text(WIDTH - 308, TOP + CURVE_HEIGHT - at + 4 + TOP, curve.label),
        ]
    return _picture(title, height, parts)


def _goal(x: float, colour: str) -> str:
    ends = f'y1="{TOP}" y2="{TOP + CURVE_HEIGHT}"'
    return f'<line x1="{x:.1f}" x2="{x:.1f}" {ends} stroke="{colour}" stroke-width="1.5" stroke-dasharray="6 4"/>'


def _farthest(bar: Bar) -> float:
    """The right end of the bar, or of its goal where that is close enough to run into the number."""
    return max(bar.value, bar.goal or 0.0) if bar.goal and bar.goal < bar.value * 1.5 else bar.value


def _step(most: float) -> float:
    """The distance of the marks of a linear scale: four to ten of them."""
    step: float = 10 ** math.floor(math.log10(most))
    return next(part for part in (step, step / 2, step / 5) if most / part >= MARKS_AT_LEAST)


def _grid(x: float, top: float, bottom: float, label: str) -> str:
    line = f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}" stroke="{GRID}"/>'
    return line + _text(x, bottom + 18, label, anchor="middle", colour=SOFT)


def _text(x: float, y: float, text: str, *, anchor: str = "start", colour: str = INK, size: int = 13) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {FONT} font-size="{size}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'


def _picture(title: str, height: float, parts: Sequence[str]) -> str:
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    frame = f'<rect x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1}" rx="8" fill="#ffffff" stroke="#cbd2d9"/>'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="t">\n<title id="t">{escape(title)}</title>'
    return "\n".join([head, frame, _text(20, 32, title, size=16), *parts, "</svg>", ""])
