"""Parsing of the text after ``/dbaccess``."""

from __future__ import annotations

from datetime import timedelta

import pytest

from bot.access.errors import NotUnderstood
from bot.slack import parse

HOUR = timedelta(hours=1)
LEVELS = {"orders-prod": ("readonly", "readwrite"), "users": ("support",)}


def parsed(text: str) -> tuple[str | None, str | None, timedelta | None, str | None]:
    wanted = parse.parse_request(parse.split_command(text).arguments, lambda database: LEVELS.get(database, ()))
    return wanted.database, wanted.level, wanted.duration, wanted.reason


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("request", (None, None, None, None)),
        ("request orders-prod", ("orders-prod", None, None, None)),
        ("request orders-prod readonly", ("orders-prod", "readonly", None, None)),
        ("request orders-prod 2h", ("orders-prod", None, 2 * HOUR, None)),
        ("REQUEST orders-prod readonly 1h30m refund 8812", ("orders-prod", "readonly", 1.5 * HOUR, "refund 8812")),
        ("request orders-prod 30m refund", ("orders-prod", None, HOUR / 2, "refund")),
        ("request orders-prod refund of 8812", ("orders-prod", None, None, "refund of 8812")),
        ("request orders-prod readonly refund", ("orders-prod", "readonly", None, "refund")),
        ("request orders-prod support 1h refund", ("orders-prod", "support", HOUR, "refund")),
        ("request orders-prod support is slow", ("orders-prod", None, None, "support is slow")),
        ("request gone readonly 1h x", ("gone", "readonly", HOUR, "x")),
        ("request orders-prod readonly 1h hours were lost", ("orders-prod", "readonly", HOUR, "hours were lost")),
        ("request orders-prod readonly 1h 500 errors", ("orders-prod", "readonly", HOUR, "500 errors")),
        ("request orders-prod 1h a &lt; b &amp;&amp; c", ("orders-prod", None, HOUR, "a < b && c")),
        ("request orders-prod 1h for <@U123|ada>", ("orders-prod", None, HOUR, "for <@U123|ada>")),
        ("  request \t orders-prod   1h  two   words ", ("orders-prod", None, HOUR, "two words")),
        ("request orders-prod 1h re\x00fund \x01 of \ud800 8812", ("orders-prod", None, HOUR, "refund of 8812")),
    ],
)
def test_request_is_parsed(text: str, found: object) -> None:
    assert parsed(text) == found


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("request orders-prod readonly tow hours please", "tow hours"),
        ("request orders-prod readonly 2 hours", "2 hours"),
        ("request orders-prod 2hours", "2hours"),
        ("request orders-prod readonly 1h1h", "1h1h"),
        ("request orders-prod 500 errors", "500"),
    ],
)
def test_wrong_duration_is_refused(text: str, wrong: str) -> None:
    with pytest.raises(NotUnderstood) as error:
        parsed(text)
    assert str(error.value) == f"I did not understand “{wrong}”. A duration looks like 30m, 2h or 1h30m."


def test_too_short_duration_names_the_minimum() -> None:
    with pytest.raises(NotUnderstood, match="from 10s"):
        parsed("request orders-prod 5s")


def test_empty_command_is_help() -> None:
    assert parse.split_command("   ").verb == "help"
    assert parse.split_command("List").verb == "list"


@pytest.mark.parametrize(("rest", "number"), [("42", 42), ("#42", 42), ("007", 7)])
def test_request_id_is_parsed(rest: str, number: int) -> None:
    assert parse.parse_request_id(rest.split(), "cancel") == number


@pytest.mark.parametrize("rest", ["", "x", "42 43", "-1", "4.2", "٤٢", "9" * 19, "##42", "42.key"])
def test_wrong_request_id_is_refused(rest: str) -> None:
    with pytest.raises(NotUnderstood, match="It looks like /dbaccess cancel 42"):
        parse.parse_request_id(rest.split(), "cancel")


def test_only_a_mention_is_a_person() -> None:
    assert parse.mentioned_person("<@U123|ada>") == "U123"
    assert parse.mentioned_person("<@W123>") == "W123"
    for word in ("@ada", "U123", "<#C123|x>", "<@U123", "<@u123>", "<!subteam^S1>"):
        assert parse.mentioned_person(word) is None


@pytest.mark.parametrize(
    ("rest", "level", "duration", "other"),
    [
        ("orders-prod", None, None, None),
        ("orders-prod readwrite", "readwrite", None, None),
        ("orders-prod readwrite 2h <@U1>", "readwrite", 2 * HOUR, "U1"),
        ("<@U1> orders-prod 2h", None, 2 * HOUR, "U1"),
        ("orders-prod made-up <@U1|ada>", "made-up", None, "U1"),
    ],
)
def test_explain_is_parsed(rest: str, level: str | None, duration: timedelta | None, other: str | None) -> None:
    wanted, about = parse.parse_explain(rest.split())
    assert (wanted.database, wanted.level, wanted.duration, about) == ("orders-prod", level, duration, other)


@pytest.mark.parametrize("rest", ["orders-prod readonly 1h because", "orders-prod readonly what", "x <@U1> <@U2>"])
def test_explain_with_too_many_words_is_refused(rest: str) -> None:
    with pytest.raises(NotUnderstood, match="It looks like /dbaccess explain"):
        parse.parse_explain(rest.split())
