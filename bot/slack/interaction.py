"""What every listener goes through: ack first, who is it, one verb, and an answer whatever happens."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import aiohttp
import structlog
from slack_bolt.async_app import AsyncAck, AsyncRespond
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.web.async_client import AsyncWebClient

from bot.access import queries
from bot.access.context import Context
from bot.access.errors import AccessError
from bot.access.ports import Person
from bot.access.use_case_types import FormNeeded
from bot.slack import ids, parse
from bot.slack.render import form_layouts, replies
from bot.slack.render.blocks import Block, RenderedMessage
from bot.slack.render.replies import said
from storage.errors import StoreUnavailable

HTTP_OK = 200
TOO_SLOW = frozenset(
    {"expired_trigger_id", "exchanged_trigger_id", "trigger_expired", "trigger_exchanged", "invalid_trigger_id"}
)

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Interaction:
    """A command or a click, and the ways to answer it. Answers are seen by the one person alone."""

    context: Context
    client: AsyncWebClient
    respond: AsyncRespond
    body: dict[str, Any]

    @property
    def text(self) -> str:
        """What stands after the command."""
        return str(self.body.get("text") or "")

    @property
    def value(self) -> str:
        """The clicked button's value."""
        return str(self.body["actions"][0].get("value") or "")

    @property
    def gives_back(self) -> bool:
        """The person ends their own grant, by the button or the command: that does not wait for what the directory says of them."""
        clicked = [action.get("action_id") for action in self.body.get("actions") or ()]
        return clicked == [ids.DONE] or (not clicked and parse.words(self.text).verb == "done")

    async def say(self, rendered: RenderedMessage) -> None:
        """Ephemeral; the message that was clicked stays. In a form, which has nowhere to answer, by DM.

        Never fails: what the verb did is done, and an answer that cannot be shown must not say otherwise.
        """
        try:
            await self._say(rendered)
        except (SlackClientError, aiohttp.ClientError, TimeoutError, OSError) as error:
            log.warning("an answer could not be shown", error=type(error).__name__)

    async def _say(self, rendered: RenderedMessage) -> None:
        if not self.respond.response_url:
            await self.client.chat_postMessage(
                channel=user_of(self.body),
                text=rendered.text,
                blocks=rendered.blocks,
                unfurl_links=False,
                unfurl_media=False,
            )
            return
        answer = await self.respond(
            text=rendered.text, blocks=rendered.blocks, response_type="ephemeral", replace_original=False
        )
        if answer.status_code != HTTP_OK:
            log.warning("an answer could not be shown", status=answer.status_code)

    async def open(self, view: Block) -> str | None:
        """A form; its id. Slack gives three seconds and one try."""
        try:
            opened = await self.client.views_open(trigger_id=str(self.body["trigger_id"]), view=view)
            return str(opened["view"]["id"])
        except SlackApiError as error:
            if error.response.get("error") not in TOO_SLOW:
                raise
            await self.say(said("Slack did not wait for the form. Please try again."))
            return None

    async def redraw(self, view_id: str, view: Block) -> None:
        """What an open form shows instead. One that was closed meanwhile is left alone."""
        try:
            await self.client.views_update(view_id=view_id, view=view)
        except SlackApiError as error:
            if error.response.get("error") != "not_found":
                raise


Listener: TypeAlias = Callable[[Interaction, Person], Awaitable[None]]
BoltListener: TypeAlias = Callable[..., Awaitable[None]]


def user_of(body: dict[str, Any]) -> str:
    """Who acts: commands and interactions name them differently."""
    return str(body.get("user_id") or (body.get("user") or {}).get("id") or "")


def guarded(context: Context, listener: Listener, *, is_recorded: bool = True) -> BoltListener:
    """The listener as Bolt wants it. ``is_recorded``: whatever it changes is an audit event of the person who acts."""

    async def interaction(ack: AsyncAck, body: dict[str, Any], client: AsyncWebClient, respond: AsyncRespond) -> None:
        await ack()
        call = Interaction(context=context, client=client, respond=respond, body=body)
        last = None
        try:
            last = await queries.last_event(context) if is_recorded else None
            await _answered(call, listener)
        except Exception as unforeseen:  # noqa: BLE001 - a person who clicked must hear of it
            await call.say(said(await in_trouble(context, unforeseen, user_of(body), last=last)))

    return interaction


async def _answered(call: Interaction, listener: Listener) -> None:
    find = call.context.member_for_own_end if call.gives_back else call.context.member
    try:
        await listener(call, await find(user_of(call.body)))
    except FormNeeded as needed:
        await call.open(form_layouts.form_for(needed))
    except AccessError as no:
        await call.say(replies.refused(no))


async def in_trouble(context: Context, unforeseen: Exception, user_id: str, *, last: int | None) -> str:
    """Log what was not foreseen under a reference, and give the words for the person.

    ``last``: the newest event of the record before the listener began; None where nobody knows, or where not everything
    that it changes is on the record. The words say only what the ledger shows afterwards.
    """
    number = secrets.token_hex(4).upper()
    reference = f"{number[:4]}-{number[4:]}"
    log.error("a listener failed", reference=reference, error=type(unforeseen).__name__, exc_info=unforeseen)
    changes = await queries.changes_since(context, user_id, last)
    is_sure = not isinstance(unforeseen, StoreUnavailable)  # what it was writing may be written, or may yet be
    return replies.in_trouble(reference, user_id, changes or (None if changes is None or not is_sure else ()))
