"""Listeners for submitted forms.

Slack shows errors at the fields only if they are in the acknowledgement, which must come within three seconds. The
submission is therefore carried out before the acknowledgement. If that takes longer, the person gets the result by DM.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from slack_bolt.async_app import AsyncAck, AsyncApp
from slack_sdk.web.async_client import AsyncWebClient

from bot.access import decide, extend, queries, request_access
from bot.access.context import Context
from bot.access.errors import AccessError, NotUnderstood, Refused
from bot.access.ports import Person
from bot.access.use_case_types import FormNeeded
from bot.slack import ids
from bot.slack.interaction import BoltListener, report_unexpected, user_of
from bot.slack.payload import objects_part, text_part
from bot.slack.render import form_layouts, replies
from bot.slack.render.blocks import Block, RenderedMessage
from bot.slack.render.text import TEXT_MAX, escape, plain, truncate

ACK_SECONDS = 2.5
ERROR_MAX = 2000

FormListener: TypeAlias = Callable[[Context, Person, dict[str, Any]], Awaitable[RenderedMessage | None]]


def register(app: AsyncApp, context: Context) -> None:
    """Add the listeners to the app."""
    app.view(ids.REQUEST_FORM)(_bolt_listener(context, on_request_form))
    app.view(ids.EXTEND_FORM)(_bolt_listener(context, on_extend_form))
    app.view(ids.DENY_FORM)(_bolt_listener(context, on_deny_form))


async def on_request_form(context: Context, person: Person, view: dict[str, Any]) -> RenderedMessage | None:
    outcome = await request_access.request_access(context, person, form_layouts.submitted(view))
    return replies.request_reply(outcome)


async def on_extend_form(context: Context, person: Person, view: dict[str, Any]) -> RenderedMessage | None:
    grant = await queries.by_token(context, form_layouts.grant_token(view))
    return replies.request_reply(await extend.extend(context, person, grant.id, form_layouts.submitted(view)))


async def on_deny_form(context: Context, person: Person, view: dict[str, Any]) -> RenderedMessage | None:
    request = await queries.by_token(context, text_part(view, "private_metadata") or "")
    await decide.deny(context, person, request, form_layouts.reason_text(view))
    return None


def _bolt_listener(context: Context, listener: FormListener) -> BoltListener:
    """Wrap a listener for Bolt. The acknowledgement has the errors, or the reply as the form's last page, or is empty and closes the form."""

    async def on_submit(ack: AsyncAck, body: dict[str, Any], view: dict[str, Any], client: AsyncWebClient) -> None:
        submission = asyncio.ensure_future(_ack_arguments(context, listener, user_of(body), view))
        await asyncio.wait({submission}, timeout=ACK_SECONDS)
        if submission.done():
            await ack(**submission.result())
            return
        await ack()
        late = await submission
        if late:
            await client.chat_postMessage(
                channel=user_of(body), text=_late_text(late), unfurl_links=False, unfurl_media=False
            )

    return on_submit


async def _ack_arguments(
    context: Context, listener: FormListener, user_id: str, view: dict[str, Any]
) -> dict[str, Any]:
    """Carry out the submission and return the arguments of the acknowledgement. Never raises."""
    last_event = None
    try:
        last_event = await queries.last_event(context)
        rendered = await listener(context, await context.member(user_id), view)
    except FormNeeded as needed:
        blocks = {"reason": ids.WHY, "level": form_layouts.level_block_id(view)}
        return _errors(view, blocks.get(needed.missing, ids.DATABASE), f"{needed.missing} is missing")
    except AccessError as error:
        return _errors(view, _error_block_id(error, view), str(error))
    except Exception as error:  # noqa: BLE001 - the person must get a reply
        text = await report_unexpected(context, error, user_id, last_event=last_event)
        return _errors(view, ids.WHY, text)
    return {"response_action": "update", "view": _last_page(rendered)} if rendered else {}


def _error_block_id(error: AccessError, view: dict[str, Any]) -> str:
    if view.get("callback_id") == ids.DENY_FORM:
        return ids.WHY
    if isinstance(error, NotUnderstood):
        return ids.DURATION
    about = error.about if isinstance(error, Refused) else "what"
    return {"reason": ids.WHY, "duration": ids.DURATION, "ticket": ids.TICKET}.get(about, ids.DATABASE)


def _errors(view: dict[str, Any], block_id: str, text: str) -> dict[str, Any]:
    """An error at its field. A form without that field shows it at **Why**."""
    block_ids = {str(block.get("block_id")) for block in objects_part(view, "blocks")}
    known_id = block_id if block_id in block_ids else ids.WHY
    return {"response_action": "errors", "errors": {known_id: truncate(text, ERROR_MAX)}}


def _last_page(rendered: RenderedMessage) -> Block:
    return {
        "type": "modal",
        "callback_id": "asked",
        "title": plain("Asked", 24),
        "close": plain("Close", 24),
        "blocks": rendered.blocks[:1],
    }


def _late_text(arguments: dict[str, Any]) -> str:
    """The text of the DM that replaces a late acknowledgement with these arguments."""
    if "errors" in arguments:
        return truncate(escape(" ".join(arguments["errors"].values())), TEXT_MAX)
    return str(arguments["view"]["blocks"][0]["text"]["text"])
