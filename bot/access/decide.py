"""Approve or deny a request.

Each decision is authorized by the policy in force and by the group membership at that moment. This module looks up
policy and membership before the ledger's transaction begins. If two callers act at the same time, the transaction
accepts the first one. The second one gets a ``TooLate`` that says what happened.
"""

from __future__ import annotations

from dataclasses import asdict

from adapters.usernames import make_username
from bot.access import lockdown, log_events, membership
from bot.access.context import Context
from bot.access.descriptions import describe_obstacle, describe_state
from bot.access.errors import AccessError, OutOfDate, Refused, TooLate
from bot.access.ports import Person
from bot.access.recovery import refusal_in_recovery
from bot.databases import target
from bot.policy import authorization, questions
from storage.commands import ApplyExtension, ApproveRequest, ApproveStage, DenyRequest, OutdateRequest
from storage.errors import NotPossible
from storage.records import Decision, Json, Request, RequestKind, State, Verdict
from storage.transitions import Obstacle, open_stage

REASON_MAX = 1000
"""The longest reason of a denial, in characters."""

APPROVE_ATTEMPTS = 20
"""How many times ``approve`` tries one approval while other approvals are stored first."""

STAGES_CHANGED = frozenset({Obstacle.STAGE_MOVED_ON, Obstacle.STAGES_OPEN, Obstacle.STAGES_COMPLETE})
"""After these obstacles, ``approve`` tries again: another approval was stored first."""


REFUSALS = frozenset({Obstacle.LOCKED_DOWN, Obstacle.IN_RECOVERY})
"""The obstacles of a mode in which nothing is granted: the request stays, and the answer is no for now."""


async def approve(context: Context, person: Person, request: Request) -> Request:
    """Count this person's approval.

    Returns the request in its new state: PENDING if more approvals are needed, APPROVED after the last one (APPLIED for an
    extension). Raises Refused if this person may not approve, while a lockdown matches, and in recovery mode. Raises TooLate if the request is decided, has lapsed, or is
    outdated by a change of the policy.
    """
    for _ in range(APPROVE_ATTEMPTS):
        request, earlier = await context.ledger.requests.with_decisions(request.id)
        stage = await _authorized_stage(context, person, request, earlier)
        decision = await _decision(context, person, request, Verdict.APPROVE, stage)
        command = _approval_command(context, request, earlier, decision)
        try:
            return await context.ledger.requests.advance(request.id, command)
        except NotPossible as error:
            if error.obstacle in REFUSALS:
                raise await _refusal_of(context, request, error.obstacle) from None
            if error.obstacle is Obstacle.CONFIGURATION_OLDER:
                await context.check_configuration_is_newest()
            elif error.obstacle not in STAGES_CHANGED:
                raise TooLate(describe_obstacle(error)) from None
    raise TooLate(f"#{request.id} changes too fast; please click again.")


async def check_may_deny(context: Context, person: Person, request: Request) -> None:
    """Check that this person may deny, before the form for the reason opens. Raises what ``deny`` would raise."""
    request, earlier = await context.ledger.requests.with_decisions(request.id)
    await _authorized_stage(context, person, request, earlier, is_approval=False)


async def deny(context: Context, person: Person, request: Request, reason: str) -> Request:
    """Deny the request. The requester gets the ``reason`` (1 to ``REASON_MAX`` characters).

    Everybody who may approve may deny. Returns the DENIED request. Raises Refused and TooLate as ``approve`` does.
    """
    reason = reason.strip()
    if not reason or len(reason) > REASON_MAX:
        raise Refused(f"Say why, in 1 to {REASON_MAX} characters.")
    request, earlier = await context.ledger.requests.with_decisions(request.id)
    stage = await _authorized_stage(context, person, request, earlier, is_approval=False)
    decision = await _decision(context, person, request, Verdict.DENY, stage, reason=reason)
    command = DenyRequest(actor=person.id, decision=decision, note=reason, text=reason, facts=_policy_in_force(context))
    try:
        denied = await context.ledger.requests.advance(request.id, command)
    except NotPossible as error:
        raise TooLate(describe_obstacle(error)) from None
    log_events.request_denied(denied, person)
    return denied


async def approve_by_policy(context: Context, request: Request) -> Request:
    """Approve a request for which the policy names no approvers. Evaluates the policy in force again.

    Returns the request in its new state. If another process changed the state first, returns the request in that state.
    Raises Refused while a lockdown matches, in recovery mode, or if the members of a group are unknown, and TooLate if the request is outdated.
    """
    request = await context.ledger.requests.get(request.id)
    if request.state is not State.PENDING or request.terms.stages:
        return request
    config, grant = context.config_in_force(), await extended_grant(context, request)
    today = authorization.reevaluate(config, request, await membership.facts(context, config), grant=grant)
    if isinstance(today, authorization.Outdated):
        raise await _outdate(context, request, today.what)
    if isinstance(today, questions.NotAllowed):
        raise Refused(today.reason, about=today.about)
    return await _approve_alone(context, request)


