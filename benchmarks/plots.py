"""Two kinds of plot as SVG: bars on a logarithmic scale, and curves of what has happened by a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, LEFT, RIGHT, ROW = 980, 430, 90, 30
CURVE_HEIGHT = 300
TOP, BOTTOM = 64, 40
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
    """``quantiles`` are the times at which 0, …, 100 percent have happened, evenly spaced."""

    label: str
    quantiles: Sequence[float]


def bars(title: str, found: Sequence[Bar], *, least: float = 1.0) -> str:
    """Horizontal bars. The scale begins at ``least``, on the left."""
    values = [v for bar in found for v in (bar.value, bar.goal or 0.0)]
    low, high = math.log10(min(least, *(v for v in values if v > 0))), math.log10(max(values) * 1.1)
    height = TOP + ROW * len(found) + BOTTOM

    def x(value: float) -> float:
        share = (math.log10(max(value, 10**low)) - low) / (high - low)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    parts = [_grid(x(10.0**power), TOP - 8, height - BOTTOM, f"{10.0**power:g}") for power in _powers(low, high)]
    for n, bar in enumerate(found):
        y = TOP + n * ROW
        colour = NEUTRAL if bar.is_reached is None else REACHED if bar.is_reached else MISSED
        parts += [
            _text(LEFT - 10, y + 15, bar.label, anchor="end"),
            f'<rect x="{LEFT}" y="{y + 3}" width="{max(2.0, x(bar.value) - LEFT):.1f}" height="17" rx="3" fill="{colour}"/>',
            _text(x(bar.value) + 6, y + 16, bar.shown, colour=SOFT),
        ]
        if bar.goal is not None:
            at = f"{x(bar.goal):.1f}"
            parts.append(f'<line x1="{at}" y1="{y}" x2="{at}" y2="{y + 23}" stroke="{INK}" stroke-width="2"/>')
    return _picture(title, height, parts)


def curves(title: str, found: Sequence[Curve], unit: str) -> str:
    """How many percent have happened by a time."""
    longest = max(curve.quantiles[-1] for curve in found) * 1.05
    height, left = CURVE_HEIGHT + TOP + BOTTOM, 70

    def x(value: float) -> float:
        return left + max(0.0, value) / longest * (WIDTH - left - 20)

    def y(share: float) -> float:
        return TOP + CURVE_HEIGHT * (1 - share)

    step = 10 ** math.floor(math.log10(longest))
    step = step / 2 if longest / step < 4 else step  # noqa: PLR2004 - at least four lines
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
            f'<rect x="{WIDTH - 330}" y="{TOP + CURVE_HEIGHT - at - 8 + TOP}" width="14" height="14" fill="{colour}"/>',
            _text(WIDTH - 308, TOP + CURVE_HEIGHT - at + 4 + TOP, curve.label),
        ]
    return _picture(title, height, parts)


def _powers(low: float, high: float) -> range:
    return range(math.ceil(low), math.floor(high) + 1)


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
