"""Sentences about requests that several places show. They are plain text: the place that shows them escapes them."""

from __future__ import annotations

from collections.abc import Sequence

from storage.errors import NotPossible
from storage.records import Cause, Decision, Receipt, ReceiptOutcome, Request, State, Verdict
from storage.transitions import Obstacle

LEFT_BEHIND_SHOWN = 5

END_REASONS: dict[Cause, str] = {
    Cause.EXPIRED: "its time was up",
    Cause.NOT_STARTED: "it could not be started in time",
    Cause.DONE: "given back",
    Cause.REVOKED: "revoked",
    Cause.FAILED: "it failed",
    Cause.UNCLAIMED: "nobody used it in time",
    Cause.LEFT: "the requester is no longer a member of the workspace",
    Cause.LOCKDOWN: "a lockdown is in force",
    Cause.GONE: "its server is gone",
}


def shorten(text: str, length: int) -> str:
    """``text`` with at most ``length`` characters; ``…`` stands for the rest. Every ledger and JSON text can hold the result.

    Names on a server come from its users. So a text with them has a bound before it is stored or sent.
    """
    storable = text.replace("\x00", "�").encode(errors="replace").decode()
    return storable if len(storable) <= length else f"{storable[: length - 1]}…"


def count(number: int, noun: str) -> str:
    """``1 session``, ``2 sessions``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def describe_receipt(receipt: Receipt) -> str:
    """Describes the proof in the receipt, as one paragraph. The caller adds the time of reading back."""
    if receipt.outcome is ReceiptOutcome.DECLARED_GONE:
        return f"Declared gone by an administrator: {receipt.reason}. Nothing was read back from the server."
    if receipt.outcome is ReceiptOutcome.NOTHING_CREATED:
        return "Nothing had been made on the server."
    parts = ["Login blocked", f"{count(receipt.sessions_ended, 'session')} ended", *_left_behind(receipt)]
    parts.append("user removed" if not receipt.was_absent else "the user was already gone")
    return ". ".join([", ".join(parts), *(note.rstrip(".") for note in receipt.notes)]) + "."


def _left_behind(receipt: Receipt) -> list[str]:
    objects = receipt.left_behind
    if not objects:
        return []
    names = ", ".join(objects[:LEFT_BEHIND_SHOWN]) + (" …" if len(objects) > LEFT_BEHIND_SHOWN else "")
    return [f"{count(len(objects), 'object')} kept by {receipt.left_with} ({names})"]


def describe_state(request: Request, decisions: Sequence[Decision]) -> str:
    """The state of a request as a sentence, with who decided or why it ended. For a caller who lost a race."""
    shown = f"#{request.id}"
    decider = next((d for d in reversed(decisions) if d.verdict in (Verdict.APPROVE, Verdict.DENY)), None)
    by = f" by @{decider.person_name}" if decider else ""
    return {
        State.PENDING: f"{shown} is still waiting.",
        State.APPROVED: f"{shown} was approved{by} a moment ago.",
        State.ACTIVE: f"{shown} was approved{by} and is live.",
        State.REVOKING: f"{shown} is being ended.",
        State.REVOKED: f"{shown} has ended: {END_REASONS.get(request.ended_because or Cause.DONE, 'ended')}.",
        State.DENIED: f"{shown} was denied{by}.{'' if decider else ' ' + (request.ended_note or '')}",
        State.CANCELLED: f"{shown} was withdrawn by @{request.requester_name}.",
        State.LAPSED: f"{shown} has lapsed: {request.ended_note or 'nobody decided in time.'}",
        State.OUTDATED: f"{shown} is out of date: {request.ended_note or 'the policy changed meanwhile.'}",
        State.APPLIED: f"{shown} was applied{by}.",
    }[request.state]


def describe_end(request: Request) -> str:
    """Says that the end of a grant has come, where its revocation is late."""
    return f"#{request.id} has reached its end."


def describe_obstacle(error: NotPossible) -> str:
    """Explains an obstacle in a sentence, for the person who wanted the transition."""
    shown = f"#{error.request.id}"
    sentences = {
        Obstacle.TIMED_OUT: f"{shown} has lapsed: nobody decided in time.",
        Obstacle.ALREADY_DECIDED: f"You have decided {shown} before. A person decides once.",
        Obstacle.GRANT_ENDED: f"{shown} is too late: the access it would have extended has ended.",
        Obstacle.TOO_LONG: f"{shown} would make the access last longer than it may in all.",
        Obstacle.ENDED: describe_end(error.request),
        Obstacle.REVIEWED: f"{shown} was signed off before.",
        Obstacle.LOCKED_DOWN: "A lockdown is in force: nothing is granted until an administrator ends it.",
    }
    return sentences.get(error.obstacle) or describe_state(error.request, error.decisions)