async def _approve_alone(context: Context, request: Request) -> Request:
    """The approval of the policy. Raises what ``approve_by_policy`` raises."""
    try:
        return await context.ledger.requests.advance(request.id, _final_approval(context, request, None))
    except NotPossible as error:
        if error.obstacle is Obstacle.STATE:
            return error.request
        if error.obstacle is Obstacle.CONFIGURATION_OLDER:
            await context.check_configuration_is_newest()
            return await approve_by_policy(context, request)  # the files changed just now
        if error.obstacle in REFUSALS:
            raise await _refusal_of(context, request, error.obstacle) from None
        raise TooLate(describe_obstacle(error)) from None


async def extended_grant(context: Context, request: Request) -> Request | None:
    """The grant that the extension ``request`` extends. None if ``request`` is not an extension."""
    return None if request.parent_id is None else await context.ledger.requests.get(request.parent_id)


async def _refusal_of(context: Context, request: Request, obstacle: Obstacle) -> Refused:
    """The refusal of an approval while a mode is in force in which nothing is granted."""
    if obstacle is Obstacle.IN_RECOVERY:
        return await refusal_in_recovery(context)
    return await lockdown.refusal_of(context, request)


# Authorization.


async def _authorized_stage(
    context: Context, person: Person, request: Request, decisions: tuple[Decision, ...], *, is_approval: bool = True
) -> int:
    """The number of the stage that this person may decide now. Moves the request to OUTDATED if the policy requires that."""
    if request.state is not State.PENDING:
        raise TooLate(describe_state(request, decisions))
    config = context.config_in_force()
    facts, grant = await membership.facts(context, config), await extended_grant(context, request)
    now = await context.ledger.now()
    answer = authorization.may_decide(
        config, request, decisions, person.id, facts, at=now, grant=grant, is_approval=is_approval
    )
    if isinstance(answer, authorization.MayDecide):
        return answer.stage
    if isinstance(answer, authorization.Outdated):
        raise await _outdate(context, request, answer.what)
    await context.check_configuration_is_newest()
    await log_events.click_refused(context, person, "decide", request.id)
    raise Refused(answer.reason)


async def _outdate(context: Context, request: Request, reason: str) -> AccessError:
    """Move a request to OUTDATED: the policy in force gives another answer. Returns the error for the caller to raise.

    Raises Refused where the policy of another replica is newer: its answer counts.
    """
    await context.check_configuration_is_newest()
    try:
        request = await context.ledger.requests.advance(request.id, OutdateRequest(actor="policy", note=reason))
    except NotPossible as error:
        return TooLate(describe_obstacle(error))
    return TooLate(describe_state(request, ()))


# Commands.


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
    """The digest of the policy that authorized the decision. The request stores the digest at its submission."""
    return {"policy_in_force": context.config_in_force().digest}


def _approval_command(
    context: Context, request: Request, earlier: tuple[Decision, ...], decision: Decision
) -> ApproveStage | ApproveRequest | ApplyExtension:
    """The command for this approval. It is ``ApproveStage`` if the request needs more approvals after it."""
    final = _final_approval(context, request, decision)
    if open_stage(request, (*earlier, decision)) is None:
        return final
    return ApproveStage(actor=final.actor, decision=decision, facts=final.facts, configuration=final.configuration)


def _final_approval(context: Context, request: Request, decision: Decision | None) -> ApproveRequest | ApplyExtension:
    """The command of the last approval. It freezes the username and the target. ``decision`` is None if the policy approves.

    Raises OutOfDate if the database is no longer configured.
    """
    actor, facts = decision.person_id if decision else "policy", _policy_in_force(context)
    config = context.config_in_force()
    entry = config.databases.get(request.database)
    if entry is None:
        raise OutOfDate
    if request.kind is RequestKind.EXTENSION:
        return ApplyExtension(actor=actor, decision=decision, facts=facts, configuration=config.digest)
    frozen = target(request.database, entry, prefix=context.prefix, ledger=context.ledger.id)
    username = make_username(context.prefix, request_id=request.id, who=request.requester_name, key=request.key)
    return ApproveRequest(
        actor=actor,
        decision=decision,
        username=username,
        target=asdict(frozen),
        facts=facts,
        configuration=config.digest,
    )
