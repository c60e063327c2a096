"""Rules that Slack does not enforce visibly, and calls that the bot must never make."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.fake_slack import blockkit

ARGUMENTS = {
    "auth.test": set[str](),
    "users.info": {"user", "include_locale"},
    "users.lookupByEmail": {"email"},
    "team.info": {"team"},
    "conversations.info": {"channel", "include_num_members", "include_locale"},
    "conversations.members": {"channel", "limit", "cursor"},
    "chat.postMessage": {"channel", "text", "blocks", "thread_ts", "unfurl_links", "unfurl_media", "metadata"},
    "chat.update": {"channel", "ts", "text", "blocks", "metadata"},
    "chat.delete": {"channel", "ts"},
    "chat.getPermalink": {"channel", "message_ts"},
    "chat.postEphemeral": {"channel", "user", "text", "blocks", "thread_ts"},
    "views.open": {"trigger_id", "view"},
    "views.push": {"trigger_id", "view"},
    "views.update": {"view_id", "hash", "view"},
    "views.publish": {"user_id", "hash", "view"},
    "usergroups.list": {"include_users", "include_count", "include_disabled", "team_id"},
    "usergroups.users.list": {"usergroup", "include_disabled", "team_id"},
}
"""The arguments that a call may have. Slack also knows ``parse``, ``link_names``, ``username`` and icons, which the bot must not use."""

SDK_ARGUMENTS = {"token", "team_id"}
"""The SDK adds these arguments."""

RESPONSE_KEYS = {"text", "blocks", "response_type", "replace_original", "delete_original", "thread_ts"}
RESPONSE_ACTIONS = {"errors", "update", "push", "clear"}


def problems_of_call(method: str, arguments: dict[str, Any]) -> list[str]:
    """Report unknown arguments."""
    unknown = set(arguments) - ARGUMENTS.get(method, set(arguments)) - SDK_ARGUMENTS
    return [f"{method} with the unknown argument {name}" for name in sorted(unknown)]


def problems_of_answer(body: dict[str, Any]) -> list[str]:
    """Report what is wrong with a reply sent to a response_url."""
    found = [f"an answer with the unknown key {name}" for name in sorted(set(body) - RESPONSE_KEYS)]
    wrong = blockkit.problems_of_message(body.get("blocks"), body.get("text") or "", is_update=False)
    return found + [f"answer: {w}" for w in wrong]


def problems_of_ack(ack: dict[str, Any], view: dict[str, Any] | None) -> list[str]:
    """Report what is wrong with the acknowledgement of a form (``view``), or of a command or click, which must be empty."""
    if view is None:
        return [f"an ack that carries {sorted(ack)}"] if ack else []
    return list(_form_ack_problems(ack, view))


def _form_ack_problems(ack: dict[str, Any], view: dict[str, Any]) -> Iterator[str]:
    kind = ack.get("response_action")
    if ack and kind not in RESPONSE_ACTIONS:
        yield f"a form does not close on {sorted(ack)}"
    if kind == "errors":
        inputs = {b.get("block_id") for b in view["blocks"] if b["type"] == "input"}
        if not ack.get("errors"):
            yield "errors without an error"
        for block, text in (ack.get("errors") or {}).items():
            if block not in inputs:
                yield f"an error under {block}, which is no input of the form"
            if not text:
                yield f"an empty error under {block}"
    if kind in ("update", "push"):
        yield from (f"the form's next page: {w}" for w in blockkit.problems_of_view(ack.get("view") or {}))
