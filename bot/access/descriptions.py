"""Sentences about requests that several places show. They are plain text: the place that shows them escapes them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from storage.errors import NotPossible
from storage.records import Cause, Decision, Lockdown, Receipt, ReceiptOutcome, Request, State, Verdict
from storage.transitions import Obstacle

LEFT_BEHIND_SHOWN = 5
LEFT_NAME_MAX = 80
NOTES_SHOWN, NOTE_MAX = 11, 300
PLURAL_BY_S = frozenset(
    {
        "table",
        "view",
        "materialized view",
        "sequence",
        "function",
        "procedure",
        "trigger",
        "event",
        "type",
        "schema",
        "collection",
    }
)
"""Kinds of objects whose plural has an s."""

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


def time_mark(at: datetime) -> str:
    """A time inside a text that is stored. Slack shows it in the time zone of each reader (``bot.slack.render.text``)."""
    return f"‹{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}›"


def count(number: int, noun: str) -> str:
    """``1 session``, ``2 sessions``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def describe_receipt(receipt: Receipt) -> str:
    """The proof in the receipt as one line without its full stop. The caller adds the time of reading back, then the notes."""
    if receipt.outcome is ReceiptOutcome.DECLARED_GONE:
        return f"Declared gone by an administrator: {receipt.reason}. Nothing was read back from the server"
    if receipt.outcome is ReceiptOutcome.NOTHING_CREATED:
        return "Nothing had been made on the server"
    removed = "login removed" if receipt.left_with else "user removed"
    parts = ["Login blocked", f"{count(receipt.sessions_ended, 'session')} ended", *_left_behind(receipt)]
    return " · ".join([*parts, "the user was already gone" if receipt.was_absent else removed])


def describe_proof(receipt: Receipt) -> str:
    """The receipt in a few words: ``1 session ended, verified``."""
    if receipt.outcome is ReceiptOutcome.DECLARED_GONE:
        return f"declared gone by an administrator: {receipt.reason}. Nothing was read back"
    if receipt.outcome is ReceiptOutcome.NOTHING_CREATED:
        return "nothing had been made on the server"
    return f"{count(receipt.sessions_ended, 'session')} ended, verified"


def describe_notes(receipt: Receipt) -> str:
    """The notes of the receipt as sentences. Empty without notes."""
    notes = [f"{shorten(note.rstrip('.;'), NOTE_MAX)}." for note in receipt.notes[:NOTES_SHOWN]]
    further = len(receipt.notes) - NOTES_SHOWN
    return " ".join([*notes, *([f"And {further} more notes."] if further > 0 else [])])


def count_left(number: int, owner: str | None, names: Sequence[str] = ()) -> str:
    """``1 table left, owned by dbaccess_left_42_lea``. They are called objects where the names do not show that all are of one kind."""
    kinds = {name.rpartition(" (")[2].removesuffix(")") for name in names if name.endswith(")")}
    is_one_kind = len(kinds) == 1 and len(names) == number and kinds <= PLURAL_BY_S
    return f"{count(number, kinds.pop() if is_one_kind else 'object')} left{f', owned by {owner}' if owner else ''}"


def _left_behind(receipt: Receipt) -> list[str]:
    number = max(receipt.left_count, len(receipt.left_behind))
    if not number:
        return []
    shown = [shorten(name, LEFT_NAME_MAX) for name in receipt.left_behind[:LEFT_BEHIND_SHOWN]]
    further = f" and {number - len(shown)} more" if number > len(shown) else ""
    named = f" ({', '.join(shown)}{further})" if shown else ""
    return [f"{count_left(number, receipt.left_with, receipt.left_behind)}{named}"]


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


def describe_scope(lockdown: Lockdown) -> str:
    """What the lockdown is of: all databases, one database, or one person. For people outside Slack and in plain text."""
    if lockdown.person_id is not None:
        return f"@{lockdown.person_name or lockdown.person_id}"
    return lockdown.database or "all databases"


def describe_lockdown(lockdown: Lockdown) -> str:
    """Says what is locked down, by whom, since when, and how it is lifted."""
    whose = "Access of" if lockdown.person_id is not None else "Access to"
    by = lockdown.locked_by_name or lockdown.locked_by
    return (
        f"{whose} {describe_scope(lockdown)} is locked down, by {by} since {lockdown.at:%H:%M} UTC."
        f" Nothing is granted until another admin lifts it: {unlock_command(lockdown)}"
    )


def unlock_command(lockdown: Lockdown) -> str:
    """The command that lifts it."""
    return "/dbaccess unlock" if lockdown.is_of_everything else f"/dbaccess unlock {describe_scope(lockdown)}"


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
        Obstacle.IN_RECOVERY: "The ledger is in recovery mode: nothing is granted until an operator runs dbaccess store resume.",
        Obstacle.LOCKED_DOWN: "A lockdown is in force: nothing is granted until another admin lifts it.",
    }
    return sentences.get(error.obstacle) or describe_state(error.request, error.decisions)
