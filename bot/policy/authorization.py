"""Pure decisions about what exists already: who may decide, sign off, revoke, see.

At a click today's policy is asked again, with people and groups as they are now.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from bot.policy.asking import Allowed, PolicyQuestion, Refused
from bot.policy.evaluation import may_ask, same_level
from bot.policy.facts import NOTHING_KNOWN, Facts, can_complete, who_may_decide
from bot.policy.loader import Config
from bot.policy.rules import Rule
from storage.records import Decision, Request, RequestKind, Review, Stage, Terms, Verdict
from storage.transitions import open_stage


@dataclass(frozen=True, kw_only=True)
class MayDecide:
    """The vote counts, in this stage."""

    stage: int


@dataclass(frozen=True, kw_only=True)
class Outdated:
    """The policy or the level changed since the ask; ``what`` says how."""

    what: str


# Deciding: the frozen answer and today's.


def may_decide(
    config: Config,
    request: Request,
    decisions: Sequence[Decision],
    person_id: str,
    facts: Facts = NOTHING_KNOWN,
    *,
    at: datetime,
    grant: Request | None = None,
    is_approval: bool = True,
) -> MayDecide | Refused | Outdated:
    """Does this person's vote count now? ``grant``: what an extension is about.

    The same for approving and denying, but for one thing: nobody approves an early stage where only they could approve a
    later one, since a person decides once and the request could then never be approved.
    """
    if person_id == request.requester_id:
        return Refused(reason="You cannot decide your own request.")
    today = asked_today(config, request, facts, grant=grant)
    if isinstance(today, Outdated | Refused):
        return today
    return vote(config, request, today, decisions, person_id, facts=facts, at=at, is_approval=is_approval)


def vote(
    config: Config,
    request: Request,
    today: Terms,
    decisions: Sequence[Decision],
    person_id: str,
    *,
    facts: Facts,
    at: datetime | None,
    is_approval: bool = True,
) -> MayDecide | Refused:
    """By today's terms of the same ask. Without ``at`` neither hours nor escalation are judged."""
    if person_id == request.requester_id:
        return Refused(reason="You cannot decide your own request.")
    if any(d.person_id == person_id for d in decisions):
        return Refused(reason=f"You have decided #{request.id} before. A person decides once.")
    stage = open_stage(request, tuple(decisions))
    if stage is None:
        return Refused(reason=f"#{request.id} needs no further decision.")
    found = _in_stage(config, request, today, person_id, stage=stage, facts=facts, at=at)
    if is_approval and isinstance(found, MayDecide) and _is_needed_later(request, today, decisions, person_id, facts):
        return Refused(
            reason=f"#{request.id} needs you in a later stage, and nobody else can decide that. Please wait."
        )
    return found


def _is_needed_later(
    request: Request, today: Terms, decisions: Sequence[Decision], person_id: str, facts: Facts
) -> bool:
    """With this vote in the open stage the others could no longer be completed, and without it they could."""
    also = today.escalation.to if today.escalation else ()
    if facts.unknown([*also, *(who for stage in today.stages for who in stage.approvers)]):
        return False
    gone = frozenset(d.person_id for d in decisions)
    people = [left - gone for left in who_may_decide(facts, today.stages, but=request.requester_id, also=also)]
    made = [sum(d.stage == n and d.verdict is Verdict.APPROVE for d in decisions) for n in range(len(today.stages))]
    missing = [max(stage.count - there, 0) for stage, there in zip(today.stages, made, strict=True)]
    spent = open_stage(request, tuple(decisions)) or 0
    then = [n - (number == spent) for number, n in enumerate(missing)]
    return can_complete(people, missing) and not can_complete([p - {person_id} for p in people], then)


def _in_stage(
    config: Config, request: Request, today: Terms, person_id: str, *, stage: int, facts: Facts, at: datetime | None
) -> MayDecide | Refused:
    named = (*today.stages[stage].approvers, *escalated_to(request, today, at=at))
    membership = facts.names(named, person_id)
    if membership == "unknown":
        silent = facts.unknown(named)
        words = f"Slack did not say who is in {', '.join(silent)}, so your click did not count. Please try again."
        return Refused(reason=words, about="people", unknown=silent)
    if membership == "out":
        return Refused(reason=_only(today, stage))
    rule = rule_of(config, request)
    hours = rule.deciding_hours if rule else None
    if hours is not None and at is not None and not hours.cover(at):
        return Refused(reason=f"#{request.id} is to be decided {hours}. Rule: {today.rule}.", about="hours")
    return MayDecide(stage=stage)


def _only(terms: Terms, stage: int) -> str:
    return f"Only the approvers named by the rule “{terms.rule}” can decide this (stage {stage + 1} of {len(terms.stages)})."


def escalated_to(request: Request, terms: Terms, *, at: datetime | None) -> tuple[str, ...]:
    """Those who may decide as well by now, in whatever stage is open. Counted from the ask."""
    escalation = terms.escalation
    if escalation is None or at is None:
        return ()
    return escalation.to if at >= request.requested_at + escalation.after else ()


def asked_today(
    config: Config, request: Request, facts: Facts, *, grant: Request | None = None
) -> Terms | Outdated | Refused:
    """Today's terms for the same ask, where they are those on the card. Hours as at the ask; limits were judged there.

    Refused only where the directory is silent about somebody the answer depends on: no vote counts, and nothing is closed.
    """
    answer = may_ask(config, _same_ask(request, grant), Facts(members=facts.members))
    if isinstance(answer, Refused) and answer.about == "people":
        return answer
    if isinstance(answer, Refused) and answer.about == "duration":
        return Outdated(what=f"the policy no longer allows so long. {answer.reason}")
    if not isinstance(answer, Allowed):
        return Outdated(what="the policy no longer allows it.")
    return _same_terms(request.terms, answer.terms)


