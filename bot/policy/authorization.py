"""Authorization: may this person decide, sign off, revoke or see this request? Pure.

Each click is checked against the current policy, with the current people and groups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from bot.policy.config import Config
from bot.policy.evaluation import evaluate, same_level
from bot.policy.facts import NO_FACTS, Facts, can_complete, possible_approvers
from bot.policy.questions import Allowed, NotAllowed, PolicyQuestion
from bot.policy.rules import Rule
from storage.records import Decision, Request, RequestKind, Review, Stage, Terms, Verdict
from storage.transitions import open_stage


@dataclass(frozen=True, kw_only=True)
class MayDecide:
    """The decision counts, in this stage."""

    stage: int


@dataclass(frozen=True, kw_only=True)
class Outdated:
    """The policy or the level has changed since the request was made. ``what`` says how."""

    what: str


# Deciding: the terms frozen in the request, and today's.


def may_decide(
    config: Config,
    request: Request,
    decisions: Sequence[Decision],
    person_id: str,
    facts: Facts = NO_FACTS,
    *,
    at: datetime,
    grant: Request | None = None,
    is_approval: bool = True,
) -> MayDecide | NotAllowed | Outdated:
    """Return whether this person's decision counts now. ``grant``: the grant that an extension extends.

    Approving and denying differ in one point: nobody may approve an early stage if only they could approve a later
    one. A person decides once, so the request could then never be approved.
    """
    if person_id == request.requester_id:
        return NotAllowed(reason="You cannot decide your own request.")
    terms = reevaluate(config, request, facts, grant=grant)
    if isinstance(terms, Outdated | NotAllowed):
        return terms
    return authorize_vote(config, request, terms, decisions, person_id, facts=facts, at=at, is_approval=is_approval)


def authorize_vote(
    config: Config,
    request: Request,
    terms: Terms,
    decisions: Sequence[Decision],
    person_id: str,
    *,
    facts: Facts,
    at: datetime | None,
    is_approval: bool = True,
) -> MayDecide | NotAllowed:
    """Return whether the decision counts, by the request's terms of today. Without ``at``, hours and escalation are not checked."""
    if person_id == request.requester_id:
        return NotAllowed(reason="You cannot decide your own request.")
    if any(d.person_id == person_id for d in decisions):
        return NotAllowed(reason=f"You have decided #{request.id} before. A person decides once.")
    stage = open_stage(request, tuple(decisions))
    if stage is None:
        return NotAllowed(reason=f"#{request.id} needs no further decision.")
    found = _authorize_in_stage(config, request, terms, person_id, stage=stage, facts=facts, at=at)
    if is_approval and isinstance(found, MayDecide) and _is_needed_later(request, terms, decisions, person_id, facts):
        return NotAllowed(
            reason=f"#{request.id} needs you in a later stage, and nobody else can decide that. Please wait."
        )
    return found


def _is_needed_later(
    request: Request, terms: Terms, decisions: Sequence[Decision], person_id: str, facts: Facts
) -> bool:
    """With this decision in the open stage the other stages could no longer be completed; without it they could."""
    also = terms.escalation.to if terms.escalation else ()
    if facts.unknown([*also, *(who for stage in terms.stages for who in stage.approvers)]):
        return False
    gone = frozenset(d.person_id for d in decisions)
    people = [left - gone for left in possible_approvers(facts, terms.stages, but=request.requester_id, also=also)]
    made = [sum(d.stage == n and d.verdict is Verdict.APPROVE for d in decisions) for n in range(len(terms.stages))]
    missing = [max(stage.count - there, 0) for stage, there in zip(terms.stages, made, strict=True)]
    spent = open_stage(request, tuple(decisions)) or 0
    then = [n - (number == spent) for number, n in enumerate(missing)]
    return can_complete(people, missing) and not can_complete([p - {person_id} for p in people], then)


