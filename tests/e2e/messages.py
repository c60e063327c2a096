"""Text and buttons of a Slack message, as a person reads and clicks them."""

from __future__ import annotations

import html
import json
import re
from typing import Any


def text_of(message: dict[str, Any]) -> str:
    """All text of a message that a person sees."""
    return json.dumps(message.get("blocks") or "", ensure_ascii=False) + str(message.get("text"))


def buttons(message: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The buttons of a message by their label, in the form that a click needs."""
    found = {}
    for block in message.get("blocks") or []:
        for element in block.get("elements", ()) if block["type"] == "actions" else ():
            found[element["text"]["text"]] = {
                "type": "button",
                "action_id": element["action_id"],
                "block_id": block.get("block_id"),
                "value": element["value"],
                "text": element["text"],
            }
    return found


def number(card: dict[str, Any]) -> int:
    """The request's number on its card."""
    found = re.search(r"Access request #(\d+)", text_of(card))
    assert found is not None
    return int(found[1])


def credentials(message: dict[str, Any]) -> dict[str, str]:
    """Host, Port, Database, Username and Password of a credential message."""
    text = json.dumps(message.get("blocks"))
    found = dict(re.findall(r"\*(Host|Port|Database|Username|Password)\*\\n`([^`]*)`", text))
    assert len(found) == 5, text
    return found


def command_of(message: dict[str, Any]) -> str:
    """The ready-to-paste command of a credential message, as a person reads it."""
    texts = [str(block["text"]["text"]) for block in message["blocks"] if "text" in block]
    return html.unescape(next(text.strip("`") for text in texts if text.startswith("`")))


def pasted_url(message: dict[str, Any]) -> str:
    """The URL in the ready-to-paste psql command of a credential message."""
    found = re.search(r'psql \\"(postgresql://[^\\"]+)\\"', text_of(message))
    assert found is not None, text_of(message)
    return found[1]
