"""An ask as it stands in the file's own tests: ``U01ADA orders-prod readonly 2h PAY-311 refund``. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from bot.durations import parse_duration

A_DURATION = re.compile(r"\d+\w*", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What was written; what is None was left out."""

    person_id: str
    database: str
    level: str | None
    duration: timedelta | None
    reason: str | None


def parse_ask(text: str, levels: Mapping[str, Iterable[str]]) -> Asked:
    """``PERSON DATABASE [LEVEL] [DURATION] [REASON…]``; ``levels`` has those of each database. Raises ValueError."""
    words = text.split()
    if len(words) < 2:  # noqa: PLR2004 - person and database
        raise ValueError("an ask looks like: U01ADA orders-prod readonly 2h PAY-311 refund")
    person, database, *left = words
    is_level = bool(left) and not A_DURATION.fullmatch(left[0]) and _is_level(left, levels.get(database, ()))
    level = left.pop(0) if is_level else None
    duration = parse_duration(left.pop(0)) if left and A_DURATION.fullmatch(left[0]) else None
    reason = " ".join(left) or None
    return Asked(
        person_id=person,
        database=database,
        level=level,
        duration=duration,
        reason=reason,
    )


def _is_level(left: Sequence[str], levels: Iterable[str]) -> bool:
    """A level the database has, or a word that stands alone or before a duration where one would stand."""
    return left[0] in levels or len(left) == 1 or A_DURATION.fullmatch(left[1]) is not None
