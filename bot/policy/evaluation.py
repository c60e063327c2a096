"""Pure decisions with a reason: may this person ask? Facts in, a value out, nothing else.

A rule is matched by person, database, level and break-glass. The first that matches answers, also with a no, unless it
says to ask the rules below it; no match is a no. Every answer carries the path through the rules that led to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

import re2

from bot.databases import level_json
from bot.durations import SHORTEST, exact_duration, format_duration
from bot.policy.asking import About, Allowed, Answer, Missing, PolicyQuestion, Refused
from bot.policy.catalog import catalog_entries
from bot.policy.facts import NOTHING_KNOWN, Facts, can_complete, names_of, who_may_decide
from bot.policy.loader import Config
from bot.policy.rules import Rule
from bot.policy.wording import not_yours
from storage.records import Request, RequestKind, Terms, UsageCounts

REASON_MAX = 1000
WHOM_SHOWN = 3
KINDS = {
    RequestKind.ACCESS: "access",
    RequestKind.BREAK_GLASS: "break-glass access",
    RequestKind.EXTENSION: "more time",
}
ASKS_NEXT: frozenset[About] = frozenset({"duration", "ticket", "hours"})
"""With these a rule that says ``otherwise: next`` leaves the answer to the rules below it."""


def may_ask(config: Config, ask: PolicyQuestion, facts: Facts = NOTHING_KNOWN) -> Answer:
    """Which rule answers, and how."""
    if ask.database is None:
        return Missing(what="database")
    if ask.kind is RequestKind.EXTENSION and ask.grant is None:
        return Refused(reason="More time is asked for a live grant, by its number.")
    if ask.grant is not None and (no := _not_extended(config, ask.grant)) is not None:
        return Refused(reason=no, path=("What a grant is decides whether it can be extended, before any rule.",))
    if ask.level is None:
        mine = tuple(
            dict.fromkeys(
                o.level for o in catalog_entries(config, ask.person_id, facts, ask.kind, database=ask.database)
            )
        )
        if len(mine) > 1:
            return Missing(what="level", choices=mine)
        ask = replace(ask, level=mine[0] if mine else None)
    return _Walk(config, ask, facts).answer()


def _not_extended(config: Config, grant: Request) -> str | None:
    if grant.kind is RequestKind.BREAK_GLASS:
        return "Break-glass access is never extended. Ask for access, or break the glass again once it is signed off."
    entry = config.databases.get(grant.database)
    if entry is None or grant.level not in entry.levels:
        return f"{grant.level} on {grant.database} is no longer to be had, so #{grant.id} is not extended."
    if not same_level(grant.terms, replace(grant.terms, level=level_json(grant.level, entry))):
        return (
            f"The level {grant.level} was changed since #{grant.id} was given, so it is not extended. Please ask anew."
        )
    return None


def same_level(one: Terms, other: Terms) -> bool:
    """A level is the same when roles, grants, database and settings are."""
    return all(one.level.get(part) == other.level.get(part) for part in ("roles", "grants", "database", "settings"))


@dataclass
class _Walk:
    """One walk down the rules, remembering its way."""

    config: Config
    ask: PolicyQuestion
    facts: Facts
    path: list[str] = field(default_factory=list)

    def answer(self) -> Answer:
        ask, config = self.ask, self.config
        entry = config.databases.get(ask.database or "")
        if entry is None:
            self.path.append(f"No database is named {ask.database}.")
        elif ask.level is not None and ask.level not in entry.levels:
            self.path.append(f"{ask.database} has no level {ask.level}.")
        else:
            found = self._down(config.about.get(ask.database or "", ()))
            if found is not None:
                return replace(found, path=tuple(self.path)) if not isinstance(found, Missing) else found
        whom = tuple(config.policy.admins[:WHOM_SHOWN])
        return Refused(reason=not_yours(config, ask, self.facts), path=tuple(self.path), whom=whom)

    def _down(self, about: Sequence[Rule]) -> Answer | None:
        declined: Refused | None = None
        mine = names_of(self.facts, self.ask.person_id)
        for rule in about:
            found = self._by(rule, mine)
            if isinstance(found, Refused) and found.about in ASKS_NEXT and rule.asks_next:
                self.path.append(f"Rule “{rule.name}” says no and to ask the rules below: {found.reason}")
                declined = declined or found
            elif found is not None:
                return found
        self.path.append("No rule answers, and no rule is a no.")
        return declined

    def _by(self, rule: Rule, mine: frozenset[str]) -> Answer | None:
        """The rule's answer; None where it is not about this ask, and the path says why."""
        ask, begin = self.ask, f"Rule “{rule.name}” is about {self.ask.database}"
        if not rule.answers(ask.kind):
            self.path.append(f"{begin}, but not for {KINDS[ask.kind]}.")
        elif rule.requesters is not None and mine.isdisjoint(rule.requesters):
            silent = self.facts.silent(rule.looked_up)
            if silent and (ask.level is None or rule.names_level(ask.level)):
                self.path.append(f"Rule “{rule.name}” may answer: nobody knows who is in {_listed(silent)}.")
                return _nobody_knows(rule, silent)
            self.path.append(f"{begin}, but not for this person.")
        elif ask.level is None or not rule.names_level(ask.level):
            self.path.append(f"{begin} and this person, but not about {ask.level or 'any level it has'}.")
        else:
            found = by_rule(self.config, ask, rule, self.facts)
            if not (isinstance(found, Refused) and found.about in ASKS_NEXT and rule.asks_next):
                self.path.append(f"Rule “{rule.name}” answers.")
            return found
        return None


