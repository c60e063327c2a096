"""Render the audit feed, one line for each audit event. Pure."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime

from bot.access.descriptions import END_REASONS, count_left
from bot.durations import format_duration
from bot.notifications.notices import FeedNotice
from bot.slack.render.blocks import RenderedMessage, section
from bot.slack.render.lockdowns import lockdown_lifted_line, lockdown_set_line
from bot.slack.render.text import TEXT_MAX, escape, local_datetime, one_line, person_mention, truncate
from storage.audit_kinds import AuditKind
from storage.records import AuditEvent, Cause, Request, RequestKind

REASON_MAX = 160
LINE_MAX = 450
SECTION_LINES = 6

VERBS = {
    AuditKind.REQUESTED: "requested",
    AuditKind.DECIDED: "approved, more are needed",
    AuditKind.APPROVED: "approved",
    AuditKind.DENIED: "denied",
    AuditKind.CANCELLED: "withdrawn",
    AuditKind.LAPSED: "lapsed",
    AuditKind.OUTDATED: "out of date",
    AuditKind.APPLIED: "more time approved",
    AuditKind.REMINDED: "reminded",
    AuditKind.ESCALATED: "escalated",
    AuditKind.EXTENDED: "extended",
    AuditKind.SIGNED_OFF: "signed off",
    AuditKind.REVIEW_OVERDUE: "not signed off in time",
    AuditKind.STARTED: "started",
    AuditKind.ACTIVATED: "granted",
    AuditKind.PASSWORD_RENEWED: "new password",
    AuditKind.PASSWORD_SHOWN: "password shown",
    AuditKind.FAILED: "failed",
    AuditKind.REVOKING: "ending",
    AuditKind.REVOKED: "ended",
    AuditKind.REPAIRED: "repaired",
    AuditKind.ALERT: "alert",
}

LOCKDOWN_LINES = {
    AuditKind.LOCKDOWN_SET: lockdown_set_line,
    AuditKind.LOCKDOWN_LIFTED: lockdown_lifted_line,
}


def feed_message(notice: FeedNotice) -> RenderedMessage:
    """Render the events, ``SECTION_LINES`` lines in a section."""
    rendered = [
        truncate(event_line(event, notice.requests.get(event.request_id or 0)), LINE_MAX) for event in notice.events
    ]
    parts = [rendered[i : i + SECTION_LINES] for i in range(0, len(rendered), SECTION_LINES)]
    return RenderedMessage(
        text=truncate("\n".join(rendered), TEXT_MAX), blocks=[section("\n".join(part)) for part in parts]
    )


def event_line(event: AuditEvent, request: Request | None) -> str:
    """``‹10:06› #42 approved — @approver``."""
    if request is None and event.kind == AuditKind.ALERT:
        return f"{local_datetime(event.at)} {VERBS[AuditKind.ALERT]} — {_alert_text(event)}"
    if event.kind in LOCKDOWN_LINES:
        return f"{local_datetime(event.at)} {LOCKDOWN_LINES[AuditKind(event.kind)](event)}"
    if request is None:
        facts = ", ".join(_fact(name, value) for name, value in event.facts.items())
        return f"{local_datetime(event.at)} {event.kind} — {escape(event.actor)}{': ' + one_line(facts, REASON_MAX) if facts else ''}"
    verb = VERBS.get(AuditKind(event.kind), event.kind)
    loud = " BREAK-GLASS" if request.kind is RequestKind.BREAK_GLASS else ""
    return f"{local_datetime(event.at)} #{request.id}{loud} {verb} — {_event_details(event, request)}"


def _fact(name: str, value: object) -> str:
    shown = "; ".join(str(one) for one in value) if isinstance(value, list | tuple) else str(value)
    with suppress(ValueError):
        shown = f"{datetime.fromisoformat(shown):%Y-%m-%d %H:%M} UTC" if "T" in shown else shown
    return f"{name.replace('_', ' ')} {shown}"


def _event_details(event: AuditEvent, request: Request) -> str:
    who, thing = person_mention(event.actor), f"{escape(request.level)} on {escape(request.database)}"
    kind = AuditKind(event.kind)
    if kind is AuditKind.REQUESTED:
        lasts = format_duration(request.terms.duration)
        return f'{who}, {thing} for {lasts}: "{one_line(event.text or "", REASON_MAX)}"'
    if kind in (AuditKind.STARTED, AuditKind.ACTIVATED, AuditKind.EXTENDED):
        until = f" until {local_datetime(request.expires_at)}" if request.expires_at else ""
        return f"{escape(request.username or '')} on {escape(request.database)}{until}"
    if kind is AuditKind.REVOKED:
        return _end_text(event, request)
    if kind is AuditKind.REVOKING:
        return f"{who}: {END_REASONS.get(Cause(str(event.facts.get('cause'))), 'ended')}"
    if kind is AuditKind.ALERT:
        return _alert_text(event)
    note = (
        one_line(event.text or request.ended_note or "", REASON_MAX)
        if kind in (AuditKind.DENIED, AuditKind.FAILED, AuditKind.OUTDATED)
        else ""
    )
    return f"{who}{': ' + note if note else ''}"


def _alert_text(event: AuditEvent) -> str:
    return one_line(str(event.facts.get("what", "")), REASON_MAX * 2)


def _end_text(event: AuditEvent, request: Request) -> str:
    if event.facts.get("gone"):
        return f"declared gone by {person_mention(event.actor)}, not verified"
    if event.facts.get("nothing_made"):
        return "nothing had been made on the server"
    number = int(event.facts.get("sessions_ended", 0))
    gone = ", the user was already gone" if event.facts.get("was_absent") else ""
    kept = int(event.facts.get("kept_count") or 0)
    left = f", {one_line(count_left(kept, event.facts.get('kept_by')), REASON_MAX)}" if kept else ""
    return f"{escape(request.username or '')}, {number} session{'' if number == 1 else 's'} ended{gone}{left}, verified"
