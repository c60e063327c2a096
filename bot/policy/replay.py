"""Evaluate past requests by another policy: what it would have answered, and which live grants it would not give. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from bot.policy.config import Config
from bot.policy.evaluation import evaluate
from bot.policy.facts import Facts
from bot.policy.questions import Allowed, Evaluation, NotAllowed, PolicyQuestion
from bot.policy.testing import counted_votes
from storage.records import Decision, Request, RequestKind, Verdict
from storage.transitions import open_stage


class ReplayOutcome(StrEnum):
    """The answer of the other policy. The values are part of the JSON output."""

    SAME = "as before"
    REFUSED = "refused"
    AUTOMATIC = "approved without anyone"
    OTHER_APPROVERS = "waits for someone else"
    NO_APPROVERS = "nobody can approve"
    UNKNOWN = "not known without Slack"


@dataclass(frozen=True, kw_only=True)
class PastRequest:
    """A request of the ledger, and its decisions."""

    request: Request
    decisions: tuple[Decision, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ReplayResult:
    """One request, and what the other policy answers. ``would_end``: the grant is live, and the policy would not give it."""

    past: PastRequest
    outcome: ReplayOutcome
    why: str

    @property
    def would_end(self) -> bool:
        return self.past.request.is_live and self.outcome in (ReplayOutcome.REFUSED, ReplayOutcome.NO_APPROVERS)


def replay(config: Config, past: Sequence[PastRequest], facts: Facts) -> tuple[ReplayResult, ...]:
    """Evaluate each request, in the order given: at its own time, with the groups of ``facts``, without limits."""
    return tuple(_replay_one(config, one, facts) for one in past)


def _replay_one(config: Config, past: PastRequest, facts: Facts) -> ReplayResult:
    answer = evaluate(config, _question_of(past.request), facts)
    if isinstance(answer, Allowed):
        outcome, why = _allowed_outcome(config, past, answer, facts)
    else:
        outcome, why = _refused_outcome(answer, facts)
    return ReplayResult(past=past, outcome=outcome, why=why)


def _question_of(request: Request) -> PolicyQuestion:
    """The question behind a request. An extension is evaluated as access of its duration."""
    return PolicyQuestion(
        person_id=request.requester_id,
        database=request.database,
        level=request.level,
        duration=request.terms.duration,
        reason=request.reason,
        kind=RequestKind.ACCESS if request.kind is RequestKind.EXTENSION else request.kind,
        at=request.requested_at,
        needs_reason=False,
    )


def _refused_outcome(answer: Evaluation, facts: Facts) -> tuple[ReplayOutcome, str]:
    if not isinstance(answer, NotAllowed):
        return ReplayOutcome.REFUSED, "Something is missing in the request."
    if answer.about == "people":
        return (ReplayOutcome.UNKNOWN if facts.unknown(answer.unknown) else ReplayOutcome.NO_APPROVERS), answer.reason
    return ReplayOutcome.REFUSED, answer.reason


def _allowed_outcome(config: Config, past: PastRequest, answer: Allowed, facts: Facts) -> tuple[ReplayOutcome, str]:
    terms, request = answer.terms, past.request
    if not terms.stages:
        had_stages = bool(request.terms.stages)
        return (ReplayOutcome.AUTOMATIC if had_stages else ReplayOutcome.SAME), f"Rule: {terms.rule}."
    approved = [d.person_id for d in past.decisions if d.verdict is Verdict.APPROVE]
    was_given = request.approved_at is not None
    today = _with_terms(request, answer)
    made = counted_votes(config, today, approved, facts, at=None)
    if not was_given or open_stage(today, made) is None:
        return ReplayOutcome.SAME, f"Rule: {terms.rule}."
    unknown = facts.unknown(who for stage in terms.stages for who in stage.approvers)
    if unknown:
        return ReplayOutcome.UNKNOWN, f"The members of {', '.join(unknown)} are unknown. Rule: {terms.rule}."
    return ReplayOutcome.OTHER_APPROVERS, f"Those who approved it would not be enough. Rule: {terms.rule}."


def _with_terms(request: Request, answer: Allowed) -> Request:
    return Request(**{**{n: getattr(request, n) for n in request.__dataclass_fields__}, "terms": answer.terms})
