"""Recovery mode as people and jobs meet it: compare a server with the ledger, enter the mode, say what it means.

A server is compared before the first grant on it after a start: users that this ledger cannot explain show that it is not the newest. The
comparison may refuse or delay a grant. It never delays an end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import structlog

from adapters.base import ManagedUser, Target
from bot.access.alerts import draft_alert
from bot.access.context import Context
from bot.access.errors import Refused
from bot.access.ports import Person
from bot.access.targets import server_key
from bot.trial import FIRST_NUMBER
from storage.alerts import AlertDraft
from storage.commands import Command, FailGrant, OutdateRequest
from storage.records import State
from storage.recovery import CAUSE, MarkedUser, Recovery, RecoveryReason

NAMED_AT_MOST = 5
TOGETHER = 100
"""Requests that are closed in one transaction."""
ASK_AGAIN = "The ledger was restored or lost its newest part, and this may have been decided before. Please ask again."
STEPS = (
    "See what the servers have and the ledger does not know: dbaccess sweep",
    "If there is a newer copy of the ledger: stop the bot, then dbaccess store restore FILE",
    "End the users that the ledger does not know: dbaccess sweep --adopt",
    "Return to normal: dbaccess store resume",
)
RULES = "Nothing is granted. Grants that the ledger knows end as planned; users that it does not know are reported and not touched."

log = structlog.get_logger(__name__)


async def refusal_in_recovery(context: Context) -> Refused:
    """The refusal of a request or an approval in recovery mode."""
    current = await context.ledger.recovery.current()
    if current is None:
        return Refused("dbaccess returned from recovery mode a moment ago. Please try again.")
    return Refused(describe_recovery(current))


def describe_recovery(recovery: Recovery) -> str:
    """Says since when the ledger is in recovery mode, and how it ends."""
    since = f"{recovery.since:%Y-%m-%d %H:%M} UTC"
    return f"This ledger is in recovery mode since {since}: nothing is granted until an operator runs dbaccess store resume."


def recovery_alert(evidence: Sequence[str]) -> AlertDraft:
    """The alert of recovery mode. ``evidence`` has sentences without a full stop."""
    named, further = evidence[:NAMED_AT_MOST], len(evidence) - NAMED_AT_MOST
    why = "; ".join((*named, f"and {further} more") if further > 0 else named)
    return draft_alert(f"The ledger is in recovery mode: {why}.", cause=CAUSE, enforced=RULES, steps=STEPS)


# Evidence.


def marked_users(users: Iterable[ManagedUser], *, ledger: str) -> list[MarkedUser]:
    """The users whose mark names this ledger, without trials of ``doctor``."""
    return [
        MarkedUser(username=one.username, request_id=one.request_id)
        for one in users
        if one.ledger == ledger and one.request_id is not None and one.request_id < FIRST_NUMBER
    ]


async def note_comparison(context: Context, server: Target, users: Iterable[ManagedUser]) -> bool:
    """Compare the users that a server listed just now with the ledger. Returns whether the ledger explains them all.

    Otherwise the ledger is in recovery mode afterwards. A server whose users are explained counts as compared.
    """
    unknown = await context.ledger.recovery.unexplained(marked_users(users, ledger=context.ledger.id))
    if not unknown:
        context.compared.add(server_key(server))
        return True
    await enter_by_users(context, server, unknown)
    return False


async def close_waiting_requests(context: Context, person: Person) -> int:
    """Close what waited from before: it may have been decided, granted and ended in a newer state of the ledger. Returns how many there were.

    Nobody gets such a grant twice. A grant that was approved and not started is ended on its server too.
    """
    ledger = context.ledger
    approved = [
        one for one in await ledger.requests.live_grants() if one.state is State.APPROVED and not one.started_at
    ]
    fail = FailGrant(actor=person.id, note=ASK_AGAIN, text=ASK_AGAIN)
    outdate = OutdateRequest(actor=person.id, note=ASK_AGAIN, text=ASK_AGAIN)
    commands: list[tuple[int, Command]] = [(one.id, fail) for one in approved]
    commands += [(one.id, outdate) for one in await ledger.requests.pending()]
    for start in range(0, len(commands), TOGETHER):
        await ledger.requests.advance_many(commands[start : start + TOGETHER])
    return len(commands)


async def enter_by_users(context: Context, server: Target, unknown: Sequence[MarkedUser]) -> None:
    """Enter recovery mode: this ledger created these users of a server and does not know them."""
    evidence = [
        f"{one.username} on the server of {server.name} has the mark of this ledger, which did not start grant #{one.request_id}"
        for one in unknown
    ]
    number = max(one.request_id for one in unknown)
    await _enter(context, RecoveryReason.UNKNOWN_USER, evidence, number)


async def enter_by_click(context: Context, request_id: int) -> None:
    """Enter recovery mode: somebody clicked a card of a request that this ledger made and does not know."""
    evidence = [f"a card of #{request_id} was clicked, which this ledger made and does not know"]
    await _enter(context, RecoveryReason.UNKNOWN_REQUEST, evidence, request_id)


async def _enter(context: Context, reason: RecoveryReason, evidence: Sequence[str], number: int) -> None:
    if await context.ledger.recovery.enter(reason, evidence, recovery_alert(evidence), number=number):
        log.warning("recovery_mode", reason=reason.value, evidence=list(evidence[:NAMED_AT_MOST]), pieces=len(evidence))
