"""Evaluations as text: how an evaluation came about, and what would be allowed instead. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from bot.durations import format_duration
from bot.policy.catalog import CatalogEntry, catalog_entries
from bot.policy.config import Config
from bot.policy.facts import Facts
from bot.policy.questions import Evaluation, MissingPart, NotAllowed, PolicyQuestion
from storage.records import RequestKind, Terms

ENTRIES_SHOWN = 6


def no_rule_text(config: Config, question: PolicyQuestion, facts: Facts) -> str:
    """The refusal where no rule answers, with what would be allowed. It never names a database the person may not have."""
    here = catalog_entries(config, question.person_id, facts, question.kind, database=question.database)
    what = f"{question.level} on {question.database}" if here else f"{question.database}"
    offered = here or catalog_entries(config, question.person_id, facts, question.kind)
    near = difflib.get_close_matches(question.database or "", sorted({entry.database for entry in offered}), n=1)
    hint = f" Did you mean {near[0]}?" if near and not here else ""
    listed = ", ".join(
        f"{entry.level}{'' if here else ' on ' + entry.database} (up to {format_duration(entry.max_duration)})"
        for entry in offered[:ENTRIES_SHOWN]
    )
    more = " …" if len(offered) > ENTRIES_SHOWN else ""
    may = f" You may ask for {listed}{more}." if listed else " There is nothing you may ask for."
    is_break_glass = question.kind is RequestKind.BREAK_GLASS
    refusal = "You may not use break-glass access for" if is_break_glass else "You may not ask for"
    return f"{refusal} {what}.{hint}{may}{_rules_of(here)}"


def _rules_of(offered: Sequence[CatalogEntry]) -> str:
    names = list(dict.fromkeys(entry.rule for entry in offered[:ENTRIES_SHOWN]))
    return f" {'Rule' if len(names) == 1 else 'Rules'}: {', '.join(names)}." if names else ""


def explain_evaluation(evaluation: Evaluation) -> tuple[str, ...]:
    """The result, then how it came about, line by line."""
    if isinstance(evaluation, MissingPart):
        among = f" One of: {', '.join(evaluation.choices)}." if evaluation.choices else ""
        return (f"The {evaluation.part} is missing.{among}",)
    if isinstance(evaluation, NotAllowed):
        return ("Refused.", *evaluation.path, evaluation.reason)
    return ("Allowed to ask.", *evaluation.path, *_terms_lines(evaluation.terms))


def _terms_lines(terms: Terms) -> tuple[str, ...]:
    lasts = f"For {format_duration(terms.duration)}, {terms.level['name']}; the request goes to {terms.channel}."
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
