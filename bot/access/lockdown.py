"""Lock down: refuse new access at once and end all matching grants, until another admin lifts it.

The lockdown is committed first, so that nothing new is granted while the grants are ended. Who may lock down and unlock is settled by the
policy in force; a failed lookup is a no. The command line always may, because it controls the ledger already.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from contextlib import suppress

import structlog

from bot.access import log_events, membership
from bot.access.alerts import draft_alert
from bot.access.context import Context
from bot.access.descriptions import describe_lockdown, describe_scope, shorten, unlock_command
from bot.access.errors import Refused
from bot.access.ports import OPERATOR_PREFIX, DirectoryUnavailable, Person
from bot.access.use_case_types import LockdownOutcome, LockdownScope, UnlockOutcome
from bot.policy.facts import NO_FACTS
from storage.alerts import AlertDraft
from storage.errors import LedgerError
from storage.records import Draft, Lockdown

TOGETHER = 100
"""Grants whose end begins in one transaction."""

NAMED_MAX = 10
NAME_MAX = 100

log = structlog.get_logger(__name__)


async def lock_down(context: Context, person: Person, scope: LockdownScope) -> LockdownOutcome:
    """Put a lockdown in force and begin the end of every matching grant. Repeating one ends what is live again.

    Admins and operators may. Raises Refused for others, and for a database that does not exist.
    """
    await _authorize(context, person, "lockdown")
    await _check_exists(context, scope)
    lockdown, is_new = await context.ledger.lockdowns.lock_down(
        database=scope.database,
        person_id=scope.person_id,
        person_name=await _name_of(context, scope.person_id),
        by=person.id,
        by_name=person.name,
    )
    if is_new:
        log_events.lockdown_set(lockdown, person)
    ended = 0
    try:
        ended = await end_matching_grants(context, lockdown)
    except LedgerError:
        log.exception("lockdown_ends_delayed", lockdown=lockdown.id)  # its task ends them as soon as the ledger answers
    return LockdownOutcome(lockdown=lockdown, is_new=is_new, ended=ended)


async def end_matching_grants(context: Context, lockdown: Lockdown) -> int:
    """Begin the end of every matching grant whose end has not begun. Talks to the ledger only. Returns how many there were."""
    ended, after = 0, 0
    while True:
        chunk = await context.ledger.lockdowns.end_grants(lockdown.id, after=after, limit=TOGETHER)
        if chunk.last is None:
            return ended
        ended, after = ended + chunk.ended, chunk.last


async def unlock(context: Context, person: Person, scope: LockdownScope) -> UnlockOutcome:
    """Lift the lockdown of this database or person; without one, every lockdown that this person may lift.

    Admins and operators may, but neither the one who set it nor the one who is locked down. Raises Refused for others, and where there is
    nothing that they may lift.
    """
    await _authorize(context, person, "unlock")
    wanted = _wanted(await context.ledger.lockdowns.in_force(), scope)
    refusals = {one.id: reason for one in wanted if (reason := _refusal_to_lift(one, person))}
    if refusals and len(refusals) == len(wanted):
        await log_events.command_refused(context, person, "unlock")
        raise Refused(" ".join(list(refusals.values())[:NAMED_MAX]), whom=_admins_but(context, person.id))
    drafts = {one.id: _alert_about_lifting(one, person) for one in wanted if one.id not in refusals}
    lifted = await context.ledger.lockdowns.unlock(drafts, by=person.id, by_name=person.name)
    for one in lifted:
        log_events.lockdown_lifted(one, person)
    return UnlockOutcome(lifted=lifted, refused=tuple(one for one in wanted if one.id in refusals))


async def refusal_of(context: Context, request: Draft) -> Refused:
    """The refusal of a request or an approval that a lockdown matches: what is locked down, and who can lift it."""
    for one in await context.ledger.lockdowns.in_force():
        if one.covers(database=request.database, person_id=request.requester_id):
            return Refused(describe_lockdown(one), whom=_admins_but(context, one.locked_by))
    return Refused("A lockdown was lifted a moment ago. Please try again.")


# Who may.


async def _authorize(context: Context, person: Person, verb: str) -> None:
    """Raises Refused for everybody but admins and operators. An admin who is named by their id does not wait for Slack."""
    if person.is_operator:
        return
    context.files.refresh()
    config = context.files.config
    admins = config.policy.admins if config else ()
    if NO_FACTS.membership(admins, person.id) == "in":
        return
    facts = await membership.facts(context, config) if config else NO_FACTS
    found = facts.membership(admins, person.id)
    if found == "in":
        return
    await log_events.command_refused(context, person, verb)
    by_hand = f"The command line always can: dbaccess {verb}, on the machine of the bot."
    if found == "unknown":
        unknown = ", ".join(facts.unknown(admins))
        raise Refused(f"Slack did not say who is in {unknown}, so nothing was done. Please try again. {by_hand}")
    what = "lock down access" if verb == "lockdown" else "lift a lockdown"
    raise Refused(f"Only admins can {what}.", whom=tuple(admins[:NAMED_MAX]))


def _admins_but(context: Context, person_id: str) -> tuple[str, ...]:
    """The admins as the policy names them, without one person."""
    admins = context.files.config.policy.admins if context.files.config else ()
    return tuple(one for one in admins if one != person_id)[:NAMED_MAX]


def _refusal_to_lift(lockdown: Lockdown, person: Person) -> str | None:
    """Why this person may not lift this lockdown. None where they may."""
    if lockdown.locked_by == person.id:
        who = "You set" if not person.is_operator else f"{person.id} set"
        return f"{who} the lockdown of {describe_scope(lockdown)}. Another admin must lift it."
    if lockdown.person_id == person.id:
        return "You are locked down. Another admin must lift that."
    return None


# What.


async def _check_exists(context: Context, scope: LockdownScope) -> None:
    """Raises Refused for a database that is neither configured nor has a grant: a typing error must not look like a lockdown."""
    config, name = context.files.config, scope.database
    if name is None or config is None or name in config.databases:
        return
    if await context.ledger.requests.live_grants(database=name):
        return
    near = difflib.get_close_matches(name, sorted(config.databases), n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise Refused(f"There is no database {shorten(name, NAME_MAX)}, so nothing was locked down.{hint}")


async def _name_of(context: Context, person_id: str | None) -> str | None:
    """The name of a person as their requests have it, else as the directory has it. None where nobody knows it."""
    if person_id is None:
        return None
    for request in await context.ledger.requests.find(person_id=person_id, limit=1):
        return request.requester_name
    with suppress(DirectoryUnavailable):
        return (await context.directory.person(person_id)).name
    return None


def _wanted(in_force: Sequence[Lockdown], scope: LockdownScope) -> tuple[Lockdown, ...]:
    """The lockdowns of this scope, or all. Raises Refused where this database or person has none of its own."""
    if scope == LockdownScope():
        return tuple(in_force)
    same = tuple(one for one in in_force if (one.database, one.person_id) == (scope.database, scope.person_id))
    if same:
        return same
    for one in in_force:
        if one.covers(database=scope.database, person_id=scope.person_id):
            raise Refused(f"There is no lockdown of it alone: {describe_lockdown(one)}")
    raise Refused("That is not locked down.")


def _alert_about_lifting(lockdown: Lockdown, person: Person) -> AlertDraft | None:
    """The alert about a lockdown that was set in Slack and is lifted on the command line."""
    if not person.is_operator or lockdown.locked_by.startswith(OPERATOR_PREFIX):
        return None
    scope, by = describe_scope(lockdown), lockdown.locked_by_name or lockdown.locked_by
    return draft_alert(
        f"{person.id} lifted the lockdown of {scope} on the command line. @{by} had set it in Slack.",
        cause=f"lockdown:{lockdown.id}:lifted",
        steps=(f"If that is not right, set it again: {unlock_command(lockdown).replace('unlock', 'lockdown', 1)}",),
        is_event=True,
    )
