"""The limits of Block Kit. Each function returns a list of violations in plain words; an empty list means that there is none."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

MESSAGE_BLOCKS, VIEW_BLOCKS = 50, 100
MESSAGE_CONTENT = 13_200
VIEW_BYTES = 250_000
TEXT_POST, TEXT_UPDATE = 40_000, 4_000
MESSAGE_TYPES = {"section", "header", "context", "actions", "divider", "image", "rich_text", "markdown", "video"}
VIEW_TYPES = {"section", "header", "context", "actions", "divider", "image", "rich_text", "input"}
ELEMENTS = {
    "button",
    "static_select",
    "external_select",
    "users_select",
    "overflow",
    "datepicker",
    "checkboxes",
    "radio_buttons",
}
INPUTS = {
    "plain_text_input",
    "static_select",
    "external_select",
    "datepicker",
    "checkboxes",
    "radio_buttons",
    "number_input",
    "email_text_input",
}
VIEW_KEYS = {
    "type", "callback_id", "title", "submit", "close", "private_metadata", "blocks", "clear_on_close", "notify_on_close",
    "external_id", "submit_disabled",
}  # fmt: skip
KEYS = {
    "section": {"type", "block_id", "text", "fields", "accessory", "expand"},
    "header": {"type", "block_id", "text"},
    "context": {"type", "block_id", "elements"},
    "actions": {"type", "block_id", "elements"},
    "divider": {"type", "block_id"},
    "input": {"type", "block_id", "label", "element", "hint", "optional", "dispatch_action"},
    "rich_text": {"type", "block_id", "elements"},
    "button": {"type", "action_id", "text", "value", "url", "style", "confirm", "accessibility_label"},
    "plain_text_input": {
        "type",
        "action_id",
        "multiline",
        "min_length",
        "max_length",
        "placeholder",
        "initial_value",
        "focus_on_load",
    },
    "static_select": {
        "type",
        "action_id",
        "placeholder",
        "options",
        "option_groups",
        "initial_option",
        "confirm",
        "focus_on_load",
    },
}


def problems_of_message(blocks: Any, text: str, *, is_update: bool) -> list[str]:
    """``chat.postMessage`` and ``chat.update``."""
    found = list(_blocks(blocks, MESSAGE_TYPES, MESSAGE_BLOCKS)) if blocks is not None else []
    if blocks is not None and len(json.dumps(blocks, ensure_ascii=False)) > MESSAGE_CONTENT:
        found.append("msg_blocks_too_long")
    if not text and not blocks:
        found.append("no_text")
    if not text:
        found.append("blocks without text: the notification would be empty")
    if len(text) > (TEXT_UPDATE if is_update else TEXT_POST):
        found.append("msg_too_long")
    return found


def problems_of_view(view: dict[str, Any]) -> list[str]:
    """A modal or a Home tab."""
    found = list(_blocks(view.get("blocks"), VIEW_TYPES, VIEW_BLOCKS))
    is_modal = view.get("type") == "modal"
    if view.get("type") not in ("modal", "home"):
        found.append(f"a view of type {view.get('type')}")
    for name in ("title", "submit", "close"):
        if name in view:
            found += _text(view[name], name, 24, plain_only=True)
    if is_modal and "title" not in view:
        found.append("a modal without title")
    has_input = any(b.get("type") == "input" for b in view.get("blocks") or [])
    if is_modal and has_input and "submit" not in view:
        found.append("a modal with inputs and no submit")
    if len(view.get("private_metadata", "")) > 3000:
        found.append("private_metadata over 3000")
    if len(view.get("callback_id", "")) > 255:
        found.append("callback_id over 255")
    if unknown := set(view) - VIEW_KEYS:
        found.append(f"a view has unknown {unknown}")
    if len(json.dumps(view)) > VIEW_BYTES:
        found.append("view_too_large")
    return found


def _blocks(blocks: Any, allowed: set[str], most: int) -> Iterator[str]:
    if not isinstance(blocks, list):
        yield "blocks are no list"
        return
    if not blocks or len(blocks) > most:
        yield f"{len(blocks)} blocks, 1 to {most} are allowed"
    ids = [b["block_id"] for b in blocks if b.get("block_id")]
    yield from (f"block_id {i} twice" for i in {i for i in ids if ids.count(i) > 1})
    for block in blocks:
        kind = block.get("type")
        if kind not in allowed:
            yield f"unknown block {kind}"
            continue
        if unknown := set(block) - KEYS.get(kind, set(block)):
            yield f"{kind} has unknown {unknown}"
        if len(block.get("block_id", "")) > 255:
            yield "block_id over 255"
        yield from _block(kind, block)


def _block(kind: str, block: dict[str, Any]) -> Iterator[str]:
    if kind == "section":
        if "text" not in block and "fields" not in block:
            yield "a section without text"
        if "text" in block:
            yield from _text(block["text"], "section", 3000)
        fields = block.get("fields", [])
        if "fields" in block and not 1 <= len(fields) <= 10:
            yield f"{len(fields)} fields"
        for field in fields:
            yield from _text(field, "field", 2000)
    elif kind == "header":
        yield from _text(block.get("text"), "header", 150, plain_only=True)
    elif kind == "context":
        if not 1 <= len(block["elements"]) <= 10:
            yield f"{len(block['elements'])} elements in a context"
        for element in block["elements"]:
            yield from _text(element, "context", 3000)
    elif kind == "actions":
        if not 1 <= len(block["elements"]) <= 25:
            yield f"{len(block['elements'])} actions"
        ids = [e.get("action_id") for e in block["elements"]]
        if len(set(ids)) != len(ids):
            yield "action_id twice in one block"
        for element in block["elements"]:
            yield from _element(element, ELEMENTS)
    elif kind == "input":
        yield from _text(block.get("label"), "label", 2000, plain_only=True)
        if "hint" in block:
            yield from _text(block["hint"], "hint", 2000, plain_only=True)
        yield from _element(block.get("element") or {}, INPUTS)


def _element(element: dict[str, Any], allowed: set[str]) -> Iterator[str]:
    kind = element.get("type")
    if kind not in allowed:
        yield f"unknown element {kind}"
        return
    if unknown := set(element) - KEYS.get(kind, set(element)):
        yield f"{kind} has unknown {unknown}"
    if not 1 <= len(element.get("action_id", "")) <= 255:
        yield f"{kind} without a good action_id"
    if kind == "button":
        yield from _button(element)
    if kind == "plain_text_input" and element.get("max_length", 1) > 3000:
        yield "max_length over 3000"
    if kind == "plain_text_input" and len(element.get("initial_value", "")) > element.get("max_length", 3000):
        yield "initial_value over max_length"
    if kind == "static_select":
        yield from _select(element)


def _button(element: dict[str, Any]) -> Iterator[str]:
    yield from _text(element.get("text"), "button", 75, plain_only=True)
    if len(element.get("value", "")) > 2000:
        yield "value over 2000"
    if len(element.get("url", "")) > 3000:
        yield "url over 3000"
    if element.get("style") not in (None, "primary", "danger"):
        yield f"style {element['style']}"
    if len(element.get("accessibility_label", "")) > 75:
        yield "accessibility_label over 75"
    for name, most in (("title", 100), ("text", 300), ("confirm", 30), ("deny", 30)) if "confirm" in element else ():
        yield from _text(element["confirm"].get(name), f"confirm {name}", most)


def _select(element: dict[str, Any]) -> Iterator[str]:
    if ("options" in element) == ("option_groups" in element):
        yield "either options or option_groups"
    groups = element.get("option_groups", [{"options": element.get("options", [])}])
    if not 1 <= len(groups) <= 100:
        yield f"{len(groups)} groups"
    for group in groups:
        if "label" in group or "option_groups" in element:
            yield from _text(group.get("label"), "label of a group", 75, plain_only=True)
        if not 1 <= len(group["options"]) <= 100:
            yield f"{len(group['options'])} options"
    options = [option for group in groups for option in group["options"]]
    if len({o["value"] for o in options}) != len(options):
        yield "two options with one value"
    for option in options:
        yield from _text(option["text"], "option", 75, plain_only=True)
        if not 1 <= len(option["value"]) <= 75:
            yield "an option's value is not 1 to 75"
    if "placeholder" in element:
        yield from _text(element["placeholder"], "placeholder", 150, plain_only=True)
    if "initial_option" in element and element["initial_option"] not in options:
        yield "initial_option is none of the options"


def _text(found: Any, where: str, most: int, *, plain_only: bool = False) -> list[str]:
    if not isinstance(found, dict) or found.get("type") not in ("plain_text", "mrkdwn"):
        return [f"{where}: no text object"]
    wrong = []
    if plain_only and found["type"] != "plain_text":
        wrong.append(f"{where}: plain_text only")
    if found["type"] == "mrkdwn" and "emoji" in found:
        wrong.append(f"{where}: emoji is for plain_text")
    if not 1 <= len(found["text"]) <= most:
        wrong.append(f"{where}: {len(found['text'])} characters, 1 to {most} are allowed")
    return wrong
