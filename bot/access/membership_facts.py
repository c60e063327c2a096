"""Look up the facts for a decision, and record what is wrong with them.

``gather`` reads the membership. It pins each handle to its group at first sight. It raises an alert where Slack gave no
answer, or where a handle means another group than before. ``bot.access.membership`` reads the same and writes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from bot.access import membership
from bot.access.alerts import raise_alert
from bot.access.context import Context
from bot.access.membership import NAME_MAX, Handle, pin_of
from bot.access.ports import Person
from bot.policy.config import Config
from bot.policy.facts import NO_FACTS, Facts
from bot.policy.model import EMAIL
from bot.policy.questions import NotAllowed
from storage.records import UsageCounts

ALERT_PAUSE = timedelta(hours=1)


async def gather(context: Context, config: Config, *, tally: UsageCounts | None = None) -> Facts:
    """The members of each group, and the owner of each address, that the policy names. A name without an answer stays unknown.

    ``tally`` counts what the requester and the database have already; None where limits do not matter.
    """
    found = await membership.read(context, config)
    for handle in found.handles:
        await _record_handle(context, handle)
    await _alert_about_unanswered(context, sorted(config.directory_names - found.members.keys()))
    return Facts(members=found.members, usage=tally)


async def gather_in_force(context: Context) -> Facts:
    """As ``gather``, with the policy in force. Without a policy in force nothing is known."""
    config = context.files.config
    return await gather(context, config) if config else NO_FACTS


async def gather_for_request(context: Context, config: Config, person: Person, database: str | None) -> Facts:
    """As ``gather``, with the counts of what this person and this database have already."""
    now = await context.ledger.now()
    tally = await context.ledger.usage(person.id, database, now=now) if database else None
    return await gather(context, config, tally=tally)


async def alert_about_refusal(context: Context, refusal: NotAllowed) -> None:
    """Raise an alert: a request was refused because of who is in a group."""
    names = ", ".join(refusal.unknown)
    await _alert_once(
        context,
        f"refused:{names}",
        f"A request was refused because of who is in {names}: {refusal.reason}",
        "See in Slack who is in these groups; somebody other than the requester must be able to decide.",
    )


async def _record_handle(context: Context, handle: Handle) -> None:
    """Pin the group of a handle at first sight. Raise an alert where the handle means another group now."""
    if handle.group is None or handle.first == handle.group:
        return
    if handle.first is None:
        await context.ledger.set_seen(pin_of(handle.name), handle.group, was=None)
        return
    await _alert_once(
        context,
        f"moved:{handle.name}",
        f"The handle {handle.name} now means the group {handle.group}; when the policy began to name it, it was {handle.first}. It counts as unknown.",
        f"Name the group by its id in policy.yml: {handle.first}, or {handle.group} if that is what you mean.",
    )


async def _alert_about_unanswered(context: Context, unanswered: Sequence[str]) -> None:
    """One alert for each group, and one for all addresses: there may be hundreds of them."""
    addresses = [name for name in unanswered if EMAIL.fullmatch(name)]
    for name in [name for name in unanswered if name not in addresses]:
        await _alert_once(
            context,
            f"silent:{name}",
            f"Slack does not say who is in {name}, which the policy names: nobody gets access, or decides, by it.",
            "See whether the group is there under this name, and by dbaccess doctor whether Slack answers.",
        )
    if addresses:
        more = f" and {len(addresses) - 1} more" if len(addresses) > 1 else ""
        await _alert_once(
            context,
            "silent:addresses",
            f"Slack does not say whose address {addresses[0]}{more} is: nobody gets access, or decides, by it.",
            "After a start this passes within minutes; else see by dbaccess doctor whether Slack answers.",
        )


async def _alert_once(context: Context, key: str, what: str, step: str) -> None:
    """Raise an alert, at most once an hour for the same ``key``."""
    key, now = f"alerted:{key}"[:NAME_MAX], await context.ledger.now()
    last = await context.ledger.cursor(key)
    if now.timestamp() - last >= ALERT_PAUSE.total_seconds():
        await context.ledger.set_cursor(key, int(now.timestamp()))
        await raise_alert(context, None, what, steps=(step,))
