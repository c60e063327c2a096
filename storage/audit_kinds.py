"""The kinds of audit events. Pure; ``audit_events`` writes and reads the events.

A kind is ``subject.what_happened``, with the verb that the button, the use case and the transition have too: button ``approve``,
``decide.approve``, ``Transition.APPROVE``, ``request.approved``. The values are stored.
"""

from __future__ import annotations

from enum import StrEnum


class AuditKind(StrEnum):
    """The kinds of audit events."""

    REQUESTED = "request.asked"
    DECIDED = "request.decided"
    APPROVED = "request.approved"
    APPLIED = "request.applied"
    DENIED = "request.denied"
    CANCELLED = "request.cancelled"
    LAPSED = "request.lapsed"
    OUTDATED = "request.outdated"
    REMINDED = "request.reminded"
    ESCALATED = "request.escalated"
    STARTED = "grant.started"
    ACTIVATED = "grant.activated"
    NOTED = "grant.noted"
    EXTENDED = "grant.extended"
    SIGNED_OFF = "grant.signed_off"
    REVIEW_OVERDUE = "grant.review_overdue"
    PASSWORD_RENEWED = "grant.password_renewed"  # noqa: S105 - the name of an event
    PASSWORD_SHOWN = "grant.password_shown"  # noqa: S105 - the name of an event
    FAILED = "grant.failed"
    REVOKING = "grant.revoking"
    REVOKED = "grant.revoked"
    REPAIRED = "grant.mended"
    CLICK_REFUSED = "click.refused"
    ALERT = "alert.raised"
    LOCKDOWN_SET = "lockdown.set"
    LOCKDOWN_LIFTED = "lockdown.lifted"
    ENTRIES_REMOVED = "ledger.entries_removed"
    RECOVERY_ENTERED = "recovery.entered"
    RECOVERY_ENDED = "recovery.ended"
    BOT_STARTED = "bot.started"
    TRIED = "database.tried"
    SWEPT = "database.swept"
    GROUP_CHANGED = "group.changed"
    POLICY_LOADED = "policy.loaded"
    POLICY_REFUSED = "policy.refused"
