"""Pure decisions with a reason: may this person ask, decide, revoke, see. Facts in, a value out, nothing else.

The first rule that matches by person, database and level answers, also with a no; no match is a no. Every
answer carries the path through the rules that led to it.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal, TypeAlias

from bot.databases import level_json
from bot.durations import SHORTEST, exact_duration, format_duration
from bot.policy.load import Config
from bot.policy.rules import Rule
from storage.lifecycle import open_stage
from storage.records import Decision, Kind, Request, Terms, Verdict

REASON_MAX = 1000
OFFERS_SHOWN = 6
KINDS = {Kind.ACCESS: "access", Kind.BREAK_GLASS: "break-glass access", Kind.EXTENSION: "more time"}


@dataclass(frozen=True, kw_only=True)
class Ask:
    """A question to the policy. ``needs_reason`` is False where only the rule is wanted (explain, offers)."""

    person_id: str
    database: str | None
    level: str | None = None
    duration: timedelta | None = None
    reason: str | None = None
    kind: Kind = Kind.ACCESS
    at: datetime | None = None
    needs_reason: bool = True


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """The ask may be put to its approvers, on these terms."""

    terms: Terms
    path: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Refused:
    """``reason`` is a sentence for the asker that says what would be allowed instead."""

    reason: str
    path: tuple[str, ...] = ()
    about: Literal["what", "duration", "reason"] = "what"


@dataclass(frozen=True, kw_only=True)
class Missing:
    """Something was left out that nothing else decides: the form asks for it, among ``choices`` where there are some."""

    what: Literal["database", "level", "reason"]
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class MayDecide:
    """The vote counts, in this stage."""

    stage: int


@dataclass(frozen=True, kw_only=True)
class Outdated:
    """The policy or the level changed since the ask; ``what`` says how."""

    what: str


@dataclass(frozen=True, kw_only=True)
class Offer:
    """Something a person may ask for."""

    database: str
    description: str
    level: str
    level_description: str
    duration: timedelta
    max_duration: timedelta
    rule: str


Answer: TypeAlias = Allowed | Refused | Missing


# Asking.


def may_ask(config: Config, ask: Ask) -> Answer:
    """Which rule answers, and how."""
    if ask.kind is not Kind.ACCESS:
        return Refused(reason=f"No rule answers asks for {KINDS[ask.kind]}.", path=("No rule is about such asks.",))
    database = ask.database
    if database is None:
        return Missing(what="database")
    mine = offers(config, ask.person_id, database=database)
    if not mine:
        return Refused(reason=_not_yours(config, ask, database), path=_path(config, ask, database))
    level = ask.level or (mine[0].level if len(mine) == 1 else None)
    if level is None:
        return Missing(what="level", choices=tuple(offer.level for offer in mine))
    ask = replace(ask, level=level)
    rule = _answering(config, ask.person_id, database, level)
    path = _path(config, ask, database)
    if rule is None:
        return Refused(reason=_not_yours(config, ask, f"{level} on {database}"), path=path)
    return _by_rule(config, ask, rule, path)


def _answering(config: Config, person_id: str, database: str, level: str) -> Rule | None:
    entry = config.databases.get(database)
    if entry is None or level not in entry.levels:
        return None
    about = config.about.get(database, ())
    return next((rule for rule in about if rule.names_level(level) and rule.names_person(person_id)), None)


def _by_rule(config: Config, ask: Ask, rule: Rule, path: tuple[str, ...]) -> Answer:
    assert ask.database is not None, "looked at before"
    assert ask.level is not None, "looked at before"
    entry = config.databases[ask.database]
    cap = rule.cap(entry, ask.level)
    duration = min(rule.duration, cap) if ask.duration is None else ask.duration
    if (no := _wrong_duration(ask, rule, duration, cap)) is not None:
        return Refused(reason=no, path=path, about="duration")
    if ask.needs_reason:
        if not (ask.reason or "").strip():
            return Missing(what="reason")
        if (no := _wrong_reason(ask.reason or "", rule)) is not None:
            return Refused(reason=no, path=path, about="reason")
    terms = Terms(
        rule=rule.name,
        stages=rule.stages,
        channel=rule.channel,
        duration=duration,
        request_ttl=rule.request_ttl,
        provision_within=rule.provision_within,
        delivery=rule.delivery,
        level=level_json(ask.level, entry),
        policy_digest=config.digest,
    )
    return Allowed(terms=terms, path=path)


def _wrong_duration(ask: Ask, rule: Rule, duration: timedelta, cap: timedelta) -> str | None:
    if duration < SHORTEST:
        return f"That is too short: at least {format_duration(SHORTEST)}."
    if duration > cap:
        wanted, most = exact_duration(duration), exact_duration(cap)
        return f"{wanted} is too long for {ask.level} on {ask.database}: at most {most}. Rule: {rule.name}."
    return None


def _wrong_reason(reason: str, rule: Rule) -> str | None:
    length = len(reason.strip())
    if length < rule.min_reason:
        return f"Say why in at least {rule.min_reason} characters: what should an auditor read in a year?"
    return f"The reason has {length} characters; at most {REASON_MAX}." if length > REASON_MAX else None


def _not_yours(config: Config, ask: Ask, what: str) -> str:
    """The refusal, with what would be allowed; names of databases that are not theirs are not given away."""
    here = offers(config, ask.person_id, database=ask.database)
    mine = here or offers(config, ask.person_id)
    near = difflib.get_close_matches(ask.database or "", sorted({o.database for o in mine}), n=1)
    hint = f" Did you mean {near[0]}?" if near and not here else ""
    listed = ", ".join(
        f"{o.level}{'' if here else ' on ' + o.database} (up to {format_duration(o.max_duration)})"
        for o in mine[:OFFERS_SHOWN]
    )
    more = " …" if len(mine) > OFFERS_SHOWN else ""
    may = f" You may ask for {listed}{more}." if listed else " There is nothing you may ask for."
    return f"You may not ask for {what}.{hint}{may}{_rules_of(here)}"


def _rules_of(offered: Sequence[Offer]) -> str:
    names = list(dict.fromkeys(offer.rule for offer in offered[:OFFERS_SHOWN]))
    return f" {'Rule' if len(names) == 1 else 'Rules'}: {', '.join(names)}." if names else ""


def _path(config: Config, ask: Ask, database: str) -> tuple[str, ...]:
    """In words, the rules about this database up to the one that answers."""
    if database not in config.databases:
        return (f"No database is named {database}.",)
    if ask.level is not None and ask.level not in config.databases[database].levels:
        return (f"{database} has no level {ask.level}.",)
    return tuple(_steps(config.about.get(database, ()), ask.person_id, database, ask.level))


def _steps(about: Sequence[Rule], person_id: str, database: str, level: str | None) -> Iterator[str]:
    for rule in about:
        if not rule.names_person(person_id):
            yield f"Rule “{rule.name}” is about {database}, but not for this person."
        elif level is None or not rule.names_level(level):
            yield f"Rule “{rule.name}” is about {database} and this person, but not about {level or 'any level it has'}."
        else:
            yield f"Rule “{rule.name}” answers."
            return
    yield "No rule answers, and no rule is a no."


def offers(config: Config, person_id: str, *, database: str | None = None) -> tuple[Offer, ...]:
    """What a person may ask for, of one database or of all, in the order of databases.yml."""
    rules = config.rules if database is None else config.about.get(database, ())
    names = config.databases.keys() if database is None else config.databases.keys() & {database}
    first = _first_rules(config, person_id, rules, names)
    return tuple(
        _offer(config, name, level, first[name, level])
        for name in config.databases
        if name in names
        for level in config.databases[name].levels
        if (name, level) in first
    )


def _first_rules(
    config: Config, person_id: str, rules: Sequence[Rule], names: Collection[str]
) -> dict[tuple[str, str], Rule]:
    """Database and level → the rule that answers this person. One look at each rule, however many databases there are."""
    still = {name: set(config.databases[name].levels) for name in names}
    first: dict[tuple[str, str], Rule] = {}
    shapes: set[tuple[frozenset[str], frozenset[str] | None]] = set()
    for rule in rules:
        shape = (rule.databases, rule.levels)
        if not rule.names_person(person_id) or shape in shapes:
            continue
        shapes.add(shape)
        for name in still.keys() & rule.databases:
            answered = {level for level in still[name] if rule.names_level(level)}
            first.update({(name, level): rule for level in answered})
            still[name] -= answered
            if not still[name]:
                del still[name]
    return first


def _offer(config: Config, database: str, level: str, rule: Rule) -> Offer:
    entry = config.databases[database]
    cap = rule.cap(entry, level)
    return Offer(
        database=database,
        description=entry.description,
        level=level,
        level_description=entry.levels[level].description,
        duration=min(rule.duration, cap),
        max_duration=cap,
        rule=rule.name,
    )


def explained(answer: Answer) -> tuple[str, ...]:
    """The answer and how it came about, line by line."""
    if isinstance(answer, Missing):
        among = f" One of: {', '.join(answer.choices)}." if answer.choices else ""
        return (f"The {answer.what} is missing.{among}",)
    if isinstance(answer, Refused):
        return ("Refused.", *answer.path, answer.reason)
    stages = [f"{s.count} of {', '.join(s.approvers)} must approve." for s in answer.terms.stages]
    lasts = (
        f"For {format_duration(answer.terms.duration)}, {answer.terms.level['name']}; asked in {answer.terms.channel}."
    )
    return ("Allowed to ask.", *answer.path, lasts, *stages)


# Deciding: the frozen answer and today's.


def may_decide(
    config: Config, request: Request, decisions: Sequence[Decision], person_id: str
) -> MayDecide | Refused | Outdated:
    """Does this person's vote count now? The same for approving and denying."""
    if person_id == request.requester_id:
        return Refused(reason="You cannot decide your own request.")
    today = _asked_today(config, request)
    if isinstance(today, Outdated):
        return today
    if any(d.person_id == person_id for d in decisions):
        return Refused(reason=f"You have decided #{request.id} before. A person decides once.")
    stage = open_stage(request, tuple(decisions))
    if stage is None:
        return Refused(reason=f"#{request.id} needs no further decision.")
    if person_id not in today.stages[stage].approvers:
        return Refused(reason=_only(today, stage))
    return MayDecide(stage=stage)


