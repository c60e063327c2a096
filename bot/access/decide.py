"""Approve and deny: the click is judged by today's policy, with the people of today.

Facts are gathered before the transaction; the ledger then decides the race. Whoever was slower learns
what happened instead.
"""

from __future__ import annotations

from dataclasses import asdict

from adapters.base import make_username
from bot.access import log_events, membership_facts
from bot.access.context import Context
from bot.access.descriptions import describe_obstacle, describe_state
from bot.access.errors import AccessError, OutOfDate, Refused, TooLate
from bot.access.ports import Person
from bot.databases import target
from bot.policy import asking, authorization
from storage.audit_log import AuditKind
from storage.commands import ApplyExtension, ApproveRequest, ApproveStage, DenyRequest, OutdateRequest
from storage.errors import NotPossible
from storage.records import Decision, Json, Request, RequestKind, State, Verdict
from storage.transitions import Obstacle, open_stage

REASON_MAX = 1000
ROUNDS = 20
"""How often an approval is authorized again because other approvals came in between."""

STAGES_CHANGED = frozenset({Obstacle.STAGE_MOVED_ON, Obstacle.STAGES_OPEN, Obstacle.STAGES_COMPLETE})


async def approve(context: Context, person: Person, request: Request) -> Request:
    """Count this person's approval. The request afterwards is PENDING (more are needed) or APPROVED.

    Raises Refused (not theirs to decide), TooLate (decided, lapsed, or outdated by a change of the policy).
    """
    for _ in range(ROUNDS):
        request = await context.ledger.request(request.id)
        stage = await _evaluated(context, person, request)
        decision = await _decision(context, person, request, Verdict.APPROVE, stage)
        command = _approval(context, request, await context.ledger.decisions(request.id), decision)
        try:
            return await context.ledger.advance(request.id, command)
        except NotPossible as lost:
            if lost.obstacle not in STAGES_CHANGED:
                raise TooLate(describe_obstacle(lost)) from None
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
    decision = await _decision(context, person, request, Verdict.DENY, stage, reason=reason)
    command = DenyRequest(actor=person.id, decision=decision, note=reason, text=reason, facts=_policy_in_force(context))
    try:
        denied = await context.ledger.advance(request.id, command)
    except NotPossible as lost:
        raise TooLate(describe_obstacle(lost)) from None
    log_events.request_denied(denied, person)
    return denied


async def _evaluated(context: Context, person: Person, request: Request, *, is_approval: bool = True) -> int:
    """The stage this person may decide now. Closes the request where the policy changed under it."""
    decisions = await context.ledger.decisions(request.id)
    if request.state is not State.PENDING:
        raise TooLate(describe_state(request, decisions))
    config = context.config_in_force()
    facts, grant = await membership_facts.gather(context, config), await extended_grant(context, request)
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
    log_events.click_refused(person, "decide", request.id)
    raise Refused(answer.reason)


async def extended_grant(context: Context, request: Request) -> Request | None:
    """The grant an extension is about; None for whatever is no extension."""
    return None if request.parent_id is None else await context.ledger.request(request.parent_id)


async def _outdate(context: Context, request: Request, what: str) -> AccessError:
    try:
        request = await context.ledger.advance(request.id, OutdateRequest(actor="policy", note=what))
    except NotPossible as lost:
        return TooLate(describe_obstacle(lost))
    return TooLate(describe_state(request, ()))


async def _decision(
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


def _policy_in_force(context: Context) -> Json:
    """The digest of the policy that the click was judged by, beside that of the ask."""
    return {"policy_in_force": context.config_in_force().digest}


def _approval(
    context: Context, request: Request, made: tuple[Decision, ...], decision: Decision
) -> ApproveStage | ApproveRequest | ApplyExtension:
    """The command of this approval: the last one that is needed, or one of several."""
    last = _last_approval(context, request, decision)
    if open_stage(request, (*made, decision)) is None:
        return last
    return ApproveStage(actor=last.actor, decision=decision, facts=last.facts)


def _last_approval(context: Context, request: Request, decision: Decision | None) -> ApproveRequest | ApplyExtension:
    """Freezes the username and the way to the server. Raises OutOfDate where the database is not configured any more."""
    actor, facts = decision.person_id if decision else "policy", _policy_in_force(context)
    entry = context.config_in_force().databases.get(request.database)
    if entry is None:
        raise OutOfDate
    if request.kind is RequestKind.EXTENSION:
        return ApplyExtension(actor=actor, decision=decision, facts=facts)
    found = target(request.database, entry, prefix=context.prefix, ledger=context.ledger.id)
    name = make_username(context.prefix, request_id=request.id, who=request.requester_name, key=request.key)
    return ApproveRequest(actor=actor, decision=decision, username=name, target=asdict(found), facts=facts)


# Where nobody is asked.


async def approve_by_policy(context: Context, request: Request) -> Request:
    """Approve what the policy asks nobody about: judged once more, by today's policy.

    Raises Refused and TooLate as a click would; where somebody was faster, what is true is the answer.
    """
    request = await context.ledger.request(request.id)
    if request.state is not State.PENDING or request.terms.stages:
        return request
    config, grant = context.config_in_force(), await extended_grant(context, request)
    today = authorization.asked_today(config, request, await membership_facts.gather(context, config), grant=grant)
    if isinstance(today, authorization.Outdated):
        raise await _outdate(context, request, today.what)
    if isinstance(today, asking.Refused):
        raise Refused(today.reason, about=today.about)
    try:
        return await context.ledger.advance(request.id, _last_approval(context, request, None))
    except NotPossible as lost:
        if lost.obstacle is Obstacle.STATE:
            return lost.request
        raise TooLate(describe_obstacle(lost)) from None
