"""Forms that were submitted. Their errors must be in the ack, so they are judged first, within Slack's three seconds."""

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
from bot.slack.interaction import in_trouble, user_of
from bot.slack.render import form_layouts, replies
from bot.slack.render.blocks import Block, RenderedMessage
from bot.slack.render.text import TEXT_MAX, cut, escape, plain

ACK_SECONDS = 2.5
ERROR_MAX = 2000

Submitted: TypeAlias = Callable[[Context, Person, dict[str, Any]], Awaitable[RenderedMessage | None]]


def register(app: AsyncApp, context: Context) -> None:
    """Put the listeners on the app."""
    app.view(ids.REQUEST_FORM)(_evaluated(context, on_ask_form))
    app.view(ids.EXTEND_FORM)(_evaluated(context, on_extend_form))
    app.view(ids.DENY_FORM)(_evaluated(context, on_deny_form))


async def on_ask_form(context: Context, person: Person, view: dict[str, Any]) -> RenderedMessage | None:
    return replies.asked(await request_access.request_access(context, person, form_layouts.chosen(view)))


async def on_extend_form(context: Context, person: Person, view: dict[str, Any]) -> RenderedMessage | None:
    grant = await queries.by_token(context, form_layouts.grant_in(view))
    return replies.asked(await extend.extend(context, person, grant.id, form_layouts.chosen(view)))


async def on_deny_form(context: Context, person: Person, view: dict[str, Any]) -> RenderedMessage | None:
    request = await queries.by_token(context, str(view.get("private_metadata") or ""))
    await decide.deny(context, person, request, form_layouts.why(view))
    return None


def _evaluated(context: Context, submitted: Submitted) -> Callable[..., Awaitable[None]]:
    """Ack with the errors, with the answer as the form's last page, or empty to close it. What takes too long answers by DM."""

    async def interaction(ack: AsyncAck, body: dict[str, Any], view: dict[str, Any], client: AsyncWebClient) -> None:
        work = asyncio.ensure_future(_outcome(context, submitted, user_of(body), view))
        await asyncio.wait({work}, timeout=ACK_SECONDS)
        if work.done():
            await ack(**work.result())
            return
        await ack()
        late = await work
        if late:
            await client.chat_postMessage(
                channel=user_of(body), text=_words(late), unfurl_links=False, unfurl_media=False
            )

    return interaction


async def _outcome(context: Context, submitted: Submitted, user_id: str, view: dict[str, Any]) -> dict[str, Any]:
    """The arguments of the ack."""
    last = None
    try:
        last = await queries.last_event(context)
        shown = await submitted(context, await context.member(user_id), view)
    except FormNeeded as needed:
        return _error(
            view,
            {"reason": ids.WHY, "level": form_layouts.level_block_of(view)}.get(needed.missing, ids.DATABASE),
            f"{needed.missing} is missing",
        )
    except AccessError as no:
        return _error(view, _block_of(no, view), str(no))
    except Exception as unforeseen:  # noqa: BLE001 - the person must hear of it
        return _error(view, ids.WHY, await in_trouble(context, unforeseen, user_id, last=last))
    return {"response_action": "update", "view": _last_page(shown)} if shown else {}


def _block_of(no: AccessError, view: dict[str, Any]) -> str:
    if view.get("callback_id") == ids.DENY_FORM:
        return ids.WHY
    if isinstance(no, NotUnderstood):
        return ids.DURATION
    about = no.about if isinstance(no, Refused) else "what"
    return {"reason": ids.WHY, "duration": ids.DURATION, "ticket": ids.TICKET}.get(about, ids.DATABASE)


def _error(view: dict[str, Any], block_id: str, words: str) -> dict[str, Any]:
    known = {str(b.get("block_id")) for b in view.get("blocks", ())}
    place = block_id if block_id in known else ids.WHY
    return {"response_action": "errors", "errors": {place: cut(words, ERROR_MAX)}}


def _last_page(shown: RenderedMessage) -> Block:
    return {
        "type": "modal",
        "callback_id": "asked",
        "title": plain("Asked", 24),
        "close": plain("Close", 24),
        "blocks": shown.blocks[:1],
    }


def _words(late: dict[str, Any]) -> str:
    if "errors" in late:
        return cut(escape(" ".join(late["errors"].values())), TEXT_MAX)
    return str(late["view"]["blocks"][0]["text"]["text"])
