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
from bot.access.errors import AccessError, Unknown
from bot.access.ports import Person
from bot.access.request_access import Typed
from bot.slack import answers, ids, modals
from bot.slack.credentials import shown_password
from bot.slack.interaction import Interaction, Listener, guarded
from storage.records import Request


def register(app: AsyncApp, context: Context) -> None:
    """Put the listeners on the app; the one for all others comes last."""
    for action, listener in CLICKS.items():
        app.action(action)(guarded(context, listener, is_recorded=action not in UNRECORDED))
    app.action(ids.DATABASE)(guarded(context, on_database_chosen))
    app.action(re.compile(".*"))(_other(context))


async def _clicked(heard: Interaction) -> Request:
    return await queries.by_token(heard.context, heard.value)


async def on_approve(heard: Interaction, person: Person) -> None:
    await decide.approve(heard.context, person, await _clicked(heard))


async def on_deny(heard: Interaction, person: Person) -> None:
    request = await _clicked(heard)
    await decide.may_deny(heard.context, person, request)
    await heard.open(modals.deny_form(request))


async def on_revoke(heard: Interaction, person: Person) -> None:
    await revoke.revoke(heard.context, person, (await _clicked(heard)).id)


async def on_done(heard: Interaction, person: Person) -> None:
    await heard.say(answers.ended(await revoke.done(heard.context, person, (await _clicked(heard)).id)))


async def on_extend(heard: Interaction, person: Person) -> None:
    grant = await extend.extendable(heard.context, person, (await _clicked(heard)).id)
    await heard.open(modals.extend_form(grant, await queries.databases(heard.context, person), Typed()))


async def on_sign_off(heard: Interaction, person: Person) -> None:
    request = await review.sign_off(heard.context, person, await _clicked(heard))
    await heard.say(answers.said(f"#{request.id} is signed off."))


async def on_cancel(heard: Interaction, person: Person) -> None:
    request = await request_access.cancel(heard.context, person, (await _clicked(heard)).id)
    await heard.say(answers.said(f"#{request.id} is withdrawn."))


async def on_new_password(heard: Interaction, person: Person) -> None:
    await password.renew(heard.context, person, await _clicked(heard))
    await heard.say(
        answers.said("A new password is on its way into this message. The old one ends; open sessions live on.")
    )


async def on_show_password(heard: Interaction, person: Person) -> None:
    """The form opens at once, since Slack does not wait for a database."""
    request = await password.revealable(heard.context, person, await _clicked(heard))
    view_id = await heard.open(modals.password_form(request))
    if view_id is None:
        return
    try:
        blocks = shown_password(await password.reveal(heard.context, person, request))
    except AccessError as no:
        blocks = answers.said(str(no)).blocks
    await heard.redraw(view_id, modals.password_form(request, blocks))


async def on_ask_again(heard: Interaction, person: Person) -> None:
    request = await _clicked(heard)
    if request.requester_id != person.id:
        raise Unknown(f"#{request.id}")
    typed = Typed(
        database=request.database, level=request.level, duration=request.terms.duration, reason=request.reason
    )
    offers = await queries.databases(heard.context, person)
    await heard.open(
        modals.ask_form(offers, typed) if offers else modals.nothing_form("There is nothing you may ask for.")
    )


async def on_database_chosen(heard: Interaction, person: Person) -> None:
    """The form follows its first field. Another change meanwhile (``hash``) wins."""
    view = heard.body.get("view") or {}
    offers = await queries.databases(heard.context, person)
    try:
        await heard.client.views_update(
            view_id=view["id"], hash=view.get("hash"), view=modals.ask_form(offers, modals.chosen(view))
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
            heard = Interaction(context=context, client=client, respond=respond, body=body)
            await heard.say(answers.said("This button is outdated."))

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
    ids.ASK_AGAIN: on_ask_again,
}
UNRECORDED = frozenset({ids.NEW_PASSWORD, ids.SHOW_PASSWORD})
"""A task alone, and a password that the server has before the ledger knows."""
