"""Ask for access, and withdraw a waiting request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from bot.access import log_events, membership_facts
from bot.access.context import NO_DIRECTORY, Context
from bot.access.decide import approve_by_policy
from bot.access.descriptions import describe_obstacle
from bot.access.errors import Refused, TooLate, UnknownRequest
from bot.access.ports import DirectoryUnavailable, Person
from bot.access.use_case_types import FormNeeded, RequestInput, RequestOutcome
from bot.policy import asking, evaluation
from bot.policy.catalog import catalog_entries
from bot.policy.facts import Facts
from bot.policy.loader import Config
from storage.commands import CancelRequest
from storage.errors import LimitReached, NoSuchRequest, NotPossible
from storage.records import Draft, Request, RequestKind, UsageCounts

ROUNDS = 5
"""How often an ask is judged anew because others asked meanwhile."""


async def request_access(
    context: Context, person: Person, typed: RequestInput, *, grant: Request | None = None
) -> RequestOutcome:
    """Judge the ask by today's policy and put it on the record; what needs nobody's approval is approved at once.

    ``grant`` is what an extension is about. Raises Refused, FormNeeded, or TooLate where the grant has just ended.
    """
    for _ in range(ROUNDS):
        config = context.config_in_force()
        facts = await membership_facts.gather_about(context, config, person, typed.database)
        question = await _question(context, person, typed, grant)
        try:
            answer = await _allowed(context, config, question, facts, typed)
        except Refused as no:
            log_events.request_refused(person, str(no), database=typed.database, level=typed.level)
            raise
        try:
            request, is_new = await context.ledger.submit(
                await _draft(context, person, typed, answer, grant), is_allowed=_still(config, question, facts)
            )
        except LimitReached:
            continue
        except NotPossible as lost:
            raise TooLate(describe_obstacle(lost)) from None
        return await _granted_at_once(context, RequestOutcome(request=request, is_new=is_new))
    raise Refused("Too much is asked at once; please try again.")


def _still(config: Config, question: asking.PolicyQuestion, facts: Facts) -> Callable[[UsageCounts], bool]:
    """The answer with what the ledger counts in the very transaction that writes the ask."""
    return lambda tally: isinstance(evaluation.may_ask(config, question, replace(facts, tally=tally)), asking.Allowed)


async def _allowed(
    context: Context, config: Config, question: asking.PolicyQuestion, facts: Facts, typed: RequestInput
) -> asking.Allowed:
    answer = evaluation.may_ask(config, question, facts)
    if isinstance(answer, asking.Missing):
        mine = catalog_entries(config, question.person_id, facts, question.kind)
        raise FormNeeded(typed, mine, answer.what, grant=question.grant)
    if isinstance(answer, asking.Refused):
        if answer.about == "people":
            await membership_facts.report_refusal(context, answer)
        raise Refused(answer.reason, about=answer.about, whom=answer.whom)
    return answer


async def _granted_at_once(context: Context, asked: RequestOutcome) -> RequestOutcome:
    """Nobody is asked where the policy names nobody. Break-glass waits until somebody was told."""
    if asked.request.terms.stages or asked.request.kind is RequestKind.BREAK_GLASS:
        return asked
    try:
        return replace(asked, request=await approve_by_policy(context, asked.request))
    except Refused as no:
        return replace(asked, not_yet=str(no))  # a refusal would say that nothing was stored


async def _question(
    context: Context, person: Person, typed: RequestInput, grant: Request | None
) -> asking.PolicyQuestion:
    return asking.PolicyQuestion(
        person_id=person.id,
        database=typed.database,
        level=typed.level,
        duration=typed.duration,
        reason=typed.reason,
        kind=typed.kind,
        at=await context.ledger.now(),
        grant=grant,
    )


async def _draft(
    context: Context, person: Person, typed: RequestInput, answer: asking.Allowed, grant: Request | None
) -> Draft:
    assert typed.database is not None, "judged as complete"
    return Draft(
        kind=typed.kind,
        team_id=await _team(context),
        requester_id=person.id,
        requester_name=person.name,
        database=typed.database,
        level=str(answer.terms.level["name"]),
        reason=(typed.reason or "").strip(),
        terms=answer.terms,
        ticket=answer.ticket,
        parent_id=grant.id if grant else None,
    )


async def _team(context: Context) -> str:
    try:
        return await context.directory.team_id()
    except DirectoryUnavailable:
        raise Refused(NO_DIRECTORY) from None


async def cancel(context: Context, person: Person, request_id: int) -> Request:
    """The requester withdraws what nobody has decided. Raises Unknown for everybody else, TooLate where it was decided."""
    try:
        request = await context.ledger.request(request_id)
    except NoSuchRequest:
        raise UnknownRequest(f"#{request_id}") from None
    if request.requester_id != person.id:
        raise UnknownRequest(f"#{request_id}")
    try:
        return await context.ledger.advance(request_id, CancelRequest(actor=person.id))
    except NotPossible as lost:
        raise TooLate(describe_obstacle(lost)) from None
