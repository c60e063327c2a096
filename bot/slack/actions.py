"""Clicks: each finds its request by the button's value, calls one verb, and answers where there is something to say."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

from slack_bolt.async_app import AsyncAck, AsyncApp, AsyncRespond
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from bot.access import decide, extend, password, queries, request_access, review, revoke
from bot.access.context import Context
from bot.access.errors import AccessError, UnknownRequest
from bot.access.ports import Person
from bot.access.use_case_types import RequestInput
from bot.slack import ids
from bot.slack.interaction import Interaction, Listener, guarded
from bot.slack.render import form_layouts, replies
from bot.slack.render.credentials import shown_password
from storage.records import Request


def register(app: AsyncApp, context: Context) -> None:
    """Put the listeners on the app; the one for all others comes last."""
    for action, listener in CLICKS.items():
        app.action(action)(guarded(context, listener, is_recorded=action not in UNRECORDED))
    app.action(ids.DATABASE)(guarded(context, on_database_chosen))
    app.action(re.compile(".*"))(_other(context))


async def _clicked(interaction: Interaction) -> Request:
    return await queries.by_token(interaction.context, interaction.value)


async def on_approve(interaction: Interaction, person: Person) -> None:
    await decide.approve(interaction.context, person, await _clicked(interaction))


async def on_deny(interaction: Interaction, person: Person) -> None:
    request = await _clicked(interaction)
    await decide.check_may_deny(interaction.context, person, request)
    await interaction.open(form_layouts.deny_form(request))


async def on_revoke(interaction: Interaction, person: Person) -> None:
    await revoke.revoke(interaction.context, person, (await _clicked(interaction)).id)


async def on_done(interaction: Interaction, person: Person) -> None:
    await interaction.say(
        replies.ended(await revoke.done(interaction.context, person, (await _clicked(interaction)).id))
    )


async def on_extend(interaction: Interaction, person: Person) -> None:
    grant = await extend.extendable(interaction.context, person, (await _clicked(interaction)).id)
    await interaction.open(
        form_layouts.extension_form(grant, await queries.databases(interaction.context, person), RequestInput())
    )


async def on_sign_off(interaction: Interaction, person: Person) -> None:
    request = await review.sign_off(interaction.context, person, await _clicked(interaction))
    await interaction.say(replies.said(f"#{request.id} is signed off."))


async def on_cancel(interaction: Interaction, person: Person) -> None:
    request = await request_access.cancel(interaction.context, person, (await _clicked(interaction)).id)
    await interaction.say(replies.said(f"#{request.id} is withdrawn."))


async def on_new_password(interaction: Interaction, person: Person) -> None:
    await password.renew(interaction.context, person, await _clicked(interaction))
    await interaction.say(
        replies.said("A new password is on its way into this message. The old one ends; open sessions live on.")
    )


async def on_show_password(interaction: Interaction, person: Person) -> None:
    """The form opens at once, since Slack does not wait for a database."""
    request = await password.revealable(interaction.context, person, await _clicked(interaction))
    view_id = await interaction.open(form_layouts.password_form(request))
    if view_id is None:
        return
    try:
        blocks = shown_password(await password.reveal(interaction.context, person, request))
    except AccessError as no:
        blocks = replies.said(str(no)).blocks
    await interaction.redraw(view_id, form_layouts.password_form(request, blocks))


async def on_ask_again(interaction: Interaction, person: Person) -> None:
    request = await _clicked(interaction)
    if request.requester_id != person.id:
        raise UnknownRequest(f"#{request.id}")
    typed = RequestInput(
        database=request.database, level=request.level, duration=request.terms.duration, reason=request.reason
    )
    catalog_entries = await queries.databases(interaction.context, person)
    await interaction.open(
        form_layouts.request_form(catalog_entries, typed)
        if catalog_entries
        else form_layouts.nothing_form("There is nothing you may ask for.")
    )


async def on_database_chosen(interaction: Interaction, person: Person) -> None:
    """The form follows its first field. Another change meanwhile (``hash``) wins."""
    view = interaction.body.get("view") or {}
    catalog_entries = await queries.databases(interaction.context, person)
    try:
        await interaction.client.views_update(
            view_id=view["id"],
            hash=view.get("hash"),
            view=form_layouts.request_form(catalog_entries, form_layouts.chosen(view)),
        )
    except SlackApiError as error:
        if error.response.get("error") not in ("hash_conflict", "not_found"):
            raise


def _other(context: Context) -> Callable[..., Awaitable[None]]:
    """A button nobody listens to any more; a field that changed needs no answer."""

    async def on_other(ack: AsyncAck, body: dict[str, Any], respond: AsyncRespond, client: AsyncWebClient) -> None:
        await ack()
        clicked = (body.get("actions") or [{}])[0]
        if clicked.get("type") == "button" and body.get("response_url"):
            interaction = Interaction(context=context, client=client, respond=respond, body=body)
            await interaction.say(replies.said("This button is outdated."))

    return on_other


CLICKS: dict[str, Listener] = {
    ids.APPROVE: on_approve,
    ids.DENY: on_deny,
    ids.REVOKE: on_revoke,
    ids.DONE: on_done,
    ids.EXTEND: on_extend,
    ids.SIGN_OFF: on_sign_off,
    ids.CANCEL: on_cancel,
    ids.NEW_PASSWORD: on_new_password,
    ids.SHOW_PASSWORD: on_show_password,
    ids.REQUEST_AGAIN: on_ask_again,
}
UNRECORDED = frozenset({ids.NEW_PASSWORD, ids.SHOW_PASSWORD})
"""A task alone, and a password that the server has before the ledger knows."""
