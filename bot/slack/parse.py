"""What stands after ``/dbaccess``. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta

from bot.access.errors import NotUnderstood
from bot.access.use_case_types import RequestInput
from bot.durations import LOOKS_LIKE, parse_duration
from bot.slack.render.text import clean, unescape

LOOKS_LIKE_A_DURATION = re.compile(r"\d+\w*", re.ASCII)
UNITS = re.compile(r"(?:sec(?:ond)?|min(?:ute)?|hour|hr|day)s?", re.IGNORECASE)
MENTION = re.compile(r"<@([UW][A-Z0-9]+)(?:\|[^>]*)?>")
ID = re.compile(r"#?(\d{1,18})", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Words:
    """A verb and the rest, as typed."""

    verb: str
    rest: tuple[str, ...]


def words(text: str) -> Words:
    """The first word is the verb; ``help`` where there is none. Escaping is undone once, after mentions were recognised.

    Cleaned here, since some of what cannot be shown no ledger can keep either (NUL, half a surrogate pair).
    """
    parts = [part for typed in text.split() if (part := clean(typed))]
    rest = tuple(p if MENTION.fullmatch(p) else unescape(p) for p in parts[1:])
    return Words(verb=(parts[0].lower() if parts else "help"), rest=rest)


def request_id(rest: Sequence[str], verb: str) -> int:
    """``42`` or ``#42``. Raises NotUnderstood."""
    found = ID.fullmatch(rest[0]) if len(rest) == 1 else None
    if found is None:
        raise NotUnderstood(" ".join((verb, *rest)), f"It looks like /dbaccess {verb} 42.")
    return int(found[1])


def mentioned(word: str) -> str | None:
    """The person a word mentions, or None."""
    found = MENTION.fullmatch(word)
    return found[1] if found else None


def ask(rest: Sequence[str], levels: Callable[[str], Collection[str]]) -> RequestInput:
    """``[DATABASE [LEVEL] [DURATION] [REASON…]]``; ``levels`` gives those a database has. Raises NotUnderstood.

    After the database a word is a level where the database has such a one, or where a duration follows it; a word that
    begins with a digit is a duration; everything after is the reason.
    """
    left = list(rest)
    database = left.pop(0) if left else None
    is_level = database is not None and left and (left[0] in levels(database) or _stands_before_a_duration(left))
    level = left.pop(0) if is_level else None
    if len(left) > 1 and UNITS.fullmatch(left[1]) and not _is_a_duration(left[0]):
        raise NotUnderstood(f"{left[0]} {left[1]}", LOOKS_LIKE)
    duration = _duration(left.pop(0)) if left and LOOKS_LIKE_A_DURATION.fullmatch(left[0]) else None
    return RequestInput(database=database, level=level, duration=duration, reason=" ".join(left) or None)


def extend(rest: Sequence[str]) -> tuple[int, RequestInput]:
    """``ID [DURATION] [REASON…]``. Raises NotUnderstood."""
    left = list(rest[1:])
    duration = _duration(left.pop(0)) if left and LOOKS_LIKE_A_DURATION.fullmatch(left[0]) else None
    return request_id(rest[:1], "extend"), RequestInput(duration=duration, reason=" ".join(left) or None)


def explain(rest: Sequence[str]) -> tuple[RequestInput, str | None]:
    """``DATABASE [LEVEL] [DURATION] [@user]`` and the person. There is no reason, so any word may be a level. Raises NotUnderstood."""
    others = [found for word in rest if (found := mentioned(word))]
    left = [word for word in rest if mentioned(word) is None]
    typed = ask(left, lambda _database: left[1:2] if not LOOKS_LIKE_A_DURATION.fullmatch("".join(left[1:2])) else ())
    if typed.reason or len(others) > 1:
        raise NotUnderstood(" ".join(("explain", *rest)), "It looks like /dbaccess explain DATABASE LEVEL 2h @user.")
    return typed, others[0] if others else None


def _stands_before_a_duration(left: Sequence[str]) -> bool:
    is_next_a_duration = len(left) > 1 and LOOKS_LIKE_A_DURATION.fullmatch(left[1]) is not None
    return is_next_a_duration and LOOKS_LIKE_A_DURATION.fullmatch(left[0]) is None


def _is_a_duration(word: str) -> bool:
    try:
        parse_duration(word)
    except ValueError:
        return False
    return True


def _duration(word: str) -> timedelta:
    try:
        return parse_duration(word)
    except ValueError as wrong:
        raise NotUnderstood(word, str(wrong)) from None
