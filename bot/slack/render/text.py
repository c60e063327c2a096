"""Text on its way into Slack: escaped, without control or direction characters, never longer than allowed.

Escaping ``& < >`` disarms mentions and links; bold, backticks and auto-linking survive it, so what people typed goes into
``plain_text`` or rich text wherever it can.
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
    """Without what would change how the rest is shown: control characters and changes of direction."""
    return "".join(
        c
        for c in text
        if c in ALLOWED_CONTROLS or (unicodedata.category(c) not in ("Cc", "Cs", "Co") and c not in BIDI)
    )


def escape(text: str) -> str:
    """For mrkdwn and for ``text``: Slack's three characters."""
    return clean(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def unescape(text: str) -> str:
    """What a person typed after a slash command with ``should_escape``: exactly once."""
    return text.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")


def truncate(text: str, length: int) -> str:
    """At most ``length`` characters, never in the middle of an entity."""
    if len(text) <= length:
        return text
    kept = text[: length - 1]
    entity = kept.rfind("&")
    if entity > len(kept) - 6 and ";" not in kept[entity:]:
        kept = kept[:entity]
    return kept + ELLIPSIS


def plain(text: str, length: int) -> dict[str, object]:
    """A ``plain_text`` object; emoji codes stay as they were typed. Never empty, which Slack refuses."""
    return {"type": "plain_text", "text": truncate(clean(text).strip(), length) or "-", "emoji": False}


def mrkdwn(text: str) -> dict[str, object]:
    """A ``mrkdwn`` object. ``text`` is our own, with everything foreign in it escaped."""
    return {"type": "mrkdwn", "text": truncate(text, SECTION_MAX), "verbatim": True}


def one_line(text: str, length: int) -> str:
    """Escaped, on one line."""
    return truncate(escape(" ".join(text.split())), length)


def inline_code(text: str) -> str:
    """In backticks; what would end them is dropped."""
    return f"`{escape(UNSAFE_IN_CODE.sub(' ', text)).strip() or '-'}`"


def person_mention(person_id: str, name: str = "") -> str:
    """A mention, or a name where the actor is nobody in Slack (``cli:root``, ``clock``)."""
    if re.fullmatch(r"[UW][A-Z0-9]+", person_id):
        return f"<@{person_id}>"
    return escape(name or person_id)


def mention(who: str) -> str:
    """Whom the policy names: a mention of a person or of a group by its id; handles and addresses as they are."""
    if re.fullmatch(r"S[A-Z0-9]+", who):
        return f"<!subteam^{who}>"
    return person_mention(who)


def link(url: str, label: str) -> str:
    """A link of our own making; what is foreign in it was quoted before."""
    return f"<{escape(url)}|{escape(label).replace('|', ' ')}>"


def local_datetime(at: datetime) -> str:
    """A date in each reader's own zone."""
    return f"<!date^{int(at.timestamp())}^{{date_short_pretty}} {{time}}|{at:%Y-%m-%d %H:%M} UTC>"


def local_time(at: datetime) -> str:
    """A time to the second, in each reader's own zone."""
    return f"<!date^{int(at.timestamp())}^{{time_secs}}|{at:%H:%M:%S} UTC>"


def utc_datetime(at: datetime) -> str:
    """A date for ``text``, which screen readers read."""
    return f"{at:%Y-%m-%d %H:%M} UTC"
