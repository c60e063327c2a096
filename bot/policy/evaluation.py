"""Evaluate a request by the policy: may this person have this access? Pure: facts in, an evaluation out.

A rule matches by person, database, level and break-glass. The first rule that matches answers, even with a refusal,
unless it says ``otherwise: next``. If no rule matches, the request is refused. Every evaluation carries the path
through the rules that led to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

import re2

from bot.databases import level_json
from bot.durations import SHORTEST, exact_duration, format_duration
from bot.policy.catalog import catalog_entries
from bot.policy.config import Config
from bot.policy.explain import no_rule_text
from bot.policy.facts import NO_FACTS, Facts, can_complete, possible_approvers
from bot.policy.questions import Allowed, Evaluation, MissingPart, NotAllowed, PolicyQuestion, Subject
from bot.policy.rules import Rule
from storage.records import Request, RequestKind, Terms, UsageCounts

REASON_MAX = 1000
ADMINS_SHOWN = 3
KIND_NAMES = {
    RequestKind.ACCESS: "access",
    RequestKind.BREAK_GLASS: "break-glass access",
    RequestKind.EXTENSION: "more time",
}
FALL_THROUGH: frozenset[Subject] = frozenset({"duration", "ticket", "hours"})
"""Refusals about these subjects fall through to the rules below, where the rule says ``otherwise: next``."""


def evaluate(config: Config, question: PolicyQuestion, facts: Facts = NO_FACTS) -> Evaluation:
    """Find the rule that answers, and its answer. Without a level, the only level the person may have is taken."""
    if question.database is None:
        return MissingPart(part="database")
    if question.kind is RequestKind.EXTENSION and question.grant is None:
        return NotAllowed(reason="More time is requested for a live grant, by its number.")
    if question.grant is not None and (obstacle := _extension_obstacle(config, question.grant)) is not None:
        return NotAllowed(reason=obstacle, path=("This grant cannot be extended, whatever the rules say.",))
    if question.level is None:
        entries = catalog_entries(config, question.person_id, facts, question.kind, database=question.database)
        levels = tuple(dict.fromkeys(entry.level for entry in entries))
        if len(levels) > 1:
            return MissingPart(part="level", choices=levels)
        question = replace(question, level=levels[0] if levels else None)
    return _RuleWalk(config, question, facts).evaluation()


def _extension_obstacle(config: Config, grant: Request) -> str | None:
    if grant.kind is RequestKind.BREAK_GLASS:
        return "Break-glass access is never extended. Ask for access, or use break-glass access again once it is signed off."
    entry = config.databases.get(grant.database)
    if entry is None or grant.level not in entry.levels:
        return f"{grant.level} on {grant.database} no longer exists, so #{grant.id} cannot be extended."
    if not same_level(grant.terms, replace(grant.terms, level=level_json(grant.level, entry))):
        return f"The level {grant.level} was changed since #{grant.id} was granted, so it cannot be extended. Please make a new request."
    return None


def same_level(one: Terms, other: Terms) -> bool:
    """Two levels are the same when their roles, grants, database, settings and ``set_role`` are equal. A level of an older version has no ``set_role``."""
    parts = ("roles", "grants", "database", "settings")
    is_set_role_same = one.level.get("set_role", False) == other.level.get("set_role", False)
    return is_set_role_same and all(one.level.get(part) == other.level.get(part) for part in parts)


@dataclass
class _RuleWalk:
    """One walk down the rules. ``path`` records what each rule said."""

    config: Config
    question: PolicyQuestion
    facts: Facts
    path: list[str] = field(default_factory=list)

    def evaluation(self) -> Evaluation:
        question, config = self.question, self.config
        entry = config.databases.get(question.database or "")
        if entry is None:
            self.path.append(f"No database is named {question.database}.")
        elif question.level is not None and question.level not in entry.levels:
            self.path.append(f"{question.database} has no level {question.level}.")
        else:
            found = self._first_answer(config.rules_by_database.get(question.database or "", ()))
            if found is not None:
                return replace(found, path=tuple(self.path)) if not isinstance(found, MissingPart) else found
        admins = tuple(config.policy.admins[:ADMINS_SHOWN])
        return NotAllowed(reason=no_rule_text(config, question, self.facts), path=tuple(self.path), whom=admins)

    def _first_answer(self, rules: Sequence[Rule]) -> Evaluation | None:
        refusal: NotAllowed | None = None
        names = self.facts.names_of(self.question.person_id)
        for rule in rules:
            found = self._answer_of(rule, names)
            if isinstance(found, NotAllowed) and _falls_through(rule, found):
                self.path.append(f"Rule “{rule.name}” refuses and leaves it to the rules below: {found.reason}")
                refusal = refusal or found
            elif found is not None:
                return found
        self.path.append("No rule answers, so the request is refused.")
        return refusal

    def _answer_of(self, rule: Rule, names: frozenset[str]) -> Evaluation | None:
        """The rule's answer. None where the rule does not match; the path then says why."""
        question, begin = self.question, f"Rule “{rule.name}” is about {self.question.database}"
        if not rule.answers(question.kind):
            self.path.append(f"{begin}, but not for {KIND_NAMES[question.kind]}.")
        elif rule.requesters is not None and names.isdisjoint(rule.requesters):
            unknown = self.facts.without_members(rule.directory_requesters)
            if unknown and (question.level is None or rule.includes_level(question.level)):
                self.path.append(f"Rule “{rule.name}” may match: the members of {_listed(unknown)} are unknown.")
                return _unknown_requesters(rule, unknown)
            self.path.append(f"{begin}, but not for this person.")
        elif question.level is None or not rule.includes_level(question.level):
            self.path.append(f"{begin} and this person, but not about {question.level or 'any level it has'}.")
        else:
            found = _evaluate_rule(self.config, question, rule, self.facts)
            if not (isinstance(found, NotAllowed) and _falls_through(rule, found)):
                self.path.append(f"Rule “{rule.name}” answers.")
            return found
        return None


