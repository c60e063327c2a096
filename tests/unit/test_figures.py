"""The figures of the benchmarks: statistics, what is reached, the longest chain of calls, the plots."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest

from benchmarks.bare import BareTimes
from benchmarks.figures import Figure, Goal, by_group, percentile, shown
from benchmarks.ledger_work import longest_chain
from benchmarks.plots import Bar, Curve, bars, curves
from benchmarks.report import table
from benchmarks.slack import Call


def figure(*values: float, goal: Goal | None = None, bare: float | None = None) -> Figure:
    return Figure(group="Ends", name="an end", unit="s", values=values, goal=goal, bare=bare)


def call(received_at: float, answered_at: float) -> Call:
    return Call(method="chat.update", arguments={}, received_at=received_at, answered_at=answered_at)


def test_percentile_is_a_measured_value() -> None:
    values = [float(n) for n in range(1, 101)]
    assert (percentile(values, 50), percentile(values, 95), percentile(values, 99)) == (50, 95, 99)
    assert percentile([1.0, 2.0, 3.0], 95) == 3
    assert percentile([7.0], 99) == percentile([7.0], 0) == 7.0


@pytest.mark.parametrize(
    ("goal", "is_reached"),
    [
        (None, None),
        (Goal(statistic="median", at_most=2), True),
        (Goal(statistic="median", at_most=1.9), False),
        (Goal(statistic="most", at_most=8.9), False),
        (Goal(statistic="p99", at_most=9), True),
        (Goal(statistic="ratio", at_most=4), True),
        (Goal(statistic="ratio", at_most=3.9), False),
    ],
    ids=str,
)
def test_goal_looks_at_its_statistic(goal: Goal | None, is_reached: bool | None) -> None:
    assert figure(1, 2, 9, goal=goal, bare=0.5).is_reached is is_reached


def test_ratio_without_a_bare_limit_is_not_reached() -> None:
    assert figure(1, goal=Goal(statistic="ratio", at_most=3)).is_reached is False


def test_bare_grants_that_begin_together_follow_one_another() -> None:
    bare = BareTimes(usable=[1.0, 2.0], dead=[1.0], ended=[3.0])
    assert bare.usable_at_once(4) == [1.0, 3.0, 4.0, 6.0]
    assert bare.ended_at_once(2)[-1] == 6.0


def test_longest_chain_counts_calls_that_follow_one_another() -> None:
    assert longest_chain([]) == 0
    assert longest_chain([call(0, 1), call(0, 1), call(0.5, 2)]) == 1
    assert longest_chain([call(0, 1), call(1, 2), call(1.5, 3), call(2, 4)]) == 3


def test_table_shows_each_figure_with_its_goal() -> None:
    row = table([figure(0.2, 0.3, goal=Goal(statistic="median", at_most=0.1), bare=0.05)]).splitlines()[-1]
    assert "| 250 ms |" in row
    assert "| 5 | median ≤ 100 ms | **no** |" in row


def test_groups_come_in_the_order_of_their_first_figure() -> None:
    figures = [Figure(group=group, name=str(n), unit="s", values=[1.0]) for n, group in enumerate("bab")]
    assert [(group, len(found)) for group, found in by_group(figures).items()] == [("b", 2), ("a", 1)]


def test_values_are_shown_with_their_unit() -> None:
    assert [shown(0.0123, "s"), shown(12.34, "s"), shown(1234.0, ""), shown(None, "s")] == [
        "12.3 ms",
        "12.3 s",
        "1,234",
        "",
    ]


def test_plots_are_well_formed() -> None:
    drawn = bars("a < b", [Bar(label="one & two", value=0.4, shown="0.4 ×", goal=1.2, is_reached=True)], is_linear=True)
    assert ET.fromstring(drawn).tag.endswith("svg")
    assert ET.fromstring(curves("ends", [Curve(label="dead", quantiles=[0.1, 0.2, 3.0], goal=5.0)], "s")).tag.endswith(
        "svg"
    )