def _nobody_knows(rule: Rule, silent: tuple[str, ...]) -> Refused:
    words = (
        f"Slack did not say who is in {_listed(silent)}, and no answer is a no. Please try again. Rule: {rule.name}."
    )
    return Refused(reason=words, about="people", unknown=silent, rule=rule.name)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)


@dataclass(frozen=True, kw_only=True)
class _Matched:
    """An ask before the rule that answers it."""

    config: Config
    ask: PolicyQuestion
    rule: Rule
    tally: UsageCounts | None

    @property
    def longest(self) -> timedelta:
        """The tightest limit; of an extension what is left of the whole life of its grant, too."""
        ask, grant = self.ask, self.ask.grant
        cap = self.rule.cap(self.config.databases[ask.database or ""], ask.level or "")
        if grant is None or grant.started_at is None or grant.expires_at is None:
            return cap
        return min(cap, self.rule.max_total - (grant.expires_at - grant.started_at))

    @property
    def duration(self) -> timedelta:
        """As asked, or the default: never longer than the limits."""
        return min(self.rule.duration, self.longest) if self.ask.duration is None else self.ask.duration

    @property
    def reason(self) -> str:
        return (self.ask.reason or "").strip()

    @property
    def ticket(self) -> str | None:
        found = re2.search(self.rule.ticket, self.reason) if self.rule.ticket else None
        return str(found.group(0)) if found else None

    def no(self, words: str, about: About) -> Refused:
        return Refused(reason=f"{words} Rule: {self.rule.name}.", about=about, rule=self.rule.name)


def by_rule(config: Config, ask: PolicyQuestion, rule: Rule, facts: Facts) -> Answer:
    """The answer of one rule that matches. What it refuses it refuses in the order of ``CHECKS``."""
    matched = _Matched(config=config, ask=ask, rule=rule, tally=facts.tally)
    if rule.refuse is not None:
        return matched.no(rule.refuse, "what")
    for check in CHECKS:
        if (no := check(matched)) is not None:
            return no
    terms = _terms(matched)
    return _nobody_left(terms, ask, facts) or Allowed(terms=terms, path=(), ticket=matched.ticket)


def _out_of_hours(matched: _Matched) -> Refused | None:
    ask, hours = matched.ask, matched.rule.hours
    if hours is None or ask.at is None or hours.cover(ask.at):
        return None
    return matched.no(f"{ask.level} on {ask.database} can be asked for {hours}.", "hours")


def _wrong_duration(matched: _Matched) -> Refused | None:
    ask, duration, cap = matched.ask, matched.duration, matched.longest
    if ask.grant is not None and cap < SHORTEST:
        most = exact_duration(matched.rule.max_total)
        return matched.no(f"#{ask.grant.id} may not live any longer: at most {most} in all.", "duration")
    if duration < SHORTEST:
        return Refused(reason=f"That is too short: at least {format_duration(SHORTEST)}.", about="duration")
    if duration > cap:
        wanted, most = exact_duration(duration), exact_duration(cap)
        return matched.no(f"{wanted} is too long for {ask.level} on {ask.database}: at most {most}.", "duration")
    return None


