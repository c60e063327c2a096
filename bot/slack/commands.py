"""``/dbaccess``: one listener, a verb for each first word."""

from __future__ import annotations

from dataclasses import replace

from slack_bolt.async_app import AsyncApp

from bot.access import extend, queries, request_access, review, revoke
from bot.access.context import Context
from bot.access.errors import NotUnderstood
from bot.access.ports import Person
from bot.slack import parse
from bot.slack.interaction import Interaction, Listener, guarded
from bot.slack.render import replies
from storage.records import RequestKind

COMMAND = "/dbaccess"


def register(app: AsyncApp, context: Context) -> None:
    """Put the command's listener on the app."""
    app.command(COMMAND)(guarded(context, on_command))


async def on_command(interaction: Interaction, person: Person) -> None:
    """Find the verb. What comes later says so; what is unknown is answered with help."""
    typed = parse.split_command(interaction.text)
    if typed.verb in replies.PLANNED_COMMANDS:
        await interaction.say(replies.text_reply(f"{typed.verb} comes with a later version."))
    elif typed.verb in VERBS:
        await VERBS[typed.verb](interaction, person)
    else:
        raise NotUnderstood(typed.verb, "Try /dbaccess help.")


async def on_request(interaction: Interaction, person: Person) -> None:
    typed = parse.parse_request(
        parse.split_command(interaction.text).rest, lambda database: queries.levels(interaction.context, database)
    )
    await interaction.say(
        replies.request_reply(await request_access.request_access(interaction.context, person, typed))
    )


async def on_breakglass(interaction: Interaction, person: Person) -> None:
    typed = parse.parse_request(
        parse.split_command(interaction.text).rest, lambda database: queries.levels(interaction.context, database)
    )
    await interaction.say(
        replies.request_reply(
            await request_access.request_access(
                interaction.context, person, replace(typed, kind=RequestKind.BREAK_GLASS)
            )
        )
    )


async def on_extend(interaction: Interaction, person: Person) -> None:
    request_id, typed = parse.parse_extension(parse.split_command(interaction.text).rest)
    await interaction.say(replies.request_reply(await extend.extend(interaction.context, person, request_id, typed)))


async def on_review(interaction: Interaction, person: Person) -> None:
    request_id = parse.parse_request_id(parse.split_command(interaction.text).rest, "review")
    request = await review.sign_off(
        interaction.context, person, await queries.visible(interaction.context, person, request_id)
    )
    await interaction.say(replies.text_reply(f"#{request.id} is signed off."))


async def on_list(interaction: Interaction, person: Person) -> None:
    rest = parse.split_command(interaction.text).rest
    other = parse.mentioned_person(rest[0]) if rest else None
    database = rest[0] if rest and other is None else None
    if database and database.startswith("@"):
        raise NotUnderstood(database, "Pick the person from the list that Slack shows while you type.")
    found = await queries.listing(interaction.context, person, database=database, other=other)
    await interaction.say(replies.list_reply(found, person.id))


async def on_status(interaction: Interaction, person: Person) -> None:
    view = await queries.status(
        interaction.context, person, parse.parse_request_id(parse.split_command(interaction.text).rest, "status")
    )
    await interaction.say(replies.status_reply(view, await interaction.context.ledger.now()))


async def on_cancel(interaction: Interaction, person: Person) -> None:
    request = await request_access.cancel(
        interaction.context, person, parse.parse_request_id(parse.split_command(interaction.text).rest, "cancel")
    )
    await interaction.say(replies.text_reply(f"#{request.id} is withdrawn."))


async def on_done(interaction: Interaction, person: Person) -> None:
    request = await revoke.done(
        interaction.context, person, parse.parse_request_id(parse.split_command(interaction.text).rest, "done")
    )
    await interaction.say(replies.end_reply(request))


async def on_revoke(interaction: Interaction, person: Person) -> None:
    request = await revoke.revoke(
        interaction.context, person, parse.parse_request_id(parse.split_command(interaction.text).rest, "revoke")
    )
    await interaction.say(replies.end_reply(request))


async def on_databases(interaction: Interaction, person: Person) -> None:
    await interaction.say(replies.databases_reply(await queries.databases(interaction.context, person)))


async def on_explain(interaction: Interaction, person: Person) -> None:
    typed, other = parse.parse_explain(parse.split_command(interaction.text).rest)
    await interaction.say(replies.explain_reply(await queries.explain(interaction.context, person, typed, other=other)))


async def on_help(interaction: Interaction, _person: Person) -> None:
    rest = parse.split_command(interaction.text).rest
    await interaction.say(replies.help_reply(rest[0] if rest else None))


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
    "databases": on_databases,
    "explain": on_explain,
    "help": on_help,
}
