"""``/dbaccess``: one listener, a verb for each first word."""

from __future__ import annotations

from dataclasses import replace

from slack_bolt.async_app import AsyncApp

from bot.access import extend, queries, request_access, review, revoke
from bot.access.context import Context
from bot.access.errors import NotUnderstood
from bot.access.ports import Person
from bot.slack import answers, parse
from bot.slack.interaction import Interaction, Listener, guarded
from storage.records import Kind

COMMAND = "/dbaccess"


def register(app: AsyncApp, context: Context) -> None:
    """Put the command's listener on the app."""
    app.command(COMMAND)(guarded(context, on_command))


async def on_command(heard: Interaction, person: Person) -> None:
    """Find the verb. What comes later says so; what is unknown is answered with help."""
    typed = parse.words(heard.text)
    if typed.verb in answers.LATER:
        await heard.say(answers.said(f"{typed.verb} comes with a later version."))
    elif typed.verb in VERBS:
        await VERBS[typed.verb](heard, person)
    else:
        raise NotUnderstood(typed.verb, "Try /dbaccess help.")


async def on_request(heard: Interaction, person: Person) -> None:
    typed = parse.ask(parse.words(heard.text).rest, lambda database: queries.levels(heard.context, database))
    await heard.say(answers.asked(await request_access.request_access(heard.context, person, typed)))


async def on_breakglass(heard: Interaction, person: Person) -> None:
    typed = parse.ask(parse.words(heard.text).rest, lambda database: queries.levels(heard.context, database))
    await heard.say(
        answers.asked(await request_access.request_access(heard.context, person, replace(typed, kind=Kind.BREAK_GLASS)))
    )


async def on_extend(heard: Interaction, person: Person) -> None:
    request_id, typed = parse.extend(parse.words(heard.text).rest)
    await heard.say(answers.asked(await extend.extend(heard.context, person, request_id, typed)))


async def on_review(heard: Interaction, person: Person) -> None:
    request_id = parse.request_id(parse.words(heard.text).rest, "review")
    request = await review.sign_off(heard.context, person, await queries.visible(heard.context, person, request_id))
    await heard.say(answers.said(f"#{request.id} is signed off."))


async def on_list(heard: Interaction, person: Person) -> None:
    rest = parse.words(heard.text).rest
    other = parse.mentioned(rest[0]) if rest else None
    database = rest[0] if rest and other is None else None
    if database and database.startswith("@"):
        raise NotUnderstood(database, "Pick the person from the list that Slack shows while you type.")
    found = await queries.listing(heard.context, person, database=database, other=other)
    await heard.say(answers.listed(found, person.id))


async def on_status(heard: Interaction, person: Person) -> None:
    view = await queries.status(heard.context, person, parse.request_id(parse.words(heard.text).rest, "status"))
    await heard.say(answers.status(view, await heard.context.ledger.now()))


async def on_cancel(heard: Interaction, person: Person) -> None:
    request = await request_access.cancel(
        heard.context, person, parse.request_id(parse.words(heard.text).rest, "cancel")
    )
    await heard.say(answers.said(f"#{request.id} is withdrawn."))


async def on_done(heard: Interaction, person: Person) -> None:
    request = await revoke.done(heard.context, person, parse.request_id(parse.words(heard.text).rest, "done"))
    await heard.say(answers.ended(request))


async def on_revoke(heard: Interaction, person: Person) -> None:
    request = await revoke.revoke(heard.context, person, parse.request_id(parse.words(heard.text).rest, "revoke"))
    await heard.say(answers.ended(request))


async def on_databases(heard: Interaction, person: Person) -> None:
    await heard.say(answers.databases(await queries.databases(heard.context, person)))


async def on_explain(heard: Interaction, person: Person) -> None:
    typed, other = parse.explain(parse.words(heard.text).rest)
    await heard.say(answers.explanation(await queries.explain(heard.context, person, typed, other=other)))


async def on_help(heard: Interaction, _person: Person) -> None:
    rest = parse.words(heard.text).rest
    await heard.say(answers.help_for(rest[0] if rest else None))


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
