"""The receipt that the ledger stores, made of an adapter's removal. Every list and text of it is bounded."""

from __future__ import annotations

from adapters.base import Removal
from bot.access.descriptions import shorten
from storage.records import Json, Receipt, ReceiptOutcome

LEFT_NAMED_AT_MOST, NOTES_AT_MOST = 20, 10
NAME_MAX, NOTE_MAX = 200, 300
"""The bounds of a receipt: how many left-behind objects it names, how many notes it has, and characters of each."""

NOTHING_CREATED = Receipt(outcome=ReceiptOutcome.NOTHING_CREATED)


def verified_receipt(removal: Removal) -> Receipt:
    """The receipt with bounded lists and texts: a user may have made very many things, with very long names."""
    names, notes = removal.left_behind[:LEFT_NAMED_AT_MOST], removal.notes[:NOTES_AT_MOST]
    further = len(removal.notes) - len(notes)
    return Receipt(
        outcome=ReceiptOutcome.VERIFIED,
        was_absent=removal.was_absent,
        sessions_ended=removal.sessions_ended,
        left_behind=tuple(shorten(name, NAME_MAX) for name in names),
        left_with=shorten(removal.left_with, NAME_MAX) if removal.left_with else None,
        left_count=max(removal.left_count, len(removal.left_behind)),
        read_back_at=removal.read_back_at,
        notes=(*(shorten(note, NOTE_MAX) for note in notes), *([f"And {further} more notes."] if further else [])),
    )


def audit_facts(receipt: Receipt) -> Json:
    """The part of the receipt that the audit event stores. The keys are stored, so they never change."""
    if receipt.outcome is ReceiptOutcome.NOTHING_CREATED:
        return {"nothing_made": True}
    return {
        "was_absent": receipt.was_absent,
        "sessions_ended": receipt.sessions_ended,
        "kept_by": receipt.left_with,
        "kept_count": receipt.left_count,
    }
