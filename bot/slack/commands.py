"""The slash command ``/dbaccess``: one Bolt listener, and one function for each verb."""

from __future__ import annotations

from dataclasses import replace

from slack_bolt.async_app import AsyncApp

from bot.access import extend, lockdown, queries, request_access, review, revoke
from bot.access.context import Context
from bot.access.errors import NotUnderstood
from bot.access.ports import Person
from bot.slack import parse
from bot.slack.interaction import Interaction, Listener, bolt_listener
from bot.slack.render import replies
from bot.slack.render.lockdowns import lockdown_reply, unlock_reply
from storage.records import RequestKind

COMMAND = "/dbaccess"


def register(app: AsyncApp, context: Context) -> None:
    """Add the command's listener to the app."""
    app.command(COMMAND)(bolt_listener(context, on_command))


async def on_command(interaction: Interaction, person: Person) -> None:
    """Call the function of the verb. Raises NotUnderstood for an unknown verb."""
    verb = parse.split_command(interaction.text).verb
    if verb in replies.PLANNED_COMMANDS:
        await interaction.reply(replies.text_reply(f"{verb} comes with a later version."))
    elif verb in VERBS:
        await VERBS[verb](interaction, person)
    else:
        raise NotUnderstood(verb, "Try /dbaccess help.")


def _arguments(interaction: Interaction) -> tuple[str, ...]:
    return parse.split_command(interaction.text).arguments


async def on_request(interaction: Interaction, person: Person) -> None:
    await _request(interaction, person, RequestKind.ACCESS)


async def on_breakglass(interaction: Interaction, person: Person) -> None:
    await _request(interaction, person, RequestKind.BREAK_GLASS)


async def _request(interaction: Interaction, person: Person, kind: RequestKind) -> None:
    context = interaction.context
    wanted = parse.parse_request(_arguments(interaction), lambda database: queries.levels(context, database))
    outcome = await request_access.request_access(context, person, replace(wanted, kind=kind))
    await interaction.reply(replies.request_reply(outcome))


async def on_extend(interaction: Interaction, person: Person) -> None:
    request_id, wanted = parse.parse_extension(_arguments(interaction))
    outcome = await extend.extend(interaction.context, person, request_id, wanted)
    await interaction.reply(replies.request_reply(outcome))


async def on_review(interaction: Interaction, person: Person) -> None:
    request_id = parse.parse_request_id(_arguments(interaction), "review")
    request = await queries.visible(interaction.context, person, request_id)
    request = await review.sign_off(interaction.context, person, request)
    await interaction.reply(replies.text_reply(f"#{request.id} is signed off."))


async def on_list(interaction: Interaction, person: Person) -> None:
    arguments = _arguments(interaction)
    other = parse.mentioned_person(arguments[0]) if arguments else None
    database = arguments[0] if arguments and other is None else None
    if database and database.startswith("@"):
        raise NotUnderstood(database, "Pick the person from the list that Slack shows while you type.")
    requests = await queries.listing(interaction.context, person, database=database, other=other)
    await interaction.reply(replies.list_reply(requests, person.id))


async def on_status(interaction: Interaction, person: Person) -> None:
    request_id = parse.parse_request_id(_arguments(interaction), "status")
    view = await queries.status(interaction.context, person, request_id)
    await interaction.reply(replies.status_reply(view, await interaction.context.ledger.now()))


async def on_cancel(interaction: Interaction, person: Person) -> None:
    request_id = parse.parse_request_id(_arguments(interaction), "cancel")
    request = await request_access.cancel(interaction.context, person, request_id)
    await interaction.reply(replies.text_reply(f"#{request.id} is withdrawn."))


async def on_done(interaction: Interaction, person: Person) -> None:
    request_id = parse.parse_request_id(_arguments(interaction), "done")
    await interaction.reply(replies.end_reply(await revoke.done(interaction.context, person, request_id)))


async def on_revoke(interaction: Interaction, person: Person) -> None:
    request_id = parse.parse_request_id(_arguments(interaction), "revoke")
    await interaction.reply(replies.end_reply(await revoke.revoke(interaction.context, person, request_id)))


async def on_lockdown(interaction: Interaction, person: Person) -> None:
    scope = parse.parse_lockdown(_arguments(interaction), "lockdown")
    await interaction.reply(lockdown_reply(await lockdown.lock_down(interaction.context, person, scope)))


async def on_unlock(interaction: Interaction, person: Person) -> None:
    scope = parse.parse_lockdown(_arguments(interaction), "unlock")
    await interaction.reply(unlock_reply(await lockdown.unlock(interaction.context, person, scope)))


async def on_databases(interaction: Interaction, person: Person) -> None:
    await interaction.reply(replies.databases_reply(await queries.databases(interaction.context, person)))


async def on_explain(interaction: Interaction, person: Person) -> None:
    wanted, other = parse.parse_explain(_arguments(interaction))
    answer = await queries.explain(interaction.context, person, wanted, other=other)
    await interaction.reply(replies.explain_reply(answer))


async def on_help(interaction: Interaction, _person: Person) -> None:
    arguments = _arguments(interaction)
    await interaction.reply(replies.help_reply(arguments[0] if arguments else None))


VERBS: dict[str, Listener] = {
    "request": on_request,
    "breakglass": on_breakglass,
    "extend": on_extend,
    "review": on_review,
    "list": on_list,
    "status": on_status,
    "cancel": on_cancel,
    "done": on_done,
    "revoke": on_revoke,
    "lockdown": on_lockdown,
    "unlock": on_unlock,
    "databases": on_databases,
    "explain": on_explain,
    "help": on_help,
}
