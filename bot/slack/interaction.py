"""The common path of all commands and clicks: acknowledge first, identify the person, call one use case, reply.

The person always gets a reply, also after an error that nobody expected.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeAlias
from weakref import WeakValueDictionary

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
from bot.slack.payload import objects_part, text_part, typed_part
from bot.slack.render import form_layouts, replies
from bot.slack.render.blocks import Block, RenderedMessage
from bot.slack.render.replies import text_reply
from storage.errors import LedgerUnavailable

HTTP_OK = 200
EXPIRED_TRIGGER_CODES = frozenset(
    {"expired_trigger_id", "exchanged_trigger_id", "trigger_expired", "trigger_exchanged", "invalid_trigger_id"}
)

ENDING = frozenset({ids.DONE, ids.REVOKE, "lockdown"})
"""Buttons and words of commands that end access."""

AT_ONCE = 4
"""Commands and clicks of one person that are carried out at a time; the others wait. A flood of them does not fill the ledger's queue."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Interaction:
    """One command or click, with the ways to reply to it. Only the person who acted sees the replies."""

    context: Context
    client: AsyncWebClient
    respond: AsyncRespond
    body: dict[str, Any]

    @property
    def text(self) -> str:
        """The text after the slash command."""
        return typed_part(self.body, "text") or ""

    @property
    def value(self) -> str:
        """The value of the clicked button."""
        return text_part(self.body, "actions", 0, "value") or ""

    @property
    def ends_access(self) -> bool:
        """The command or click ends access: the person's own, that of another, or that of all."""
        clicked = [str(action.get("action_id")) for action in objects_part(self.body, "actions")]
        return not ENDING.isdisjoint(clicked or self.text.lower().split(maxsplit=1)[:1])

    @property
    def is_giving_back(self) -> bool:
        """The person ends their own grant, by button or command. This must work also while the directory gives no answer."""
        clicked = [action.get("action_id") for action in objects_part(self.body, "actions")]
        return clicked == [ids.DONE] or (not clicked and parse.split_command(self.text).verb == "done")

    async def reply(self, rendered: RenderedMessage) -> None:
        """Reply ephemerally and leave the clicked message as it is. A click inside a form has no response URL and is answered by DM.

        Never raises: the use case is done by now, and a lost reply must not look like a failed use case.
        """
        try:
            await self._reply(rendered)
        except (SlackClientError, aiohttp.ClientError, TimeoutError, OSError) as error:
            log.warning("reply_failed", error=type(error).__name__)

    async def _reply(self, rendered: RenderedMessage) -> None:
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
            log.warning("reply_failed", status=answer.status_code)

    async def open_form(self, view: Block) -> str | None:
        """Open a form and return its view id, or None if it came too late. A trigger id works once and for three seconds."""
        try:
            opened = await self.client.views_open(trigger_id=text_part(self.body, "trigger_id") or "", view=view)
            return str(opened["view"]["id"])
        except SlackApiError as error:
            if error.response.get("error") not in EXPIRED_TRIGGER_CODES:
                raise
            await self.reply(text_reply("Slack did not wait for the form. Please try again."))
            return None

    async def update_form(self, view_id: str, view: Block) -> None:
        """Replace the content of an open form. A form that was closed in the meantime is ignored."""
        try:
            await self.client.views_update(view_id=view_id, view=view)
        except SlackApiError as error:
            if error.response.get("error") != "not_found":
                raise


class PlacesOfPeople:
    """The places in which the commands and clicks of each person are carried out. Those that end access wait only for each other."""

    def __init__(self) -> None:
        self._places: WeakValueDictionary[tuple[str, bool], asyncio.Semaphore] = WeakValueDictionary()

    def of(self, person_id: str, *, ends_access: bool) -> asyncio.Semaphore:
        """The places of this person, kept while they are used."""
        return self._places.setdefault((person_id, ends_access), asyncio.Semaphore(AT_ONCE))


PLACES = PlacesOfPeople()

Listener: TypeAlias = Callable[[Interaction, Person], Awaitable[None]]
BoltListener: TypeAlias = Callable[..., Awaitable[None]]


def user_of(body: dict[str, Any]) -> str:
    """Return the id of the person who acts. Commands and interactions have it in different places."""
    return text_part(body, "user_id") or text_part(body, "user", "id") or ""


def bolt_listener(context: Context, listener: Listener, *, is_audited: bool = True) -> BoltListener:
    """Wrap a listener for Bolt. ``is_audited``: every change that it makes is an audit event of the person who acts."""

    async def on_interaction(
        ack: AsyncAck, body: dict[str, Any], client: AsyncWebClient, respond: AsyncRespond
    ) -> None:
        await ack()
        interaction = Interaction(context=context, client=client, respond=respond, body=body)
        async with PLACES.of(user_of(body), ends_access=interaction.ends_access):
            await carry_out(interaction)

    async def carry_out(interaction: Interaction) -> None:
        last_event = None
        try:
            last_event = await queries.last_event(context) if is_audited else None
            await _run(interaction, listener)
        except Exception as error:  # noqa: BLE001 - the person must get a reply
            text = await report_unexpected(context, error, user_of(interaction.body), last_event=last_event)
            await interaction.reply(text_reply(text))

    return on_interaction


async def _run(interaction: Interaction, listener: Listener) -> None:
    find = interaction.context.member_for_own_end if interaction.is_giving_back else interaction.context.member
    try:
        await listener(interaction, await find(user_of(interaction.body)))
    except FormNeeded as needed:
        await interaction.open_form(form_layouts.form_for(needed))
    except AccessError as error:
        await interaction.reply(replies.refusal(error))


async def report_unexpected(context: Context, error: Exception, user_id: str, *, last_event: int | None) -> str:
    """Log an unexpected error under a reference, and return the text for the person.

    ``last_event`` is the id of the newest audit event before the listener began. It is None if that is unknown, or if the
    listener makes changes without an audit event. The text says only what the ledger shows after the error.
    """
    number = secrets.token_hex(4).upper()
    reference = f"{number[:4]}-{number[4:]}"
    log.error("listener_failed", reference=reference, error=type(error).__name__, exc_info=error)
    changes = await queries.changes_since(context, user_id, last_event)
    is_certain = not isinstance(error, LedgerUnavailable)  # an unfinished write may still be committed
    if not changes and not is_certain:
        changes = None
    return replies.unexpected_error_text(reference, user_id, changes)
