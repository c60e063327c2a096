"""What another policy would have answered to the requests there were, and which live grants it would not give. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from bot.policy.asking import Allowed, Answer, PolicyQuestion, Refused
from bot.policy.evaluation import may_ask
from bot.policy.facts import Facts
from bot.policy.loader import Config
from bot.policy.testing import votes
from storage.records import Decision, Request, RequestKind, Verdict
from storage.transitions import open_stage


class Now(StrEnum):
    """How another policy answers."""

    SAME = "as before"
    REFUSED = "refused"
    NOBODY_ASKED = "approved without anyone"
    SOMEONE_ELSE = "waits for someone else"
    NOBODY_CAN = "nobody can approve"
    UNKNOWN = "not known without Slack"


@dataclass(frozen=True, kw_only=True)
class Past:
    """A request of the ledger and who decided it."""

    request: Request
    decisions: tuple[Decision, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """One request and how it would be answered now. ``would_end``: it lives, and the policy would not give it."""

    past: Past
    now: Now
    why: str

    @property
    def would_end(self) -> bool:
        return self.past.request.is_live and self.now in (Now.REFUSED, Now.NOBODY_CAN)


def replay(config: Config, past: Sequence[Past], facts: Facts) -> tuple[Replayed, ...]:
    """In the order given. Judged at the time of each ask, by the groups of ``facts``; limits are not counted again."""
    return tuple(_replayed(config, one, facts) for one in past)


def _replayed(config: Config, past: Past, facts: Facts) -> Replayed:
    answer = may_ask(config, _ask(past.request), facts)
    if isinstance(answer, Allowed):
        now, why = _allowed(config, past, answer, facts)
    else:
        now, why = _refused(answer, facts)
    return Replayed(past=past, now=now, why=why)


def _ask(request: Request) -> PolicyQuestion:
    """The same ask; more time for a grant is judged as access of that length."""
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


def _refused(answer: Answer, facts: Facts) -> tuple[Now, str]:
    if not isinstance(answer, Refused):
        return Now.REFUSED, "Something is missing in the ask."
    if answer.about == "people":
        return (Now.UNKNOWN if facts.unknown(answer.unknown) else Now.NOBODY_CAN), answer.reason
    return Now.REFUSED, answer.reason


def _allowed(config: Config, past: Past, answer: Allowed, facts: Facts) -> tuple[Now, str]:
    terms, request = answer.terms, past.request
    if not terms.stages:
        was_asked = bool(request.terms.stages)
        return (Now.NOBODY_ASKED if was_asked else Now.SAME), f"Rule: {terms.rule}."
    approved = [d.person_id for d in past.decisions if d.verdict is Verdict.APPROVE]
    was_given = request.approved_at is not None
    today = _at_the_time(request, answer)
    made = votes(config, today, approved, facts, at=None)
    if not was_given or open_stage(today, made) is None:
        return Now.SAME, f"Rule: {terms.rule}."
    silent = facts.unknown(who for stage in terms.stages for who in stage.approvers)
    if silent:
        return Now.UNKNOWN, f"Nobody knows who is in {', '.join(silent)}. Rule: {terms.rule}."
    return Now.SOMEONE_ELSE, f"Those who approved it would not be enough. Rule: {terms.rule}."


def _at_the_time(request: Request, answer: Allowed) -> Request:
    return Request(**{**{n: getattr(request, n) for n in request.__dataclass_fields__}, "terms": answer.terms})
