"""The read-only use cases: list, status, databases, explain, and who may see their answers. They change nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from adapters.base import AdapterError
from bot.access import membership
from bot.access.context import Context
from bot.access.errors import LostRequest, OutOfDate, Refused, UnknownRequest
from bot.access.ports import Person
from bot.access.recovery import enter_by_click
from bot.access.targets import target_of
from bot.access.use_case_types import RequestInput, StatusView
from bot.policy import authorization, evaluation, questions
from bot.policy.catalog import CatalogEntry, catalog_entries
from storage.audit_kinds import AuditKind
from storage.errors import LedgerError, NoSuchRequest
from storage.records import AuditEvent, Decision, Request, State, TaskKind

REQUEST_ID_MAX_DIGITS = 18
POLICY = "policy"
"""The actor of audit events that follow from the policy alone."""
ACTIVITY_TIMEOUT_SECONDS = 2.0
"""How long to wait for a server's count of sessions. The answer in Slack comes without it after that."""


async def last_event(context: Context) -> int | None:
    """The number of the newest audit event, for ``changes_since``. None where the ledger does not answer."""
    try:
        return await context.ledger.audit.last_event()
    except LedgerError:
        return None


async def changes_since(context: Context, person_id: str, last: int | None) -> tuple[AuditEvent, ...] | None:
    """The changes of this person, and those of the policy, after the event ``last``. None where that is not known."""
    if last is None:
        return None
    try:
        events = await context.ledger.audit.events_by((person_id, POLICY), after=last)
    except Exception:  # noqa: BLE001 - called after another failure: any further error means that the changes are not known
        return None
    return tuple(event for event in events if event.kind != AuditKind.CLICK_REFUSED)


async def by_token(context: Context, token: str) -> Request:
    """The request of a button, whose value is ``42.<key>``. Raises OutOfDate where this ledger has no request with that id and key.

    A key that this ledger made, but does not have, shows that it is not the newest: it is in recovery mode afterwards. Raises LostRequest then.
    """
    number, _, key = token.partition(".")
    if not (number.isascii() and number.isdigit() and len(number) <= REQUEST_ID_MAX_DIGITS):
        raise OutOfDate
    with suppress(NoSuchRequest):
        request = await context.ledger.requests.get(int(number))
        if request.key == key:
            return request
    if await context.ledger.recovery.is_lost_request(int(number), key, ledger=context.ledger.id):
        await enter_by_click(context, int(number))
        raise LostRequest(int(number))
    raise OutOfDate


async def visible(context: Context, person: Person, request_id: int) -> Request:
    """The request, for its requester, for people who decided or could decide it, and for admins. Raises UnknownRequest for all others."""
    return (await _visible_with_decisions(context, person, request_id))[0]


async def _visible_with_decisions(
    context: Context, person: Person, request_id: int
) -> tuple[Request, tuple[Decision, ...]]:
    try:
        request, decisions = await context.ledger.requests.with_decisions(request_id)
    except NoSuchRequest:
        raise UnknownRequest(f"#{request_id}") from None
    if person.is_operator or request.requester_id == person.id:
        return request, decisions
    config = context.config_in_force()
    if not authorization.may_see(config, request, decisions, person.id, await membership.facts(context, config)):
        raise UnknownRequest(f"#{request_id}")
    return request, decisions


async def status(context: Context, person: Person, request_id: int) -> StatusView:
    """The request with its decisions, audit events and open sessions. Raises UnknownRequest."""
    request, decisions = await _visible_with_decisions(context, person, request_id)
    return StatusView(
        request=request,
        decisions=decisions,
        events=await context.ledger.audit.history(request_id),
        sessions=await sessions(context, request),
        trouble=await end_trouble(context, request),
    )


async def end_trouble(context: Context, request: Request) -> str | None:
    """The error of the last try to end a grant. None for a grant that is not ending, or whose end was not tried yet."""
    if request.state is not State.REVOKING:
        return None
    tasks = await context.ledger.tasks.all(request_id=request.id)
    return next((task.last_error for task in tasks if task.kind is TaskKind.REVOKE), None)


async def sessions(context: Context, request: Request) -> int | None:
    """The number of sessions that the user has now. None where the server does not answer within ``ACTIVITY_TIMEOUT_SECONDS``."""
    if request.state is not State.ACTIVE or request.username is None:
        return None
    username = request.username
    call = context.engines.call(target_of(request), lambda adapter: adapter.activity([username]))
    try:
        seen = await asyncio.wait_for(call, ACTIVITY_TIMEOUT_SECONDS)
    except (AdapterError, TimeoutError):
        return None
    return sum(a.sessions for a in seen if a.username == username)


async def listing(
    context: Context, person: Person, *, database: str | None = None, other: str | None = None
) -> tuple[Request, ...]:
    """Pending requests and live grants that this person may see, by id.

    They are those of the person ``other`` and of the ``database``; without both, the person's own.
    """
    if database is None and other is None:
        other = person.id
    waiting = await context.ledger.requests.pending(person_id=other, database=database)
    live = await context.ledger.requests.live_grants(person_id=other, database=database)
    found = sorted((*waiting, *live), key=lambda request: request.id)
    return tuple(await _visible_of(context, person, found))


async def _visible_of(context: Context, person: Person, requests: Sequence[Request]) -> list[Request]:
    """Those of the requests that this person may see (``visible``). Memberships and decisions are read once for all of them."""
    if all(person.is_operator or request.requester_id == person.id for request in requests):
        return list(requests)
    config = context.config_in_force()
    facts = await membership.facts(context, config)
    decisions = await context.ledger.requests.decisions_of([request.id for request in requests])
    return [
        request
        for request in requests
        if person.is_operator
        or request.requester_id == person.id
        or authorization.may_see(config, request, decisions.get(request.id, ()), person.id, facts)
    ]


async def databases(context: Context, person: Person) -> tuple[CatalogEntry, ...]:
    """The databases and levels that this person may request by the policy in force."""
    config = context.config_in_force()
    return catalog_entries(config, person.id, await membership.facts(context, config))


def levels(context: Context, database: str) -> tuple[str, ...]:
    """The names of all access levels of a database. Empty where the database is not configured."""
    entry = context.config_in_force().databases.get(database)
    return tuple(entry.levels) if entry else ()


async def explain(
    context: Context, person: Person, wanted: RequestInput, *, other: str | None = None
) -> questions.Allowed | questions.NotAllowed | questions.MissingPart:
    """The rule that answers this request of ``person`` (or of ``other``), and why. Nothing is requested.

    Raises Refused where the person asks for ``other`` and is neither an approver of that database nor an admin.
    """
    config, requester_id = context.config_in_force(), other or person.id
    now = await context.ledger.now()
    tally = await context.ledger.requests.usage(requester_id, wanted.database, now=now) if wanted.database else None
    facts = await membership.facts(context, config, tally=tally)
    if requester_id != person.id and not authorization.may_see_others(config, person.id, wanted.database, facts):
        raise Refused("Only approvers of that database and admins can ask what others may have.")
    question = questions.PolicyQuestion(
        person_id=requester_id,
        database=wanted.database,
        level=wanted.level,
        duration=wanted.duration,
        reason=wanted.reason,
        kind=wanted.kind,
        at=now,
        needs_reason=False,
    )
    return evaluation.evaluate(config, question, facts)
