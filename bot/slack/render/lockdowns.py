"""Render lockdowns: the message that counts down, the replies to the commands, and the lines of the audit feed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bot.access.descriptions import count
from bot.access.use_case_types import LockdownOutcome, UnlockOutcome
from bot.notifications.notices import LockdownNotice
from bot.slack.render.blocks import RenderedMessage, section
from bot.slack.render.text import TEXT_MAX, escape, local_datetime, person_mention, truncate
from storage.records import AuditEvent, Lockdown

SHOWN_MAX = 20


def scope_text(database: str | None, person_id: str | None, person_name: str | None = None) -> str:
    """What a lockdown is of, in mrkdwn."""
    if person_id is not None:
        return person_mention(person_id, person_name or "")
    return "all databases" if database is None else escape(database)


def lockdown_message(notice: LockdownNotice) -> RenderedMessage:
    """One message for each lockdown: how many grants still end, when all had ended, who lifted it."""
    line = _lifted_line(notice.lockdown) if notice.lockdown.unlocked_at else _line_in_force(notice)
    return RenderedMessage(text=truncate(line, TEXT_MAX), blocks=[section(line)])


def _line_in_force(notice: LockdownNotice) -> str:
    lockdown = notice.lockdown
    start = f"🔴 Lockdown of {_scope(lockdown)} by {escape(lockdown.locked_by_name or lockdown.locked_by)}"
    total = max(lockdown.grants, notice.left)
    if notice.left:
        progress = f" · {notice.left} of {count(total, 'grant')} still {'ends' if notice.left == 1 else 'end'}"
    elif total:
        ended = "the one grant has ended" if total == 1 else f"all {total} grants have ended"
        at = f" {local_datetime(lockdown.all_ended_at)}" if lockdown.all_ended_at else ""
        progress = f" · {ended}{at}"
    else:
        progress = " · no grant was live"
    return f"{start}{progress}. New access is refused until another admin lifts it: {_unlock(lockdown)}"


def _lifted_line(lockdown: Lockdown) -> str:
    at = f" {local_datetime(lockdown.unlocked_at)}" if lockdown.unlocked_at else ""
    by = escape(lockdown.unlocked_by_name or lockdown.unlocked_by or "")
    set_by = escape(lockdown.locked_by_name or lockdown.locked_by)
    return (
        f"✓ Lifted{at} by {by}: the lockdown of {_scope(lockdown)}, set {local_datetime(lockdown.at)} by {set_by}."
        f" It ended {count(lockdown.grants, 'grant')}."
    )


def _scope(lockdown: Lockdown) -> str:
    return scope_text(lockdown.database, lockdown.person_id, lockdown.person_name)


def _unlock(lockdown: Lockdown) -> str:
    return "/dbaccess unlock" if lockdown.is_of_everything else f"/dbaccess unlock {_scope(lockdown)}"


# Replies.


def lockdown_reply(outcome: LockdownOutcome) -> RenderedMessage:
    """Reply to ``lockdown``."""
    lockdown = outcome.lockdown
    access = f"Access {'of' if lockdown.person_id is not None else 'to'} {_scope(lockdown)}"
    if outcome.is_new:
        text = (
            f"🔴 {access} is locked down. {count(lockdown.grants, 'grant')} {_ended(lockdown.grants)},"
            f" and new access is refused until another admin lifts it: {_unlock(lockdown)}"
        )
    else:
        by = escape(lockdown.locked_by_name or lockdown.locked_by)
        text = (
            f"{access} is locked down already, by {by} since {local_datetime(lockdown.at)}."
            f" {count(outcome.ended, 'more grant')} {_ended(outcome.ended)}."
        )
    return RenderedMessage(text=truncate(text, TEXT_MAX), blocks=[section(text)])


def _ended(number: int) -> str:
    return "is ended" if number == 1 else "are ended"


def unlock_reply(outcome: UnlockOutcome) -> RenderedMessage:
    """Reply to ``unlock``: what is lifted, and what another admin must lift."""
    parts = [f"✓ The lockdown of {_listed(outcome.lifted)} is lifted."] if outcome.lifted else []
    if outcome.refused:
        parts.append(f"The lockdown of {_listed(outcome.refused)} must be lifted by another admin.")
    text = " ".join(parts) or "Nothing is locked down."
    return RenderedMessage(text=truncate(text, TEXT_MAX), blocks=[section(text)])


def _listed(lockdowns: tuple[Lockdown, ...]) -> str:
    more = f" and {len(lockdowns) - SHOWN_MAX} more" if len(lockdowns) > SHOWN_MAX else ""
    return f"{', '.join(map(_scope, lockdowns[:SHOWN_MAX]))}{more}"


# The audit feed.


def lockdown_set_line(event: AuditEvent) -> str:
    grants = int(event.facts.get("grants") or 0)
    return f"lockdown of {_scope_of(event.facts)} — {person_mention(event.actor)}: {count(grants, 'grant')} {_ended(grants)}"


def lockdown_lifted_line(event: AuditEvent) -> str:
    return f"lockdown of {_scope_of(event.facts)} lifted — {person_mention(event.actor)}"


def _scope_of(facts: Mapping[str, Any]) -> str:
    return scope_text(facts.get("database"), facts.get("person"))