def _authorize_in_stage(
    config: Config, request: Request, terms: Terms, person_id: str, *, stage: int, facts: Facts, at: datetime | None
) -> MayDecide | NotAllowed:
    named = (*terms.stages[stage].approvers, *escalation_targets(request, terms, at=at))
    membership = facts.membership(named, person_id)
    if membership == "unknown":
        unknown = facts.unknown(named)
        reason = f"Slack did not say who is in {', '.join(unknown)}, so your click did not count. Please try again."
        return NotAllowed(reason=reason, about="people", unknown=unknown)
    if membership == "out":
        return NotAllowed(reason=_only_approvers(terms, stage))
    rule = current_rule(config, request)
    hours = rule.deciding_hours if rule else None
    if hours is not None and at is not None and not hours.cover(at):
        return NotAllowed(reason=f"#{request.id} can be decided {hours}. Rule: {terms.rule}.", about="hours")
    return MayDecide(stage=stage)


def _only_approvers(terms: Terms, stage: int) -> str:
    return f"Only the approvers named by the rule “{terms.rule}” can decide this (stage {stage + 1} of {len(terms.stages)})."


def escalation_targets(request: Request, terms: Terms, *, at: datetime | None) -> tuple[str, ...]:
    """People who may also decide by now, in whatever stage is open. The time is counted from the request."""
    escalation = terms.escalation
    if escalation is None or at is None:
        return ()
    return escalation.to if at >= request.requested_at + escalation.after else ()


def reevaluate(
    config: Config, request: Request, facts: Facts, *, grant: Request | None = None
) -> Terms | Outdated | NotAllowed:
    """Evaluate the request by today's policy; return today's terms where they are still those on the card.

    Hours are checked at the time of the request. Limits were checked when it was made, and are not checked again.
    NotAllowed is returned only where the members of a group that matters are unknown: no decision counts then, and the
    request stays open.
    """
    evaluation = evaluate(config, _question_of(request, grant), Facts(members=facts.members))
    if isinstance(evaluation, NotAllowed) and evaluation.about == "people":
        return evaluation
    if isinstance(evaluation, NotAllowed) and evaluation.about == "duration":
        return Outdated(what=f"the policy no longer allows so long. {evaluation.reason}")
    if not isinstance(evaluation, Allowed):
        return Outdated(what="the policy no longer allows it.")
    return _compare_terms(request.terms, evaluation.terms)


def _question_of(request: Request, grant: Request | None) -> PolicyQuestion:
    return PolicyQuestion(
        person_id=request.requester_id,
        database=request.database,
        level=request.level,
        duration=request.terms.duration,
        reason=request.reason,
        kind=request.kind,
        at=request.requested_at,
        needs_reason=False,
        grant=grant,
        is_new=False,
    )


def _compare_terms(frozen: Terms, terms: Terms) -> Terms | Outdated:
    if frozen.rule != terms.rule:
        return Outdated(what=f"another rule answers now: “{terms.rule}” instead of “{frozen.rule}”.")
    if [s.count for s in frozen.stages] != [s.count for s in terms.stages]:
        return Outdated(what=f"the rule “{terms.rule}” asks for other approvals now.")
    if not same_level(frozen, terms):
        return Outdated(what=f"the level {terms.level['name']} was changed meanwhile.")
    return terms


# The people of a request.


def current_rule(config: Config, request: Request) -> Rule | None:
    """The request's rule as it is today; None where it is gone."""
    return next((rule for rule in config.rules if rule.name == request.terms.rule), None)


def is_admin(config: Config, person_id: str, facts: Facts = NO_FACTS) -> bool:
    """An admin of the policy, or the command line."""
    return person_id.startswith("cli:") or facts.membership(config.policy.admins, person_id) == "in"


def is_auditor(config: Config, person_id: str, facts: Facts = NO_FACTS) -> bool:
    """An auditor of the policy: may see everything and change nothing."""
    return facts.membership(config.policy.auditors, person_id) == "in"


def may_see_others(config: Config, person_id: str, database: str | None, facts: Facts = NO_FACTS) -> bool:
    """Return whether this person may see the requests of others: admins, auditors, and the approvers of this database."""
    if is_admin(config, person_id, facts) or is_auditor(config, person_id, facts):
        return True
    rules = config.rules_by_database.get(database or "", ())
    return any(facts.membership(stage.approvers, person_id) == "in" for rule in rules for stage in rule.stages)


