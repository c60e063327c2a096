"""Questions: list, status, databases, explain, and who may see the answers. Nothing here changes anything."""

from __future__ import annotations

import asyncio

from adapters.base import AdapterError
from bot.access import membership
from bot.access.context import Context
from bot.access.errors import OutOfDate, Refused, UnknownRequest
from bot.access.ports import Person
from bot.access.targets import target_of
from bot.access.use_case_types import RequestInput, StatusView
from bot.policy import asking, authorization, evaluation
from bot.policy.catalog import CatalogEntry, catalog_entries
from storage.audit_log import AuditKind
from storage.errors import LedgerError, NoSuchRequest
from storage.records import AuditEvent, Request, State

NUMBER_MAX = 18
POLICY = "policy"
"""The actor of what follows from the policy alone."""
ACTIVITY_WITHIN = 2.0
"""Seconds to wait for a server's count of sessions: an answer in Slack is not kept waiting for it."""


async def last_event(context: Context) -> int | None:
    """Where the record ends now; None where the ledger does not answer. For ``changes_since``."""
    try:
        return await context.ledger.last_event()
    except LedgerError:
        return None


async def changes_since(context: Context, person_id: str, last: int | None) -> tuple[AuditEvent, ...] | None:
    """What this person changed after the event ``last``, and what the policy changed, which may be part of it. None: nobody knows."""
    if last is None:
        return None
    try:
        events = await context.ledger.changed_by((person_id, POLICY), after=last)
    except Exception:  # noqa: BLE001 - asked in trouble: whatever goes wrong here too, nothing is certain
        return None
    return tuple(event for event in events if event.kind != AuditKind.CLICK_REFUSED)


async def by_token(context: Context, token: str) -> Request:
    """The request of a button's value ``42.<key>``. Raises OutOfDate for another or an older ledger's."""
    number, _, key = token.partition(".")
    if not (number.isascii() and number.isdigit() and len(number) <= NUMBER_MAX):
        raise OutOfDate
    try:
        request = await context.ledger.request(int(number))
    except NoSuchRequest:
        raise OutOfDate from None
    if request.key != key:
        raise OutOfDate
    return request


async def visible(context: Context, person: Person, request_id: int) -> Request:
    """The request, for its requester, those who decided or could, and admins. Raises Unknown for all others."""
    try:
        request = await context.ledger.request(request_id)
    except NoSuchRequest:
        raise UnknownRequest(f"#{request_id}") from None
    if person.is_operator or request.requester_id == person.id:
        return request
    decisions = await context.ledger.decisions(request_id)
    config = context.config_in_force()
    if not authorization.may_see(config, request, decisions, person.id, await membership.facts(context, config)):
        raise UnknownRequest(f"#{request_id}")
    return request


async def status(context: Context, person: Person, request_id: int) -> StatusView:
    """State, who decided, sessions seen. Raises Unknown."""
    request = await visible(context, person, request_id)
    return StatusView(
        request=request,
        decisions=await context.ledger.decisions(request_id),
        events=await context.ledger.history(request_id),
        sessions=await sessions(context, request),
    )


async def sessions(context: Context, request: Request) -> int | None:
    """How many sessions the user has now, or None where there is no answer within ``ACTIVITY_WITHIN``."""
    if request.state is not State.ACTIVE or request.username is None:
        return None
    username = request.username
    asked = context.engines.call(target_of(request), lambda adapter: adapter.activity([username]))
    try:
        seen = await asyncio.wait_for(asked, ACTIVITY_WITHIN)
    except (AdapterError, TimeoutError):
        return None
    return sum(a.sessions for a in seen if a.username == username)


async def listing(
    context: Context, person: Person, *, database: str | None = None, other: str | None = None
) -> tuple[Request, ...]:
    """Waiting requests and live grants: one's own, or of a database or a person, as far as they are this person's to see."""
    if database is None and other is None:
        other = person.id
    waiting = await context.ledger.pending_requests(person_id=other, database=database)
    live = await context.ledger.live_grants(person_id=other, database=database)
    found = [r for r in (*waiting, *live) if await _may_see(context, person, r)]
    return tuple(sorted(found, key=lambda r: r.id))


async def _may_see(context: Context, person: Person, request: Request) -> bool:
    try:
        await visible(context, person, request.id)
    except (UnknownRequest, Refused):
        return False
    return True


async def databases(context: Context, person: Person) -> tuple[CatalogEntry, ...]:
    """What this person may ask for by today's policy."""
    config = context.config_in_force()
    return catalog_entries(config, person.id, await membership.facts(context, config))


def levels(context: Context, database: str) -> tuple[str, ...]:
    """The names of a database's levels, whoever may have them; none where there is no such database."""
    entry = context.config_in_force().databases.get(database)
    return tuple(entry.levels) if entry else ()


async def explain(
    context: Context, person: Person, typed: RequestInput, *, other: str | None = None
) -> asking.Allowed | asking.Refused | asking.Missing:
    """Which rule answers, and why; nothing is requested. Others' answers are for approvers of that database and admins."""
    config, asker = context.config_in_force(), other or person.id
    now = await context.ledger.now()
    tally = await context.ledger.usage(asker, typed.database, now=now) if typed.database else None
    facts = await membership.facts(context, config, tally=tally)
    if asker != person.id and not authorization.may_ask_about_others(config, person.id, typed.database, facts):
        raise Refused("Only approvers of that database and admins can ask what others may have.")
    question = asking.PolicyQuestion(
        person_id=asker,
        database=typed.database,
        level=typed.level,
        duration=typed.duration,
        reason=typed.reason,
        kind=typed.kind,
        at=now,
        needs_reason=False,
    )
    return evaluation.may_ask(config, question, facts)
