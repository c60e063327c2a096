"""Text for Slack: escaped, without control and direction characters, and never too long. Pure.

Escaping ``& < >`` disables mentions and links. Bold, backticks and automatic links still work in mrkdwn, so text of people
belongs in ``plain_text`` or rich text where possible.
"""

from __future__ import annotations

import re
import unicodedata
from datetime import datetime

BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
ALLOWED_CONTROLS = frozenset("\n\t")
ELLIPSIS = "…"
SECTION_MAX = 3000
TEXT_MAX = 3900
"""``chat.update`` refuses a text of more than 4,000 characters."""

UNSAFE_IN_CODE = re.compile(r"[`\s]+")


def clean(text: str) -> str:
    """Remove characters that change how the rest is shown: control characters and changes of direction."""
    return "".join(
        c
        for c in text
        if c in ALLOWED_CONTROLS or (unicodedata.category(c) not in ("Cc", "Cs", "Co") and c not in BIDI)
    )


def escape(text: str) -> str:
    """Clean and escape text for mrkdwn and for ``text``. Slack requires it for ``& < >``."""
    return clean(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def unescape(text: str) -> str:
    """Undo Slack's escaping of the text after a slash command (``should_escape``), exactly once."""
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def truncate(text: str, length: int) -> str:
    """Shorten to at most ``length`` characters, never inside an entity such as ``&amp;``."""
    if len(text) <= length:
        return text
    start = text[: length - 1]
    entity = start.rfind("&")
    if entity > len(start) - 6 and ";" not in start[entity:]:
        start = start[:entity]
    return start + ELLIPSIS


def plain(text: str, length: int) -> dict[str, object]:
    """Build a ``plain_text`` object. Emoji codes stay as typed. Empty text becomes ``-``, because Slack refuses empty text."""
    return {"type": "plain_text", "text": truncate(clean(text).strip(), length) or "-", "emoji": False}


def mrkdwn(text: str) -> dict[str, object]:
    """Build a ``mrkdwn`` object. The caller has escaped every part of ``text`` that comes from people or servers."""
    return {"type": "mrkdwn", "text": truncate(text, SECTION_MAX), "verbatim": True}


def one_line(text: str, length: int) -> str:
    """Escape, join all lines to one, and shorten to ``length`` characters."""
    return truncate(escape(" ".join(text.split())), length)


def inline_code(text: str) -> str:
    """Format as inline code. Backticks in the text are replaced by spaces, so that they cannot end the code."""
    return f"`{escape(UNSAFE_IN_CODE.sub(' ', text)).strip() or '-'}`"


def person_mention(person_id: str, name: str = "") -> str:
    """Mention a person, or return the escaped name of an actor outside Slack (``cli:root``, ``clock``)."""
    if re.fullmatch(r"[UW][A-Z0-9]+", person_id):
        return f"<@{person_id}>"
    return escape(name or person_id)


def mention(who: str) -> str:
    """Mention an approver as the policy names them: people and groups by id. Handles and addresses are shown as text."""
    if re.fullmatch(r"S[A-Z0-9]+", who):
        return f"<!subteam^{who}>"
    return person_mention(who)


def link(url: str, label: str) -> str:
    """Build a link. The caller has percent-encoded the parts of ``url`` that come from people."""
    return f"<{escape(url)}|{escape(label).replace('|', ' ')}>"


def local_datetime(at: datetime) -> str:
    """Date and time in the time zone of each reader."""
    shown, fallback = local_datetime_parts(at)
    return f"<!date^{int(at.timestamp())}^{shown}|{fallback}>"


def local_datetime_parts(at: datetime) -> tuple[str, str]:
    """The format of ``local_datetime``, and the text where a client cannot show it."""
    return "{date_short_pretty} {time}", utc_datetime(at)


def local_time(at: datetime) -> str:
    """Time of day with seconds, in the time zone of each reader."""
    return f"<!date^{int(at.timestamp())}^{{time_secs}}|{at:%H:%M:%S} UTC>"


def utc_datetime(at: datetime) -> str:
    """Date and time in UTC, for ``text``, which screen readers read."""
    return f"{at:%Y-%m-%d %H:%M} UTC"