def _falls_through(rule: Rule, refusal: NotAllowed) -> bool:
    return rule.falls_through and refusal.about in FALL_THROUGH


def _unknown_requesters(rule: Rule, unknown: tuple[str, ...]) -> NotAllowed:
    reason = (
        f"Slack did not say who is in {_listed(unknown)}, so access is not given. Please try again. Rule: {rule.name}."
    )
    return NotAllowed(reason=reason, about="people", unknown=unknown, rule=rule.name)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)


@dataclass(frozen=True, kw_only=True)
class _RuleMatch:
    """A question and the rule that answers it."""

    config: Config
    question: PolicyQuestion
    rule: Rule
    usage: UsageCounts | None

    @property
    def longest(self) -> timedelta:
        """The tightest limit. For an extension also what is left of ``max_total`` of its grant."""
        question, grant = self.question, self.question.grant
        cap = self.rule.cap(self.config.databases[question.database or ""], question.level or "")
        if grant is None or grant.started_at is None or grant.expires_at is None:
            return cap
        return min(cap, self.rule.max_total - (grant.expires_at - grant.started_at))

    @property
    def duration(self) -> timedelta:
        """The requested duration, or the default within the limits."""
        return min(self.rule.duration, self.longest) if self.question.duration is None else self.question.duration

    @property
    def reason(self) -> str:
        return (self.question.reason or "").strip()

    @property
    def ticket(self) -> str | None:
        found = re2.search(self.rule.ticket, self.reason) if self.rule.ticket else None
        return str(found.group(0)) if found else None

    def refusal(self, reason: str, about: Subject) -> NotAllowed:
        return NotAllowed(reason=f"{reason} Rule: {self.rule.name}.", about=about, rule=self.rule.name)


def _evaluate_rule(config: Config, question: PolicyQuestion, rule: Rule, facts: Facts) -> Evaluation:
    """The answer of a rule that matches. The first of ``CHECKS`` that fails is the refusal."""
    match = _RuleMatch(config=config, question=question, rule=rule, usage=facts.usage)
    if rule.refuse is not None:
        return match.refusal(rule.refuse, "what")
    for check in CHECKS:
        if (failed := check(match)) is not None:
            return failed
    terms = _terms(match)
    return _check_approvers(terms, question, facts) or Allowed(terms=terms, path=(), ticket=match.ticket)


def _check_hours(match: _RuleMatch) -> NotAllowed | None:
    question, hours = match.question, match.rule.hours
    if hours is None or question.at is None or hours.cover(question.at):
        return None
    return match.refusal(f"{question.level} on {question.database} can be asked for {hours}.", "hours")


def _check_duration(match: _RuleMatch) -> NotAllowed | None:
    question, duration, cap = match.question, match.duration, match.longest
    if question.grant is not None and cap < SHORTEST:
        most = exact_duration(match.rule.max_total)
        return match.refusal(f"#{question.grant.id} cannot be extended: it may last at most {most} in all.", "duration")
    if duration < SHORTEST:
        return NotAllowed(reason=f"That is too short: at least {format_duration(SHORTEST)}.", about="duration")
    if duration > cap:
        requested, most, what = (
            exact_duration(duration),
            exact_duration(cap),
            f"{question.level} on {question.database}",
        )
        return match.refusal(f"{requested} is too long for {what}: at most {most}.", "duration")
    return None


