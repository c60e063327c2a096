"""The few kinds of blocks that everything here is made of. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

from bot.slack.render.text import SECTION_MAX, clean, escape, mrkdwn, plain, truncate

Block: TypeAlias = dict[str, Any]
HEADER_MAX, BUTTON_MAX, OPTION_MAX = 150, 75, 75
QUOTE_MAX = 1500
FIELDS_MAX = 10


@dataclass(frozen=True, kw_only=True)
class RenderedMessage:
    """What Slack is sent: ``text`` has the same facts for screen readers and notifications, and never a secret."""

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
    """What a person typed, as they typed it and as nothing more: plain text knows no markup and no mentions."""
    return {"type": "section", "text": plain(f"“{truncate(clean(text).strip(), QUOTE_MAX) or '-'}”", SECTION_MAX)}


def preformatted(text: str) -> Block:
    """To be copied as it stands."""
    return section(f"`{escape(text)}`")


def button(label: str, action: str, value: str, *, style: str | None = None, about: str = "") -> Block:
    found: Block = {"type": "button", "action_id": action, "text": plain(label, BUTTON_MAX), "value": value}
    if style:
        found["style"] = style
    if about:
        found["accessibility_label"] = truncate(f"{label}: {about}", BUTTON_MAX)
    return found


def with_confirmation(element: Block, title: str, text: str, yes: str) -> Block:
    """Asks the person once more; a courtesy of the client and no control."""
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
