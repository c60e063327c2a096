"""Parsing and formatting durations."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.durations import LONGEST, SHORTEST, exact_duration, format_duration, parse_duration, short_duration

LENGTHS = st.integers(int(SHORTEST.total_seconds()), int(LONGEST.total_seconds())).map(lambda s: timedelta(seconds=s))


@pytest.mark.parametrize(
    ("wanted", "seconds"),
    [
        ("45s", 45),
        ("30m", 1800),
        ("2h", 7200),
        ("1d", 86400),
        ("1h30m", 5400),
        ("10s", 10),
        (" 2H ", 7200),
        ("90m", 5400),
    ],
)
def test_typed_durations_are_parsed(wanted: str, seconds: int) -> None:
    assert parse_duration(wanted) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "wanted",
    [
        "",
        " ",
        "2",
        "h",
        "tow hours",
        "2 h",
        "1h 30m",
        "30m1h",
        "1h1h",
        "-1h",
        "1.5h",
        "1w",
        "9s",
        "0h",
        "367d",
        "99999d",
        "٢h",
        "1h\n30m",
        "9" * 5000 + "s",
    ],
)
def test_invalid_durations_are_refused_with_a_hint(wanted: str) -> None:
    with pytest.raises(ValueError, match="A duration looks like 30m, 2h or 1h30m"):
        parse_duration(wanted)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (7200, "2 h"),
        (5400, "1 h 30 min"),
        (45, "45 s"),
        (90, "1 min 30 s"),
        (86400, "1 d"),
        (90061, "1 d 1 h"),
        (0, "0 s"),
    ],
)
def test_durations_are_formatted_with_two_units(seconds: int, shown: str) -> None:
    assert format_duration(timedelta(seconds=seconds)) == shown


def test_exact_duration_has_all_units() -> None:
    assert exact_duration(timedelta(seconds=90061)) == "1 d 1 h 1 min 1 s"


@given(LENGTHS)
@settings(deadline=None)
def test_short_duration_can_be_parsed_again(length: timedelta) -> None:
    assert parse_duration(short_duration(length)) == length


@given(st.text())
@settings(deadline=None)
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        length = parse_duration(text)
    except ValueError:
        return
    assert SHORTEST <= length <= LONGEST