def _same_ask(request: Request, grant: Request | None) -> PolicyQuestion:
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


def _same_terms(frozen: Terms, today: Terms) -> Terms | Outdated:
    if frozen.rule != today.rule:
        return Outdated(what=f"another rule answers now: “{today.rule}” instead of “{frozen.rule}”.")
    if [s.count for s in frozen.stages] != [s.count for s in today.stages]:
        return Outdated(what=f"the rule “{today.rule}” asks for other approvals now.")
    if not same_level(frozen, today):
        return Outdated(what=f"the level {today.level['name']} was changed meanwhile.")
    return today


# People around a request.


def rule_of(config: Config, request: Request) -> Rule | None:
    """The request's rule, as it is today."""
    return next((rule for rule in config.rules if rule.name == request.terms.rule), None)


def is_admin(config: Config, person_id: str, facts: Facts = NOTHING_KNOWN) -> bool:
    """Named as admin, or the command line."""
    return person_id.startswith("cli:") or facts.names(config.policy.admins, person_id) == "in"


def is_auditor(config: Config, person_id: str, facts: Facts = NOTHING_KNOWN) -> bool:
    """May see everything, and change nothing."""
    return facts.names(config.policy.auditors, person_id) == "in"


def may_ask_about_others(config: Config, person_id: str, database: str | None, facts: Facts = NOTHING_KNOWN) -> bool:
    """Admins, auditors, and whoever decides about this database by any rule."""
    if is_admin(config, person_id, facts) or is_auditor(config, person_id, facts):
        return True
    about = config.about.get(database or "", ())
    return any(facts.names(stage.approvers, person_id) == "in" for rule in about for stage in rule.stages)


def stages_today(config: Config, request: Request) -> tuple[Stage, ...]:
    """Whom the request's rule names today; where it is gone, whom it named at the ask."""
    rule = rule_of(config, request)
    return rule.stages if rule and len(rule.stages) == len(request.terms.stages) else request.terms.stages


def review_today(config: Config, request: Request) -> Review | None:
    """Who signs off a break-glass grant: as the rule says today; where it is gone, as it said at the ask."""
    rule = rule_of(config, request)
    return (rule.review if rule else None) or request.terms.review


def who_is_asked(
    config: Config, request: Request, facts: Facts, *, at: datetime, stage: int | None = None
) -> frozenset[str]:
    """Who may decide now, of one stage or of all, but for the requester."""
    stages = stages_today(config, request)
    chosen = stages if stage is None else stages[stage : stage + 1]
    named = [who for one in chosen for who in one.approvers]
    return facts.people([*named, *escalated_to(request, request.terms, at=at)]) - {request.requester_id}


def would_be_asked(config: Config, request: Request, facts: Facts) -> frozenset[str]:
    """Those who would have decided about the same ask without the glass broken: they are told."""
    ask = PolicyQuestion(
        person_id=request.requester_id,
        database=request.database,
        level=request.level,
        needs_reason=False,
        is_new=False,
    )
    answer = may_ask(config, ask, Facts(members=facts.members))
    stages = answer.terms.stages if isinstance(answer, Allowed) else ()
    return facts.people(who for stage in stages for who in stage.approvers) - {request.requester_id}


def reviewers(config: Config, request: Request, facts: Facts) -> frozenset[str]:
    """Who may sign off, but for the requester."""
    review = review_today(config, request)
    return facts.people(review.reviewers if review else ()) - {request.requester_id}


def may_review(config: Config, request: Request, person_id: str, facts: Facts = NOTHING_KNOWN) -> Refused | None:
    """None where this person may sign off the grant, else why not."""
    review = review_today(config, request)
    if request.kind is not RequestKind.BREAK_GLASS or review is None:
        return Refused(reason=f"#{request.id} is no break-glass access: there is nothing to sign off.")
    if person_id == request.requester_id:
        return Refused(reason="You cannot sign off your own access.")
    if facts.names(review.reviewers, person_id) == "in":
        return None
    return Refused(reason=f"Only {', '.join(review.reviewers)} can sign off #{request.id}.")


def _could_decide(config: Config, request: Request, person_id: str, facts: Facts = NOTHING_KNOWN) -> bool:
    """When it was asked or today, also those it was or will be escalated to, and those who sign off."""
    rule, review = rule_of(config, request), review_today(config, request)
    stages = (*request.terms.stages, *(rule.stages if rule else ()))
    escalation = request.terms.escalation
    named = [who for stage in stages for who in stage.approvers]
    named += [*(escalation.to if escalation else ()), *(review.reviewers if review else ())]
    return person_id != request.requester_id and facts.names(named, person_id) == "in"


def may_revoke(
    config: Config, request: Request, decisions: Sequence[Decision], person_id: str, facts: Facts = NOTHING_KNOWN
) -> bool:
    """Its approvers, those who could have approved it (when asked or today), admins."""
    approved = any(d.person_id == person_id and d.verdict is Verdict.APPROVE for d in decisions)
    return approved or is_admin(config, person_id, facts) or _could_decide(config, request, person_id, facts)


def may_see(
    config: Config, request: Request, decisions: Sequence[Decision], person_id: str, facts: Facts = NOTHING_KNOWN
) -> bool:
    """The requester, those who decided or could, admins and auditors."""
    decided = any(d.person_id == person_id for d in decisions)
    if person_id == request.requester_id or decided or is_auditor(config, person_id, facts):
        return True
    return may_revoke(config, request, decisions, person_id, facts)