def _wrong_reason(matched: _Matched) -> Refused | Missing | None:
    if not matched.ask.needs_reason:
        return None
    length, least = len(matched.reason), matched.rule.min_reason
    if length == 0:
        return Missing(what="reason")
    if length < least:
        words = f"Say why in at least {least} characters: what should an auditor read in a year?"
        return Refused(reason=words, about="reason")
    words = f"The reason has {length} characters; at most {REASON_MAX}."
    return Refused(reason=words, about="reason") if length > REASON_MAX else None


def _no_ticket(matched: _Matched) -> Refused | None:
    """An ask for which only the rule is wanted has a fitting reason, unless one was given."""
    ask, wanted = matched.ask, matched.rule.ticket
    if wanted is None or matched.ticket or (ask.reason is None and not ask.needs_reason):
        return None
    return matched.no(f"The reason must name a ticket that looks like {wanted}.", "ticket")


def _too_many(matched: _Matched) -> Refused | None:
    """Limits and caps. Break-glass is not counted, but there is only one until it is signed off."""
    if matched.tally is None:
        return None
    if matched.ask.kind is RequestKind.BREAK_GLASS:
        number = matched.tally.unreviewed
        words = f"Your break-glass access #{number} has not been signed off; until then there is no other."
        return None if number is None else matched.no(words, "limits")
    return next(
        (matched.no(words, "limits") for there, most, words in _counted(matched) if most and there >= most), None
    )


def _counted(matched: _Matched) -> Iterator[tuple[int, int | None, str]]:
    """What there is, what there may be, and the words for too much."""
    limits, ask, tally, rule = matched.config.policy.limits, matched.ask, matched.tally or UsageCounts(), matched.rule
    waiting, most = tally.waiting_of_person, limits.waiting_per_person
    yield waiting, most, f"You have {waiting} waiting requests, and {most} is the most. Cancel one, or wait."
    automatic, most = tally.automatic.get(rule.name, 0), rule.automatic
    yield automatic, most, f"You were granted this {automatic} times in the last 24 hours, and {most} is the most."
    if ask.kind is RequestKind.ACCESS:
        mine, most = tally.live_of_person, limits.live_per_person
        yield mine, most, f"You have {mine} live grants, and {most} is the most. Give one back first."
        there, most = tally.live_of_database, limits.live_per_database
        yield there, most, f"{ask.database} has {there} live grants, and {most} is the most. Please try again later."


CHECKS: tuple[Callable[[_Matched], Refused | Missing | None], ...] = (
    _out_of_hours,
    _wrong_duration,
    _wrong_reason,
    _no_ticket,
    _too_many,
)


def _nobody_left(terms: Terms, ask: PolicyQuestion, facts: Facts) -> Refused | None:
    """Where not enough people could ever decide, nobody is asked in vain: a group is silent, or empty."""
    if not ask.is_new:
        return None
    also = terms.escalation.to if terms.escalation else ()
    people = who_may_decide(facts, terms.stages, but=ask.person_id, also=also)
    if can_complete(people, [stage.count for stage in terms.stages]):
        return None
    named = [who for stage in terms.stages for who in stage.approvers] + list(also)
    silent = facts.unknown(dict.fromkeys(named))
    if silent:
        return None if facts.is_offline else _nobody_knows_approvers(terms, silent)
    empty = tuple(name for name in dict.fromkeys(named) if not facts.people([name]))
    why = f" There is nobody in {_listed(empty)}." if empty else ""
    words = f"Nobody could approve this: too few people may decide it besides you.{why} Rule: {terms.rule}."
    return Refused(reason=words, about="people", unknown=empty or tuple(dict.fromkeys(named)), rule=terms.rule)


def _nobody_knows_approvers(terms: Terms, silent: tuple[str, ...]) -> Refused:
    words = f"Slack did not say who is in {_listed(silent)}, who would decide. Please try again. Rule: {terms.rule}."
    return Refused(reason=words, about="people", unknown=silent, rule=terms.rule)


def _terms(matched: _Matched) -> Terms:
    config, ask, rule = matched.config, matched.ask, matched.rule
    return Terms(
        rule=rule.name,
        stages=rule.stages,
        channel=rule.channel,
        duration=matched.duration,
        request_ttl=rule.request_ttl,
        provision_within=rule.provision_within,
        delivery=rule.delivery,
        level=level_json(ask.level or "", config.databases[ask.database or ""]),
        policy_digest=config.digest,
        max_total=rule.max_total,
        remind_after=rule.remind_after,
        claim_within=rule.claim_within if rule.delivery == "reveal" else None,
        escalation=rule.escalation,
        review=rule.review,
        notify=rule.notify,
    )
