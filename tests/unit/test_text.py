"""Text of people and servers is escaped, readable and short enough."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.slack.render.blocks import quote
from bot.slack.render.text import (
    clean,
    escape,
    inline_code,
    local_datetime,
    local_time,
    one_line,
    person_mention,
    plain,
    truncate,
    unescape,
)


@pytest.mark.parametrize(
    ("wanted", "shown"),
    [
        ("<!channel> & <@U1>", "&lt;!channel&gt; &amp; &lt;@U1&gt;"),
        ("<https://evil.example|bank>", "&lt;https://evil.example|bank&gt;"),
        ("&lt;!here&gt;", "&amp;lt;!here&amp;gt;"),
        ("a\u202eb\u2066c\u200fd", "abcd"),
        ("bell\x07 null\x00 escape\x1b[31m", "bell null escape[31m"),
        ("line\nnext\ttab", "line\nnext\ttab"),
        ("Zürich, 東京 and 👩‍💻", "Zürich, 東京 and 👩‍💻"),
    ],
)
def test_escape_disables_markup_of_people(wanted: str, shown: str) -> None:
    assert escape(wanted) == shown


@given(st.text(max_size=300))
def test_escaped_text_has_no_brackets_and_can_be_unescaped(wanted: str) -> None:
    escaped = escape(wanted)
    assert "<" not in escaped
    assert ">" not in escaped
    assert unescape(escaped) == clean(wanted)


@pytest.mark.parametrize(
    ("arrived", "wanted"),
    [
        ("a &lt; b &amp;&amp; c &gt; d", "a < b && c > d"),
        ("&amp;lt;!channel&amp;gt;", "&lt;!channel&gt;"),
        ("&amp;copy; &copy; &quot;q&quot; &#39;", "&copy; &copy; &quot;q&quot; &#39;"),
    ],
)
def test_unescape_undoes_escaping_exactly_once(arrived: str, wanted: str) -> None:
    assert unescape(arrived) == wanted


@given(st.text(alphabet="&<>ab", max_size=80), st.integers(min_value=1, max_value=100))
def test_truncate_never_splits_an_entity(wanted: str, length: int) -> None:
    escaped = escape(wanted)
    short = truncate(escaped, length)
    assert len(short) <= length
    kept = short.removesuffix("…") if short != escaped else short
    assert escaped.startswith(kept)
    assert escape(unescape(kept)) == kept, "what is left is whole"


def test_plain_text_is_never_empty_and_has_no_emoji() -> None:
    assert plain(" \x00\u202e ", 10) == {"type": "plain_text", "text": "-", "emoji": False}
    assert quote("*bold* `code` :fire: <@U1>")["text"] == {
        "type": "plain_text",
        "text": "“*bold* `code` :fire: <@U1>”",
        "emoji": False,
    }


def test_backticks_cannot_end_inline_code() -> None:
    assert inline_code("a` *b* `c\nd") == "`a *b* c d`"
    assert inline_code("``") == "`-`"
    assert inline_code("<!here>") == "`&lt;!here&gt;`"


def test_one_line_joins_all_lines() -> None:
    assert one_line("a\nb\r\nc\u2028d\x0be\x85f", 100) == "a b c d e f"


@pytest.mark.parametrize("actor", ["cli:root", "clock", "U1> <!channel", "u0ada", "W"])
def test_only_a_slack_id_becomes_a_mention(actor: str) -> None:
    assert "<" not in person_mention(actor)
    assert person_mention("U0ADA", "ada") == "<@U0ADA>"
    assert person_mention("cli:root", "root & co") == "root &amp; co"


def test_times_use_slacks_date_format() -> None:
    at = datetime(2026, 11, 23, 11, 31, 4, tzinfo=UTC)
    assert local_datetime(at) == "<!date^1795433464^{date_short_pretty} {time}|2026-11-23 11:31 UTC>"
    assert local_time(at) == "<!date^1795433464^{time_secs}|11:31:04 UTC>"
