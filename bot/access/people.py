"""People and groups as the directory has them now: the facts that judging is given."""

from __future__ import annotations

from bot.access.alerts import raise_alert
from bot.access.context import Context
from bot.access.ports import Person
from bot.policy.facts import Facts
from bot.policy.judge import Refused
from bot.policy.load import Config
from storage.records import Tally


async def facts(context: Context, config: Config, *, tally: Tally | None = None) -> Facts:
    """Who is in every group, and has every address, that the policy names. What gave no answer stays unknown."""
    return Facts(members=await context.directory.members(config.named), tally=tally)


async def facts_about(context: Context, config: Config, person: Person, database: str | None) -> Facts:
    """The same, with what this person and this database have already: for an ask."""
    now = await context.ledger.now()
    tally = await context.ledger.tally(person.id, database, now=now) if database else None
    return await facts(context, config, tally=tally)


async def trouble(context: Context, no: Refused) -> None:
    """Somebody was refused because groups are silent or empty: those who look after the policy are told."""
    await raise_alert(
        context,
        None,
        f"An ask was refused because of who is in {', '.join(no.unknown)}: {no.reason}",
        steps=("See who is in these groups in Slack, and by dbaccess doctor whether Slack answers.",),
    )
