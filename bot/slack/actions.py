"""Listeners for buttons. Each one finds the request from the button's value and calls one use case.

It replies only if the clicked message does not show the result itself.
"""

from __future__ import annotations

import re
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
from bot.slack.interaction import BoltListener, Interaction, Listener, bolt_listener
from bot.slack.payload import object_part, part, text_part
from bot.slack.render import form_layouts, replies
from bot.slack.render.credentials import password_blocks
from storage.records import Request

OUTDATED = "This button is outdated."


def register(app: AsyncApp, context: Context) -> None:
    """Add the listeners to the app. The listener for unknown actions must be the last one."""
    for action, listener in LISTENERS.items():
        app.action(action)(bolt_listener(context, listener, is_audited=action not in UNAUDITED))
    app.action(ids.DATABASE)(bolt_listener(context, on_database_chosen))
    app.action(re.compile(".*"))(_unknown_action_listener(context))


async def _clicked_request(interaction: Interaction) -> Request:
    return await queries.by_token(interaction.context, interaction.value)


async def on_approve(interaction: Interaction, person: Person) -> None:
    await decide.approve(interaction.context, person, await _clicked_request(interaction))


async def on_deny(interaction: Interaction, person: Person) -> None:
    request = await _clicked_request(interaction)
    await decide.check_may_deny(interaction.context, person, request)
    await interaction.open_form(form_layouts.deny_form(request))


async def on_revoke(interaction: Interaction, person: Person) -> None:
    await revoke.revoke(interaction.context, person, (await _clicked_request(interaction)).id)


async def on_done(interaction: Interaction, person: Person) -> None:
    request = await revoke.done(interaction.context, person, (await _clicked_request(interaction)).id)
    await interaction.reply(replies.end_reply(request))


async def on_extend(interaction: Interaction, person: Person) -> None:
    grant = await extend.extendable(interaction.context, person, (await _clicked_request(interaction)).id)
    catalog_entries = await queries.databases(interaction.context, person)
    await interaction.open_form(form_layouts.extension_form(grant, catalog_entries, RequestInput()))


async def on_sign_off(interaction: Interaction, person: Person) -> None:
    request = await review.sign_off(interaction.context, person, await _clicked_request(interaction))
    await interaction.reply(replies.text_reply(f"#{request.id} is signed off."))


async def on_cancel(interaction: Interaction, person: Person) -> None:
    request = await request_access.cancel(interaction.context, person, (await _clicked_request(interaction)).id)
    await interaction.reply(replies.text_reply(f"#{request.id} is withdrawn."))


async def on_new_password(interaction: Interaction, person: Person) -> None:
    await password.renew(interaction.context, person, await _clicked_request(interaction))
    await interaction.reply(
        replies.text_reply("A new password is on its way into this message. The old one ends; open sessions live on.")
    )


async def on_show_password(interaction: Interaction, person: Person) -> None:
    """Open the form at once and fill it later, because the trigger id expires before a slow database answers."""
    request = await password.revealable(interaction.context, person, await _clicked_request(interaction))
    view_id = await interaction.open_form(form_layouts.password_form(request))
    if view_id is None:
        return
    try:
        blocks = password_blocks(await password.reveal(interaction.context, person, request))
    except AccessError as error:
        blocks = replies.text_reply(str(error)).blocks
    await interaction.update_form(view_id, form_layouts.password_form(request, blocks))


async def on_request_again(interaction: Interaction, person: Person) -> None:
    """Open the request form with the values of an earlier request of the same person."""
    request = await _clicked_request(interaction)
    if request.requester_id != person.id:
        raise UnknownRequest(f"#{request.id}")
    wanted = RequestInput(
        database=request.database, level=request.level, duration=request.terms.duration, reason=request.reason
    )
    catalog_entries = await queries.databases(interaction.context, person)
    await interaction.open_form(
        form_layouts.request_form(catalog_entries, wanted)
        if catalog_entries
        else form_layouts.message_form("There is nothing you may ask for.")
    )


async def on_database_chosen(interaction: Interaction, person: Person) -> None:
    """Update levels and durations to the chosen database. ``hash`` lets a newer change of the same form win."""
    view = object_part(interaction.body, "view")
    if (view_id := text_part(view, "id")) is None:
        await interaction.reply(replies.text_reply(OUTDATED))
        return
    catalog_entries = await queries.databases(interaction.context, person)
    try:
        await interaction.client.views_update(
            view_id=view_id,
            hash=text_part(view, "hash"),
            view=form_layouts.request_form(catalog_entries, form_layouts.submitted(view)),
        )
    except SlackApiError as error:
        if error.response.get("error") not in ("hash_conflict", "not_found"):
            raise


def _unknown_action_listener(context: Context) -> BoltListener:
    """Build the listener for buttons of older versions. A changed form field arrives here too and needs no reply."""

    async def on_unknown_action(
        ack: AsyncAck, body: dict[str, Any], respond: AsyncRespond, client: AsyncWebClient
    ) -> None:
        await ack()
        if part(body, "actions", 0, "type") == "button" and body.get("response_url"):
            interaction = Interaction(context=context, client=client, respond=respond, body=body)
            await interaction.reply(replies.text_reply(OUTDATED))

    return on_unknown_action


LISTENERS: dict[str, Listener] = {
    ids.APPROVE: on_approve,
    ids.DENY: on_deny,
    ids.REVOKE: on_revoke,
    ids.DONE: on_done,
    ids.EXTEND: on_extend,
    ids.SIGN_OFF: on_sign_off,
    ids.CANCEL: on_cancel,
    ids.NEW_PASSWORD: on_new_password,
    ids.SHOW_PASSWORD: on_show_password,
    ids.REQUEST_AGAIN: on_request_again,
}
UNAUDITED = frozenset({ids.NEW_PASSWORD, ids.SHOW_PASSWORD})
"""Clicks whose change may have no audit event: **New password** adds only a task, and **Show password** changes the server before the ledger."""