def _only(terms: Terms, stage: int) -> str:
    return f"Only the approvers named by the rule “{terms.rule}” can decide this (stage {stage + 1} of {len(terms.stages)})."


def _asked_today(config: Config, request: Request) -> Terms | Outdated:
    """Today's terms for the same ask, where they are those on the card."""
    ask = Ask(
        person_id=request.requester_id,
        database=request.database,
        level=request.level,
        duration=request.terms.duration,
        kind=request.kind,
        needs_reason=False,
    )
    answer = may_ask(config, ask)
    if isinstance(answer, Refused) and answer.about == "duration":
        return Outdated(what=f"the policy no longer allows so long. {answer.reason}")
    if not isinstance(answer, Allowed):
        return Outdated(what="the policy no longer allows it.")
    return _same_terms(request.terms, answer.terms)


def _same_terms(frozen: Terms, today: Terms) -> Terms | Outdated:
    if frozen.rule != today.rule:
        return Outdated(what=f"another rule answers now: “{today.rule}” instead of “{frozen.rule}”.")
    if [s.count for s in frozen.stages] != [s.count for s in today.stages]:
        return Outdated(what=f"the rule “{today.rule}” asks for other approvals now.")
    parts = ("roles", "grants", "database", "settings")
    if any(frozen.level.get(part) != today.level.get(part) for part in parts):
        return Outdated(what=f"the level {today.level['name']} was changed meanwhile.")
    return today


