"""A receipt says what was left, who owns it and what to know, within bounds, wherever it is shown."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from adapters.base import Removal
from bot.access.descriptions import describe_notes, describe_receipt
from bot.cli import common
from bot.jobs.receipts import LEFT_NAMED_AT_MOST, NAME_MAX, NOTE_MAX, NOTES_AT_MOST, verified_receipt
from bot.slack.render import cards, feed
from bot.slack.render.text import SECTION_MAX
from storage.audit_kinds import AuditKind
from storage.records import AuditEvent, Receipt, ReceiptOutcome, State
from storage.serialization import receipt, receipt_json
from tests.unit.test_cards import request

AT = datetime(2026, 11, 23, 11, 31, 4, tzinfo=UTC)
LEFT = Removal(
    was_absent=False, sessions_ended=2, left_behind=("shop.notes (table)",), left_with="dbaccess_left_42_lea", read_back_at=AT,
    notes=("Give them back: REASSIGN OWNED BY dbaccess_left_42_lea TO team; DROP ROLE dbaccess_left_42_lea;",),
)  # fmt: skip
LINE = "Login blocked · 2 sessions ended · 1 table left, owned by dbaccess_left_42_lea (shop.notes (table)) · login removed"
HOSTILE = ("x" * 100_000, "<&>" * 50_000, "\x00\ud800" * 1000, "a\nb" * 1000)


def test_the_receipt_says_what_is_left_and_how_to_give_it_back() -> None:
    stored = verified_receipt(LEFT)
    assert describe_receipt(stored) == LINE
    assert describe_notes(stored).startswith("Give them back: REASSIGN OWNED BY")
    shown = cards.receipt_text(request("why", State.REVOKED, stored))
    assert shown.startswith(f"{LINE} · verified <!date^")
    assert "DROP ROLE dbaccess_left_42_lea." in shown
    assert common.receipt_text(stored).startswith(f"{LINE} · verified ")


@pytest.mark.parametrize(
    ("names", "number", "text"),
    [
        ((), 0, "Login blocked · 2 sessions ended · user removed"),
        (("a (table)", "b (table)"), 0, "2 tables left, owned by x (a (table), b (table)) · login"),
        (("a (table)", "b (view)"), 0, "2 objects left"),
        (("a (index)", "b (index)"), 0, "2 objects left"),
        (("a", "b"), 2, "2 objects left"),
        (("a (table)",), 1_000_000, "1000000 objects left, owned by x (a (table) and 999999 more)"),
        ((), 7, "7 objects left, owned by x · login"),
        (tuple(f"t{n} (table)" for n in range(300)), 300, "t4 (table) and 295 more)"),
    ],
)
def test_objects_are_counted(names: tuple[str, ...], number: int, text: str) -> None:
    left = replace(LEFT, left_behind=names, left_count=number, left_with="x" if names or number else None)
    assert text in describe_receipt(verified_receipt(left))


@pytest.mark.parametrize("name", HOSTILE)
def test_a_receipt_is_bounded(name: str) -> None:
    notes = (name,) * 500
    stored = verified_receipt(replace(LEFT, left_behind=(name,) * 500, left_with=name, notes=notes))
    assert len(stored.left_behind) == LEFT_NAMED_AT_MOST
    assert len(stored.notes) == NOTES_AT_MOST + 1
    assert stored.notes[-1] == "And 490 more notes."
    assert all(len(one) <= NAME_MAX for one in (*stored.left_behind, str(stored.left_with)))
    assert all(len(one) <= NOTE_MAX for one in stored.notes)
    for one in (
        stored,
        Receipt(outcome=ReceiptOutcome.VERIFIED, left_behind=(name,) * 500, notes=notes, read_back_at=AT),
    ):
        shown = cards.receipt_text(request("why", State.REVOKED, one))
        assert " · verified <!date^" in shown
        assert len(shown) < SECTION_MAX - 300
        assert len(common.receipt_text(one)) < 10_000


def test_a_receipt_is_stored_and_read_again() -> None:
    stored = verified_receipt(replace(LEFT, left_count=99))
    assert receipt(receipt_json(stored)) == stored
    old = {key: value for key, value in receipt_json(stored).items() if key != "kept_count"}
    assert receipt(old).left_count == 1


def test_the_audit_feed_counts_what_is_left() -> None:
    facts = {"was_absent": False, "sessions_ended": 2, "kept_by": "dbaccess_left_42_lea", "kept_count": 3}
    event = AuditEvent(id=1, at=AT, kind=AuditKind.REVOKED, actor="bot", request_id=1, facts=facts)
    line = feed.event_line(event, request("why", State.REVOKED))
    assert line.endswith("2 sessions ended, 3 objects left, owned by dbaccess_left_42_lea, verified")
    old = replace(event, facts={**facts, "kept_count": None})
    assert feed.event_line(old, request("why", State.REVOKED)).endswith("2 sessions ended, verified")


def test_the_audit_feed_shows_facts_in_words() -> None:
    facts = {"evidence": ["one", "two"], "since": "2026-11-28T11:02:59.232091+00:00", "sessions_ended": 0, "who": "T4"}
    event = AuditEvent(id=1, at=AT, kind=AuditKind.RECOVERY_ENTERED, actor="bot", request_id=None, facts=facts)
    line = feed.event_line(event, None)
    assert line.endswith("bot: evidence one; two, since 2026-11-28 11:02 UTC, sessions ended 0, who T4")
