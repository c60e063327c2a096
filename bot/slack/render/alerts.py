"""Render an alert: what is wrong and since when, what is already safe, what happens next, what to do, and its end. Pure.

Everything is in one rich text block. Its texts have no markup and no mentions, so a name on a server, or of a person, is shown as it
is. Slack refuses to replace rich text by other blocks, so each version of the message has it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

from bot.notifications.notices import AlertNotice
from bot.slack.render.blocks import Block, RenderedMessage, actions
from bot.slack.render.cards import revoke_button, sign_off_button
from bot.slack.render.text import TEXT_MAX, clean, escape, local_datetime_parts, truncate, utc_datetime
from storage.records import Request, State

WHAT_MAX, ENFORCED_MAX, REASON_MAX = 1000, 500, 300
STEPS_MAX = 2000
"""Characters of all steps. Each of them is seen, however long another one is."""
STATEMENTS_MAX = 2500
TIME_MARK = re.compile(r"‹(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)Z›", re.ASCII)
"""A time inside a text of an alert (``bot.access.descriptions.time_mark``)."""


def alert_message(notice: AlertNotice) -> RenderedMessage:
    """Render an alert. ``text`` has the problem, or that it is resolved, for notifications and screen readers."""
    parts = _resolved(notice) if notice.resolved_at is not None else _open(notice)
    buttons = _buttons(notice)
    blocks = [{"type": "rich_text", "elements": parts}, *([actions(*buttons)] if buttons else [])]
    return RenderedMessage(text=_alert_text(notice), blocks=blocks)


def _open(notice: AlertNotice) -> list[Block]:
    lines = [_title(notice), *_break_glass(notice.request)]
    if notice.enforced:
        lines.append(_texts(_one_line(notice.enforced, ENFORCED_MAX)))
    if notice.next_try_at is not None:
        lines.append([_text("Next try "), _date(notice.next_try_at), _text(".")])
    parts = [_lines(lines)]
    if notice.steps:
        steps = [_lines([_texts(step)]) for step in _fitting(notice.steps)]
        parts.append({"type": "rich_text_list", "style": "bullet", "elements": steps})
    if notice.statements:
        parts.append(_lines([[_text("By hand, as an administrator of the server:")]]))
        parts.append({"type": "rich_text_preformatted", "elements": [_text(_statements(notice.statements))]})
    return parts


def _break_glass(request: Request | None) -> list[list[Block]]:
    """Until when break-glass access is live, its reason as it was typed, and the channel of its card."""
    if request is None:
        return []
    until = [[_text("Live until "), _date(request.expires_at), _text(".")]] if request.expires_at is not None else []
    place = [_text("Its card is in "), {"type": "channel", "channel_id": request.terms.channel}, _text(".")]
    return [*until, [_text(f"“{_one_line(request.reason, REASON_MAX)}”")], place]


def _resolved(notice: AlertNotice) -> list[Block]:
    assert notice.resolved_at is not None, "it is over"
    how = _texts(_one_line(notice.resolution or "", WHAT_MAX))
    return [_lines([_title(notice), [_text("✓ Resolved "), _date(notice.resolved_at), _text(": "), *how]])]


def _title(notice: AlertNotice) -> list[Block]:
    """``🔴 #42 is not ended: shop does not answer since 11:31 (14 tries)``. An event has no duration; what is over has a grey dot."""
    dot = "🔴" if notice.resolved_at is None else "⚪"
    what = notice.what if notice.since is None or notice.is_event else notice.what.removesuffix(".")
    title = [_text(f"{dot} "), _text(_one_line(what, WHAT_MAX), is_bold=True)]
    if notice.since is not None and not notice.is_event:
        title += [_text(" since "), _date(notice.since)]
    if notice.tries:
        title.append(_text(f" ({_tries(notice.tries)})"))
    return title


def _tries(number: int) -> str:
    return "1 try" if number == 1 else f"{number} tries"


def _fitting(steps: Sequence[str]) -> list[str]:
    """The steps, the longest of them cut, so that each is seen."""
    room, cut = STEPS_MAX, dict[int, str]()
    for left, number in enumerate(sorted(range(len(steps)), key=lambda one: len(steps[one]))):
        cut[number] = _one_line(steps[number], room // (len(steps) - left))
        room -= len(cut[number])
    return [cut[number] for number in range(len(steps))]


def _statements(statements: Sequence[str]) -> str:
    """The statements that fit, one a line. Each is shown whole or not at all: nobody may paste a part of one."""
    shown, room = list[str](), STATEMENTS_MAX
    for statement in map(clean, statements):
        if len(statement) >= room:
            break
        shown.append(statement)
        room -= len(statement) + 1
    further = len(statements) - len(shown)
    return "\n".join([*shown, *([f"… and {further} more"] if further else [])])


def _buttons(notice: AlertNotice) -> list[Block]:
    """What can be done about break-glass access at once."""
    request = notice.request
    if request is None or notice.resolved_at is not None:
        return []
    revoke = [revoke_button(request)] if request.state in (State.APPROVED, State.ACTIVE) else []
    return [*revoke, *([sign_off_button(request)] if request.needs_review else [])]


def _alert_text(notice: AlertNotice) -> str:
    what = escape(TIME_MARK.sub(r"\1 UTC", notice.what))
    if notice.resolved_at is not None:
        over = escape(TIME_MARK.sub(r"\1 UTC", notice.resolution or ""))
        return truncate(f"✓ Resolved {utc_datetime(notice.resolved_at)}: {over} It was: {what}", TEXT_MAX)
    return truncate(f"🔴 {what}", TEXT_MAX)


# Elements of rich text.


def _lines(lines: Sequence[list[Block]]) -> Block:
    elements = [one for number, line in enumerate(lines) for one in ([*([_text("\n")] if number else []), *line])]
    return {"type": "rich_text_section", "elements": elements}


def _one_line(text: str, length: int) -> str:
    """One line, so that a name on a server cannot forge another one."""
    return truncate(" ".join(clean(text).split()), length)


def _text(text: str, *, is_bold: bool = False) -> Block:
    return {"type": "text", "text": clean(text) or "-", **({"style": {"bold": True}} if is_bold else {})}


def _date(at: datetime) -> Block:
    shown, fallback = local_datetime_parts(at)
    return {"type": "date", "timestamp": int(at.timestamp()), "format": shown, "fallback": fallback}


def _texts(text: str) -> list[Block]:
    """A text whose times are shown in the time zone of each reader."""
    found, at = list[Block](), 0
    for mark in TIME_MARK.finditer(text):
        try:
            date = _date(datetime.fromisoformat(f"{mark[1]}+00:00"))
        except ValueError:
            continue
        found += [*([_text(text[at : mark.start()])] if mark.start() > at else []), date]
        at = mark.end()
    return [*found, *([_text(text[at:])] if at < len(text) or not found else [])]
