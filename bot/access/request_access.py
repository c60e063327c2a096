"""Ask for access, and withdraw a waiting request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from bot.access import lockdown, log_events, membership
from bot.access.alerts import raise_alert
from bot.access.context import NO_DIRECTORY, Context
from bot.access.decide import approve_by_policy
from bot.access.descriptions import describe_obstacle
from bot.access.errors import Refused, TooLate, UnknownRequest
from bot.access.ports import DirectoryUnavailable, Person
from bot.access.recovery import refusal_in_recovery
from bot.access.use_case_types import FormNeeded, RequestInput, RequestOutcome
from bot.policy import evaluation, questions
from bot.policy.catalog import catalog_entries
from bot.policy.config import Config
from bot.policy.facts import Facts
from storage.commands import CancelRequest
from storage.errors import ConfigurationOlder, InRecovery, LimitReached, LockedDown, NoSuchRequest, NotPossible
from storage.records import Draft, Request, RequestKind, UsageCounts

SUBMIT_ATTEMPTS = 5
"""How often a request is evaluated again because another request used up a limit meanwhile."""


async def request_access(
    context: Context, person: Person, wanted: RequestInput, *, grant: Request | None = None
) -> RequestOutcome:
    """Evaluate the request by the policy in force and submit it. A request that needs no approval is approved at once.

    ``grant`` is the grant to be extended; None for access and break-glass. Raises Refused where the policy or a limit does
    not allow it, a lockdown matches or the ledger is in recovery mode, FormNeeded where something is missing, TooLate where the grant to be extended has just ended.
    """
    for _ in range(SUBMIT_ATTEMPTS):
        config = context.config_in_force()
        facts = await membership.facts_for_request(context, config, person, wanted.database)
        question = await _question(context, person, wanted, grant)
        answer = await _allowed(context, config, question, facts, person=person, wanted=wanted)
        draft = await _draft(context, person, wanted, answer, grant)
        try:
            request, is_new = await context.ledger.requests.submit(
                draft, is_allowed=_still_allowed(config, question, facts)
            )
        except LimitReached:
            continue
        except ConfigurationOlder:
            await context.check_configuration_is_newest()
            continue
        except LockedDown:
            refusal = await lockdown.refusal_of(context, draft)
            log_events.request_refused(person, str(refusal), database=wanted.database, level=wanted.level)
            raise refusal from None
        except InRecovery:
            refusal = await refusal_in_recovery(context)
            log_events.request_refused(person, str(refusal), database=wanted.database, level=wanted.level)
            raise refusal from None
        except NotPossible as error:
            raise TooLate(describe_obstacle(error)) from None
        return await _approve_without_approvers(context, RequestOutcome(request=request, is_new=is_new))
    raise Refused("Too many requests at the same time; please try again.")


def _still_allowed(config: Config, question: questions.PolicyQuestion, facts: Facts) -> Callable[[UsageCounts], bool]:
    """A check for the transaction that writes the request: still allowed, with the counts of that transaction."""
    return lambda tally: isinstance(
        evaluation.evaluate(config, question, replace(facts, usage=tally)), questions.Allowed
    )


async def _allowed(
    context: Context,
    config: Config,
    question: questions.PolicyQuestion,
    facts: Facts,
    *,
    person: Person,
    wanted: RequestInput,
) -> questions.Allowed:
    """The terms of the request. Raises FormNeeded where something is missing, Refused where the policy says no."""
    answer = evaluation.evaluate(config, question, facts)
    if isinstance(answer, questions.MissingPart):
        mine = catalog_entries(config, question.person_id, facts, question.kind)
        raise FormNeeded(wanted, mine, answer.part, grant=question.grant)
    if isinstance(answer, questions.NotAllowed):
        await context.check_configuration_is_newest()
        if answer.about == "people":
            await _alert_about_refusal(context, answer)
        log_events.request_refused(person, answer.reason, database=wanted.database, level=wanted.level)
        raise Refused(answer.reason, about=answer.about, whom=answer.whom)
    return answer


async def _alert_about_refusal(context: Context, refusal: questions.NotAllowed) -> None:
    """Raise an alert: a request was refused because of who is in a group. The monitor of the groups resolves it."""
    names = ", ".join(refusal.unknown)
    await raise_alert(
        context,
        None,
        f"A request was refused because of who is in {names}: {refusal.reason}",
        cause=f"refused:{names}",
        steps=("See in Slack who is in these groups; somebody other than the requester must be able to decide.",),
    )


async def _approve_without_approvers(context: Context, outcome: RequestOutcome) -> RequestOutcome:
    """Approve at once where the policy names no approvers. A break-glass request first waits until a reviewer is notified."""
    if outcome.request.terms.stages or outcome.request.kind is RequestKind.BREAK_GLASS:
        return outcome
    try:
        return replace(outcome, request=await approve_by_policy(context, outcome.request))
    except Refused as error:
        return replace(outcome, not_yet=str(error))  # raising it would say that nothing was stored


async def _question(
    context: Context, person: Person, wanted: RequestInput, grant: Request | None
) -> questions.PolicyQuestion:
    return questions.PolicyQuestion(
        person_id=person.id,
        database=wanted.database,
        level=wanted.level,
        duration=wanted.duration,
        reason=wanted.reason,
        kind=wanted.kind,
        at=await context.ledger.now(),
        grant=grant,
    )


async def _draft(
    context: Context, person: Person, wanted: RequestInput, answer: questions.Allowed, grant: Request | None
) -> Draft:
    assert wanted.database is not None, "evaluated as complete"
    return Draft(
        kind=wanted.kind,
        team_id=await _team_id(context),
        requester_id=person.id,
        requester_name=person.name,
        database=wanted.database,
        level=str(answer.terms.level["name"]),
        reason=(wanted.reason or "").strip(),
        terms=answer.terms,
        ticket=answer.ticket,
        parent_id=grant.id if grant else None,
    )


async def _team_id(context: Context) -> str:
    try:
        return await context.directory.team_id()
    except DirectoryUnavailable:
        raise Refused(NO_DIRECTORY) from None


async def cancel(context: Context, person: Person, request_id: int) -> Request:
    """Withdraw a pending request. Returns it CANCELLED.

    Raises UnknownRequest for everybody but the requester, and TooLate where it is decided.
    """
    try:
        request = await context.ledger.requests.get(request_id)
    except NoSuchRequest:
        raise UnknownRequest(f"#{request_id}") from None
    if request.requester_id != person.id:
        raise UnknownRequest(f"#{request_id}")
    try:
        return await context.ledger.requests.advance(request_id, CancelRequest(actor=person.id))
    except NotPossible as error:
        raise TooLate(describe_obstacle(error)) from None
