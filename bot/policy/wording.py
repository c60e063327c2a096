"""Answers of the policy in words: what would be allowed instead, and how an answer came about. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from bot.durations import format_duration
from bot.policy.asking import Answer, Missing, PolicyQuestion, Refused
from bot.policy.catalog import CatalogEntry, catalog_entries
from bot.policy.facts import Facts
from bot.policy.loader import Config
from storage.records import RequestKind, Terms

ENTRIES_SHOWN = 6


def not_yours(config: Config, ask: PolicyQuestion, facts: Facts) -> str:
    """The refusal, with what would be allowed; names of databases that are not theirs are not given away."""
    here = catalog_entries(config, ask.person_id, facts, ask.kind, database=ask.database)
    what = f"{ask.level} on {ask.database}" if here else f"{ask.database}"
    mine = here or catalog_entries(config, ask.person_id, facts, ask.kind)
    near = difflib.get_close_matches(ask.database or "", sorted({o.database for o in mine}), n=1)
    hint = f" Did you mean {near[0]}?" if near and not here else ""
    listed = ", ".join(
        f"{o.level}{'' if here else ' on ' + o.database} (up to {format_duration(o.max_duration)})"
        for o in mine[:ENTRIES_SHOWN]
    )
    more = " …" if len(mine) > ENTRIES_SHOWN else ""
    may = f" You may ask for {listed}{more}." if listed else " There is nothing you may ask for."
    glass = "You may not break the glass for" if ask.kind is RequestKind.BREAK_GLASS else "You may not ask for"
    return f"{glass} {what}.{hint}{may}{_rules_of(here)}"


def _rules_of(offered: Sequence[CatalogEntry]) -> str:
    names = list(dict.fromkeys(entry.rule for entry in offered[:ENTRIES_SHOWN]))
    return f" {'Rule' if len(names) == 1 else 'Rules'}: {', '.join(names)}." if names else ""


def explained(answer: Answer) -> tuple[str, ...]:
    """The answer and how it came about, line by line."""
    if isinstance(answer, Missing):
        among = f" One of: {', '.join(answer.choices)}." if answer.choices else ""
        return (f"The {answer.what} is missing.{among}",)
    if isinstance(answer, Refused):
        return ("Refused.", *answer.path, answer.reason)
    return ("Allowed to ask.", *answer.path, *_terms_words(answer.terms))


def _terms_words(terms: Terms) -> tuple[str, ...]:
    lasts = f"For {format_duration(terms.duration)}, {terms.level['name']}; asked in {terms.channel}."
    stages = [f"{s.count} of {', '.join(s.approvers)} must approve." for s in terms.stages]
    if not stages and terms.review is None:
        stages = ["Nobody is asked: it is granted at once."]
    if terms.escalation is not None:
        after = format_duration(terms.escalation.after)
        stages.append(f"After {after} {', '.join(terms.escalation.to)} may decide as well.")
    if terms.review is not None:
        within = format_duration(terms.review.within)
        stages.append(f"Granted at once; {', '.join(terms.review.reviewers)} must sign it off within {within}.")
    return (lasts, *stages)