def current_stages(config: Config, request: Request) -> tuple[Stage, ...]:
    """The stages of the request's rule today. Where the rule is gone, the stages at the time of the request."""
    rule = current_rule(config, request)
    return rule.stages if rule and len(rule.stages) == len(request.terms.stages) else request.terms.stages


def current_review(config: Config, request: Request) -> Review | None:
    """The reviewers of a break-glass grant, by the rule of today. Where the rule is gone, by the rule at the time of the request."""
    rule = current_rule(config, request)
    return (rule.review if rule else None) or request.terms.review


def current_approvers(
    config: Config, request: Request, facts: Facts, *, at: datetime, stage: int | None = None
) -> frozenset[str]:
    """The people who may decide now, in one stage or in all, without the requester."""
    stages = current_stages(config, request)
    chosen = stages if stage is None else stages[stage : stage + 1]
    named = [who for one in chosen for who in one.approvers]
    return facts.expand([*named, *escalation_targets(request, request.terms, at=at)]) - {request.requester_id}


def regular_approvers(config: Config, request: Request, facts: Facts) -> frozenset[str]:
    """The approvers of the same request without break-glass access. They are notified."""
    question = PolicyQuestion(
        person_id=request.requester_id,
        database=request.database,
        level=request.level,
        needs_reason=False,
        is_new=False,
    )
    evaluation = evaluate(config, question, Facts(members=facts.members))
    stages = evaluation.terms.stages if isinstance(evaluation, Allowed) else ()
    return facts.expand(who for stage in stages for who in stage.approvers) - {request.requester_id}


def reviewers(config: Config, request: Request, facts: Facts) -> frozenset[str]:
    """The people who may sign off, without the requester."""
    review = current_review(config, request)
    return facts.expand(review.reviewers if review else ()) - {request.requester_id}


def may_review(config: Config, request: Request, person_id: str, facts: Facts = NO_FACTS) -> NotAllowed | None:
    """None where this person may sign off the grant, else the refusal."""
    review = current_review(config, request)
    if request.kind is not RequestKind.BREAK_GLASS or review is None:
        return NotAllowed(reason=f"#{request.id} is no break-glass access: there is nothing to sign off.")
    if person_id == request.requester_id:
        return NotAllowed(reason="You cannot sign off your own access.")
    if facts.membership(review.reviewers, person_id) == "in":
        return None
    return NotAllowed(reason=f"Only {', '.join(review.reviewers)} can sign off #{request.id}.")


def _could_decide(config: Config, request: Request, person_id: str, facts: Facts = NO_FACTS) -> bool:
    """Return whether this person could decide, at the time of the request or today. Includes escalation and review."""
    rule, review = current_rule(config, request), current_review(config, request)
    stages = (*request.terms.stages, *(rule.stages if rule else ()))
    escalation = request.terms.escalation
    named = [who for stage in stages for who in stage.approvers]
    named += [*(escalation.to if escalation else ()), *(review.reviewers if review else ())]
    return person_id != request.requester_id and facts.membership(named, person_id) == "in"


def may_revoke(
    config: Config, request: Request, decisions: Sequence[Decision], person_id: str, facts: Facts = NO_FACTS
) -> bool:
    """Return whether this person may revoke the grant: its approvers, those who could have approved it (then or today), and admins."""
    approved = any(d.person_id == person_id and d.verdict is Verdict.APPROVE for d in decisions)
    return approved or is_admin(config, person_id, facts) or _could_decide(config, request, person_id, facts)


def may_see(
    config: Config, request: Request, decisions: Sequence[Decision], person_id: str, facts: Facts = NO_FACTS
) -> bool:
    """Return whether this person may see the request: the requester, those who decided or could decide, admins and auditors."""
    decided = any(d.person_id == person_id for d in decisions)
    if person_id == request.requester_id or decided or is_auditor(config, person_id, facts):
        return True
    return may_revoke(config, request, decisions, person_id, facts)
