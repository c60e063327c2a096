"""Parts of what Slack sent, whatever it holds."""

from __future__ import annotations

from typing import Any

import pytest

from bot.slack.payload import objects_part, text_part, typed_part


@pytest.mark.parametrize("odd", ["\ud800", "\x00", "U0\ud800ADA", "\ude00\ud83d"])
def test_text_that_no_ledger_can_store_is_replaced(odd: str) -> None:
    """JSON can hold half a surrogate pair. UTF-8 cannot encode it, and PostgreSQL stores no NUL."""
    found = text_part({"user": {"id": odd}}, "user", "id")
    assert found is not None
    assert found.encode()
    assert "\x00" not in found
    assert found != odd


@pytest.mark.parametrize("text", ["", "U0ADA", "Zoë 😀", "a\nb"])
def test_other_text_stays_as_it_is(text: str) -> None:
    assert text_part({"text": text}, "text") == text


@pytest.mark.parametrize("odd", [None, 5, True, [], {}, [{"id": 5}]])
def test_part_of_another_type_is_none(odd: Any) -> None:
    assert text_part({"user": odd}, "user") is None
    assert text_part({"user": odd}, "user", 0, "id") is None
    assert objects_part({"users": odd}, "users") == (odd if odd == [{"id": 5}] else [])


def test_typed_text_loses_what_no_ledger_can_store() -> None:
    assert typed_part({"text": "re\x00fund\ud800"}, "text") == "refund"
    assert typed_part({"text": 5}, "text") is None
