"""Builders of the Block Kit blocks that all messages and forms use. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from bot.slack.render.text import SECTION_MAX, clean, escape, mrkdwn, plain, truncate

Block: TypeAlias = dict[str, Any]
HEADER_MAX, BUTTON_MAX = 150, 75
QUOTE_MAX = 1500
FIELDS_MAX = 10


@dataclass(frozen=True, kw_only=True)
class RenderedMessage:
    """A message as Slack gets it. ``text`` has the same facts for screen readers and notifications, and never a secret."""

    text: str
    blocks: list[Block]


def header(text: str) -> Block:
    return {"type": "header", "text": plain(text, HEADER_MAX)}


def section(text: str) -> Block:
    return {"type": "section", "text": mrkdwn(text)}


def fields(*texts: str) -> Block:
    return {"type": "section", "fields": [mrkdwn(text) for text in texts[:FIELDS_MAX]]}


def context(*texts: str) -> Block:
    return {"type": "context", "elements": [mrkdwn(text) for text in texts if text]}


def quote(text: str) -> Block:
    """Quote text of a person. Plain text has no markup and no mentions, so it appears exactly as typed."""
    return {"type": "section", "text": plain(f"“{truncate(clean(text).strip(), QUOTE_MAX) or '-'}”", SECTION_MAX)}


def preformatted(text: str) -> Block:
    """Text to copy, such as a command."""
    return section(f"`{escape(text)}`")


def button(label: str, action: str, value: str, *, style: str | None = None, about: str = "") -> Block:
    element: Block = {"type": "button", "action_id": action, "text": plain(label, BUTTON_MAX), "value": value}
    if style:
        element["style"] = style
    if about:
        element["accessibility_label"] = truncate(f"{label}: {about}", BUTTON_MAX)
    return element


def with_confirmation(element: Block, title: str, text: str, yes: str) -> Block:
    """Add a confirmation dialog to a button. Only the client shows it, so it is no security control."""
    return {
        **element,
        "confirm": {
            "title": plain(title, 100),
            "text": plain(text, 300),
            "confirm": plain(yes, 30),
            "deny": plain("Cancel", 30),
        },
    }


def actions(*elements: Block) -> Block:
    return {"type": "actions", "elements": list(elements)}
