"""Parse the text after ``/dbaccess`` into typed values. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta

from bot.access.errors import NotUnderstood
from bot.access.use_case_types import LockdownScope, RequestInput
from bot.durations import DURATION_HINT, parse_duration
from bot.slack.render.text import clean, unescape

DURATION_LIKE = re.compile(r"\d+\w*", re.ASCII)
UNITS = re.compile(r"(?:sec(?:ond)?|min(?:ute)?|hour|hr|day)s?", re.IGNORECASE)
MENTION = re.compile(r"<@([UW][A-Z0-9]+)(?:\|[^>]*)?>")
ID = re.compile(r"#?(\d{1,18})", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class CommandText:
    """The verb in lower case and its arguments, as the person typed them."""

    verb: str
    arguments: tuple[str, ...]


def split_command(text: str) -> CommandText:
    """Split the text into verb and arguments. An empty text is ``help``.

    Slack's escaping is undone once. Mentions keep their escaped form, so that a typed ``&lt;@U1&gt;`` never becomes a mention.
    Control characters are removed here because PostgreSQL cannot store NUL and UTF-8 cannot encode half a surrogate pair.
    """
    parts = [part for wanted in text.split() if (part := clean(wanted))]
    arguments = tuple(p if MENTION.fullmatch(p) else unescape(p) for p in parts[1:])
    return CommandText(verb=(parts[0].lower() if parts else "help"), arguments=arguments)


def parse_request_id(arguments: Sequence[str], verb: str) -> int:
    """Parse ``42`` or ``#42``. Raises NotUnderstood."""
    found = ID.fullmatch(arguments[0]) if len(arguments) == 1 else None
    if found is None:
        raise NotUnderstood(" ".join((verb, *arguments)), f"It looks like /dbaccess {verb} 42.")
    return int(found[1])


def mentioned_person(word: str) -> str | None:
    """Return the id of the person whom the word mentions, or None."""
    found = MENTION.fullmatch(word)
    return found[1] if found else None


def parse_request(arguments: Sequence[str], levels: Callable[[str], Collection[str]]) -> RequestInput:
    """Parse ``[DATABASE [LEVEL] [DURATION] [REASON…]]``. ``levels`` returns the level names of a database. Raises NotUnderstood.

    The word after the database is the level if the database has that level, or if a duration follows the word.
    A word that begins with a digit is the duration. All other words are the reason.
    """
    left = list(arguments)
    database = left.pop(0) if left else None
    is_level = database is not None and left and (left[0] in levels(database) or _precedes_duration(left))
    level = left.pop(0) if is_level else None
    if len(left) > 1 and UNITS.fullmatch(left[1]) and not _is_duration(left[0]):
        raise NotUnderstood(f"{left[0]} {left[1]}", DURATION_HINT)
    duration = _pop_duration(left)
    return RequestInput(database=database, level=level, duration=duration, reason=" ".join(left) or None)


def parse_extension(arguments: Sequence[str]) -> tuple[int, RequestInput]:
    """Parse ``ID [DURATION] [REASON…]``. Raises NotUnderstood."""
    left = list(arguments[1:])
    duration = _pop_duration(left)
    return parse_request_id(arguments[:1], "extend"), RequestInput(duration=duration, reason=" ".join(left) or None)


def parse_lockdown(arguments: Sequence[str], verb: str) -> LockdownScope:
    """Parse ``[DATABASE or @user]``. Raises NotUnderstood: what was not understood never means everything."""
    if not arguments:
        return LockdownScope()
    person_id = mentioned_person(arguments[0])
    if len(arguments) > 1 or (person_id is None and arguments[0].startswith(("@", "<"))):
        right = f"It looks like /dbaccess {verb} DATABASE, or /dbaccess {verb} @user with a person from the list that Slack shows."
        raise NotUnderstood(" ".join((verb, *arguments)), right)
    return LockdownScope(person_id=person_id, database=None if person_id else arguments[0])


def parse_explain(arguments: Sequence[str]) -> tuple[RequestInput, str | None]:
    """Parse ``DATABASE [LEVEL] [DURATION] [@user]`` and return it with the mentioned person's id.

    The command has no reason, so any word after the database may be the level. Raises NotUnderstood.
    """
    others = [found for word in arguments if (found := mentioned_person(word))]
    left = [word for word in arguments if mentioned_person(word) is None]
    wanted = parse_request(left, lambda _database: left[1:2] if not DURATION_LIKE.fullmatch("".join(left[1:2])) else ())
    if wanted.reason or len(others) > 1:
        raise NotUnderstood(
            " ".join(("explain", *arguments)), "It looks like /dbaccess explain DATABASE LEVEL 2h @user."
        )
    return wanted, others[0] if others else None


def _precedes_duration(words: Sequence[str]) -> bool:
    is_next_duration = len(words) > 1 and DURATION_LIKE.fullmatch(words[1]) is not None
    return is_next_duration and DURATION_LIKE.fullmatch(words[0]) is None


def _is_duration(word: str) -> bool:
    try:
        parse_duration(word)
    except ValueError:
        return False
    return True


def _pop_duration(words: list[str]) -> timedelta | None:
    """Remove the first word if it looks like a duration. Raises NotUnderstood if it cannot be parsed."""
    if not words or not DURATION_LIKE.fullmatch(words[0]):
        return None
    word = words.pop(0)
    try:
        return parse_duration(word)
    except ValueError as error:
        raise NotUnderstood(word, str(error)) from None
