"""Text from people and servers becomes harmless, readable and short enough."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.slack.render.blocks import quote
from bot.slack.render.text import clean, code, cut, escape, moment, one_line, person, plain, second, unescape


@pytest.mark.parametrize(
    ("typed", "shown"),
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
def test_escaped_text_has_no_active_markup(typed: str, shown: str) -> None:
    assert escape(typed) == shown


@given(st.text(max_size=300))
def test_escaped_text_has_no_brackets_and_can_be_unescaped(typed: str) -> None:
    escaped = escape(typed)
    assert "<" not in escaped
    assert ">" not in escaped
    assert unescape(escaped) == clean(typed)


@pytest.mark.parametrize(
    ("arrived", "typed"),
    [
        ("a &lt; b &amp;&amp; c &gt; d", "a < b && c > d"),
        ("&amp;lt;!channel&amp;gt;", "&lt;!channel&gt;"),
        ("&amp;copy; &copy; &quot;q&quot; &#39;", "&copy; &copy; &quot;q&quot; &#39;"),
    ],
)
def test_escaping_is_undone_exactly_once(arrived: str, typed: str) -> None:
    assert unescape(arrived) == typed


@given(st.text(alphabet="&<>ab", max_size=80), st.integers(min_value=1, max_value=100))
def test_cut_never_splits_an_entity(typed: str, length: int) -> None:
    escaped = escape(typed)
    short = cut(escaped, length)
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


def test_code_cannot_be_closed_by_its_content() -> None:
    assert code("a` *b* `c\nd") == "`a *b* c d`"
    assert code("``") == "`-`"
    assert code("<!here>") == "`&lt;!here&gt;`"


def test_one_line_removes_every_line_break() -> None:
    assert one_line("a\nb\r\nc\u2028d\x0be\x85f", 100) == "a b c d e f"


@pytest.mark.parametrize("actor", ["cli:root", "clock", "U1> <!channel", "u0ada", "W"])
def test_only_slack_ids_become_mentions(actor: str) -> None:
    assert "<" not in person(actor)
    assert person("U0ADA", "ada") == "<@U0ADA>"
    assert person("cli:root", "root & co") == "root &amp; co"


def test_times_use_the_readers_zone() -> None:
    at = datetime(2026, 11, 23, 11, 31, 4, tzinfo=UTC)
    assert moment(at) == "<!date^1795433464^{date_short_pretty} {time}|2026-11-23 11:31 UTC>"
    assert second(at) == "<!date^1795433464^{time_secs}|11:31:04 UTC>"