def _check_reason(match: _RuleMatch) -> NotAllowed | MissingPart | None:
    if not match.question.needs_reason:
        return None
    length, least = len(match.reason), match.rule.min_reason
    if length == 0:
        return MissingPart(part="reason")
    if length < least:
        reason = f"Say why in at least {least} characters: what should an auditor read in a year?"
        return NotAllowed(reason=reason, about="reason")
    reason = f"The reason has {length} characters; at most {REASON_MAX}."
    return NotAllowed(reason=reason, about="reason") if length > REASON_MAX else None


def _check_ticket(match: _RuleMatch) -> NotAllowed | None:
    """Where only the rule matters, a missing reason counts as one with a ticket."""
    question, pattern = match.question, match.rule.ticket
    if pattern is None or match.ticket or (question.reason is None and not question.needs_reason):
        return None
    return match.refusal(f"The reason must name a ticket that looks like {pattern}.", "ticket")


def _check_limits(match: _RuleMatch) -> NotAllowed | None:
    """Limits and caps. Break-glass access is not counted, but a person cannot use it again until it is signed off."""
    if match.usage is None:
        return None
    if match.question.kind is RequestKind.BREAK_GLASS:
        number = match.usage.unreviewed
        reason = f"Your break-glass access #{number} has not been signed off. Until then you cannot use it again."
        return None if number is None else match.refusal(reason, "limits")
    return next(
        (
            match.refusal(reason, "limits")
            for count, limit, reason in _limits_and_counts(match)
            if limit and count >= limit
        ),
        None,
    )


def _limits_and_counts(match: _RuleMatch) -> Iterator[tuple[int, int | None, str]]:
    """For each limit: the current count, the limit, and the refusal where it is reached."""
    limits, question, usage, rule = match.config.policy.limits, match.question, match.usage or UsageCounts(), match.rule
    count, limit = usage.waiting_of_person, limits.waiting_per_person
    yield count, limit, f"You have {count} waiting requests, and {limit} is the most. Cancel one, or wait."
    count, limit = usage.automatic.get(rule.name, 0), rule.automatic
    yield count, limit, f"You were granted this {count} times in the last 24 hours, and {limit} is the most."
    if question.kind is RequestKind.ACCESS:
        count, limit = usage.live_of_person, limits.live_per_person
        yield count, limit, f"You have {count} live grants, and {limit} is the most. End one first."
        count, limit = usage.live_of_database, limits.live_per_database
        yield (
            count,
            limit,
            f"{question.database} has {count} live grants, and {limit} is the most. Please try again later.",
        )


CHECKS: tuple[Callable[[_RuleMatch], NotAllowed | MissingPart | None], ...] = (
    _check_hours,
    _check_duration,
    _check_reason,
    _check_ticket,
    _check_limits,
)


def _check_approvers(terms: Terms, question: PolicyQuestion, facts: Facts) -> NotAllowed | None:
    """Refuse a new request that could never be approved: a group is empty, or its members are unknown."""
    if not question.is_new:
        return None
    also = terms.escalation.to if terms.escalation else ()
    people = possible_approvers(facts, terms.stages, but=question.person_id, also=also)
    if can_complete(people, [stage.count for stage in terms.stages]):
        return None
    named = [who for stage in terms.stages for who in stage.approvers] + list(also)
    unknown = facts.unknown(dict.fromkeys(named))
    if unknown:
        return None if facts.is_offline else _unknown_approvers(terms, unknown)
    empty = tuple(name for name in dict.fromkeys(named) if not facts.expand([name]))
    why = f" There is nobody in {_listed(empty)}." if empty else ""
    reason = f"Nobody could approve this: too few people may decide it besides you.{why} Rule: {terms.rule}."
    return NotAllowed(reason=reason, about="people", unknown=empty or tuple(dict.fromkeys(named)), rule=terms.rule)


def _unknown_approvers(terms: Terms, unknown: tuple[str, ...]) -> NotAllowed:
    reason = f"Slack did not say who is in {_listed(unknown)}, who would decide. Please try again. Rule: {terms.rule}."
    return NotAllowed(reason=reason, about="people", unknown=unknown, rule=terms.rule)


def _terms(match: _RuleMatch) -> Terms:
    config, question, rule = match.config, match.question, match.rule
    return Terms(
        rule=rule.name,
        stages=rule.stages,
        channel=rule.channel,
        duration=match.duration,
        request_ttl=rule.request_ttl,
        provision_within=rule.provision_within,
        delivery=rule.delivery,
        level=level_json(question.level or "", config.databases[question.database or ""]),
        policy_digest=config.digest,
        max_total=rule.max_total,
        remind_after=rule.remind_after,
        claim_within=rule.claim_within if rule.delivery == "reveal" else None,
        escalation=rule.escalation,
        review=rule.review,
        notify=rule.notify,
    )
