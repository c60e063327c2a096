"""Approve and deny: the click is judged by today's policy, with the people of today.

Facts are gathered before the transaction; the ledger then decides the race. Whoever was slower learns
what happened instead.
"""

from __future__ import annotations

from dataclasses import asdict

from adapters.base import make_username
from bot.access import journal, membership
from bot.access.context import Context
from bot.access.errors import AccessError, OutOfDate, Refused, TooLate
from bot.access.ports import Person
from bot.access.words import what_happened, why_not
from bot.databases import target
from bot.policy import authorization, questions
from storage.audit_log import AuditKind
from storage.errors import NotPossible
from storage.records import Cause, Decision, Json, Request, State, Verdict
from storage.transitions import Obstacle, Transition, TransitionInput

REASON_MAX = 1000
ROUNDS = 20
"""How often a vote is judged anew because another stage opened meanwhile."""


async def approve(context: Context, person: Person, request: Request) -> Request:
    """Count this person's approval. The request afterwards is PENDING (more are needed) or APPROVED.

    Raises Refused (not theirs to decide), TooLate (decided, lapsed, or outdated by a change of the policy).
    """
    for _ in range(ROUNDS):
        request = await context.ledger.request(request.id)
        stage = await _evaluated(context, person, request)
        change = TransitionInput(
            actor=person.id,
            decision=await _verdict(context, person, request, Verdict.APPROVE, stage),
            set=_grant(context, request),
            facts=_in_force(context),
        )
        try:
            return await context.ledger.advance(request.id, Transition.DECIDE, change)
        except NotPossible as lost:
            if lost.why is not Obstacle.STAGE_MOVED_ON:
                raise TooLate(why_not(lost)) from None
    raise TooLate(f"#{request.id} changes too fast; please click again.")


async def may_deny(context: Context, person: Person, request: Request) -> None:
    """Asked before the form of Deny is opened. Raises as ``deny`` would."""
    await _evaluated(context, person, await context.ledger.request(request.id), is_approval=False)


async def deny(context: Context, person: Person, request: Request, reason: str) -> Request:
    """Refuse the request, with a reason for the requester. Anyone who may approve may deny."""
    reason = reason.strip()
    if not reason or len(reason) > REASON_MAX:
        raise Refused(f"Say why, in 1 to {REASON_MAX} characters.")
    request = await context.ledger.request(request.id)
    stage = await _evaluated(context, person, request, is_approval=False)
    decision = await _verdict(context, person, request, Verdict.DENY, stage, reason=reason)
    change = TransitionInput(
        actor=person.id, decision=decision, cause=Cause.DENIED, words=reason, text=reason, facts=_in_force(context)
    )
    try:
        denied = await context.ledger.advance(request.id, Transition.DENY, change)
    except NotPossible as lost:
        raise TooLate(why_not(lost)) from None
    journal.denied(denied, person)
    return denied


async def _evaluated(context: Context, person: Person, request: Request, *, is_approval: bool = True) -> int:
    """The stage this person may decide now. Closes the request where the policy changed under it."""
    decisions = await context.ledger.decisions(request.id)
    if request.state is not State.PENDING:
        raise TooLate(what_happened(request, decisions))
    config = context.in_force()
    facts, grant = await membership.facts(context, config), await grant_of(context, request)
    now = await context.ledger.now()
    answer = authorization.may_decide(
        config, request, decisions, person.id, facts, at=now, grant=grant, is_approval=is_approval
    )
    if isinstance(answer, authorization.MayDecide):
        return answer.stage
    if isinstance(answer, authorization.Outdated):
        raise await _outdate(context, request, answer.what)
    await context.ledger.record(
        AuditKind.CLICK_REFUSED, actor=person.id, request_id=request.id, facts={"verb": "decide"}
    )
    journal.click_refused(person, "decide", request.id)
    raise Refused(answer.reason)


async def grant_of(context: Context, request: Request) -> Request | None:
    """The grant an extension is about; None for whatever is no extension."""
    return None if request.parent_id is None else await context.ledger.request(request.parent_id)


async def _outdate(context: Context, request: Request, what: str) -> AccessError:
    change = TransitionInput(actor="policy", cause=Cause.OUTDATED, words=what)
    try:
        request = await context.ledger.advance(request.id, Transition.OUTDATE, change)
    except NotPossible as lost:
        return TooLate(why_not(lost))
    return TooLate(what_happened(request, ()))


async def _verdict(
    context: Context, person: Person, request: Request, verdict: Verdict, stage: int, *, reason: str | None = None
) -> Decision:
    return Decision(
        request_id=request.id,
        person_id=person.id,
        person_name=person.name,
        verdict=verdict,
        stage=stage,
        at=await context.ledger.now(),
        reason=reason,
    )


def _in_force(context: Context) -> Json:
    """The digest of the policy that the click was judged by, beside that of the ask."""
    return {"policy_in_force": context.in_force().digest}


def _grant(context: Context, request: Request) -> Json:
    """What is frozen should this vote be the last one: the user's name and the whole way to its server."""
    entry = context.in_force().databases.get(request.database)
    if entry is None:
        raise OutOfDate
    found = target(request.database, entry, prefix=context.prefix, ledger=context.ledger.id)
    name = make_username(context.prefix, request_id=request.id, who=request.requester_name, key=request.key)
    return {"username": name, "target": asdict(found)}


# Where nobody is asked.


async def approve_alone(context: Context, request: Request) -> Request:
    """Approve what the policy asks nobody about: judged once more, by today's policy.

    Raises Refused and TooLate as a click would; where somebody was faster, what is true is the answer.
    """
    request = await context.ledger.request(request.id)
    if request.state is not State.PENDING or request.terms.stages:
        return request
    config, grant = context.in_force(), await grant_of(context, request)
    today = authorization.reevaluate(config, request, await membership.facts(context, config), grant=grant)
    if isinstance(today, authorization.Outdated):
        raise await _outdate(context, request, today.what)
    if isinstance(today, questions.NotAllowed):
        raise Refused(today.reason, about=today.about)
    try:
        return await context.ledger.advance(
            request.id,
            Transition.DECIDE,
            TransitionInput(actor="policy", set=_grant(context, request), facts=_in_force(context)),
        )
    except NotPossible as lost:
        if lost.why is Obstacle.STATE:
            return lost.request
        raise TooLate(why_not(lost)) from None