# People around a request.


def is_admin(config: Config, person_id: str) -> bool:
    """Named as admin, or the command line."""
    return person_id in config.policy.admins or person_id.startswith("cli:")


def may_ask_about_others(config: Config, person_id: str, database: str | None) -> bool:
    """Admins, and whoever decides about this database by any rule."""
    about = (rule for rule in config.rules if database in rule.databases)
    return is_admin(config, person_id) or any(person_id in s.approvers for rule in about for s in rule.stages)


def approvers_today(config: Config, request: Request) -> tuple[str, ...]:
    """Those whom the request's rule names today, over all its stages."""
    rule = next((r for r in config.rules if r.name == request.terms.rule), None)
    return tuple(dict.fromkeys(who for stage in (rule.stages if rule else ()) for who in stage.approvers))


def _could_decide(config: Config, request: Request, person_id: str) -> bool:
    frozen = {who for stage in request.terms.stages for who in stage.approvers}
    return person_id != request.requester_id and (person_id in frozen or person_id in approvers_today(config, request))


def may_revoke(config: Config, request: Request, decisions: Sequence[Decision], person_id: str) -> bool:
    """Its approvers, those who could have approved it (when asked or today), admins."""
    approved = any(d.person_id == person_id and d.verdict is Verdict.APPROVE for d in decisions)
    return approved or is_admin(config, person_id) or _could_decide(config, request, person_id)


def may_see(config: Config, request: Request, decisions: Sequence[Decision], person_id: str) -> bool:
    """The requester, those who decided or could, admins."""
    decided = any(d.person_id == person_id for d in decisions)
    return person_id == request.requester_id or decided or may_revoke(config, request, decisions, person_id)
