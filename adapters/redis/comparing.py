"""Compares the users of one node with their levels: flags, number of passwords, keys, channels, commands and selectors.

Redis 7.0 does not keep the rules of a user: it lists the commands that they come to, in an order of its own. There the commands are compared by
trying, with ``ACL DRYRUN``, some that no level gives.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from redis.exceptions import ResponseError

from adapters.base import Level, Rejected
from adapters.redis.levels import rules_of
from adapters.redis.nodes import UNREADABLE
from adapters.redis.session import Session
from adapters.redis.users import USER_MARK, AclUser, to_dict

SENTENCES_AT_MOST = 10
LONGEST = 300
NO_COMMANDS = "-@all"
KEYS = ("~", "%")
NEVER_GIVEN = (
    "acl setuser x", "acl list", "bgsave", "client kill x", "client list", "client pause 1", "config get x", "config set x y", "debug sleep 0",
    "eval x 0", "flushall", "flushdb", "function list", "keys x", "migrate x 1 x 0 1", "module list", "monitor", "psubscribe x", "publish x y",
    "replicaof x 1", "save", "script kill", "shutdown", "slowlog get", "subscribe x", "swapdb 0 1",
)  # fmt: skip
"""Commands that no level gives, with as many arguments as ``ACL DRYRUN`` wants."""
RENDERS_RULES = "7.0."
"""The start of the versions that list commands instead of rules."""


def compare(sessions: Sequence[Session], levels: Mapping[str, Level]) -> dict[str, tuple[str, ...]]:
    """Username → sentences, of all nodes. With several nodes, each sentence names its node."""
    found = dict[str, list[str]]()
    for session in sessions:
        where = f" on {session.node}" if len(sessions) > 1 else ""
        for name, sentences in _compare_on(session, levels).items():
            found.setdefault(name, []).extend(f"{sentence}{where}" for sentence in sentences)
    return {name: _bounded(sentences) for name, sentences in found.items()}


def _compare_on(session: Session, levels: Mapping[str, Level]) -> dict[str, list[str]]:
    """Absent users and users without a difference are left out."""
    answers = session.packet(*(("ACL", "GETUSER", name) for name in levels))
    keeps_rules = not session.info("server").get("redis_version", "").startswith(RENDERS_RULES)
    found = dict[str, list[str]]()
    for (name, level), answer in zip(levels.items(), answers, strict=True):
        if isinstance(answer, ResponseError):
            raise answer
        if answer is not None and (
            sentences := list(_differences(session, name, level, answer, keeps_rules=keeps_rules))
        ):
            found[name] = sentences
    return found


def _bounded(sentences: Sequence[str]) -> tuple[str, ...]:
    cut = [s if len(s) <= LONGEST else f"{s[: LONGEST - 1]}…" for s in sentences[:SENTENCES_AT_MOST]]
    further = len(sentences) - SENTENCES_AT_MOST
    return (*cut, *([f"and {further} more"] if further > 0 else []))


def _differences(session: Session, name: str, level: Level, answer: object, *, keeps_rules: bool) -> Iterator[str]:
    try:
        rules = rules_of(level)
        user = to_dict(answer)
        selectors = [to_dict(selector) for selector in user["selectors"]]
    except Rejected as error:
        yield f"its level cannot be given any more: {error.what}"
        return
    except UNREADABLE:
        yield "its rules could not be read"
        return
    yield from _attributes(user)
    yield from _of_part(
        _rules_in(user), [rule for rule in rules if not rule.startswith("(")], "", keeps_rules=keeps_rules
    )
    wanted = [rule.strip("()").split(" ") for rule in rules if rule.startswith("(")]
    yield from _of_selectors(selectors, wanted, keeps_rules=keeps_rules)
    if not keeps_rules:
        yield from _never_given(session, name)


def _attributes(user: AclUser) -> Iterator[str]:
    flags = set(user["flags"])
    if "nopass" in flags:
        yield "it may log in without a password (nopass)"
    elif len(user["passwords"]) != 1:
        yield f"it has {len(user['passwords'])} passwords and not 1"
    if "skip-sanitize-payload" in flags:
        yield "the server does not check what it restores (skip-sanitize-payload)"
    if user["channels"]:
        yield f"its level does not give the channels {user['channels']}"


def _rules_in(part: AclUser) -> list[str]:
    """Keys and commands of a user or of a selector, as rules."""
    return [*str(part["keys"]).split(), *str(part["commands"]).split()]


def _of_part(held: list[str], rules: Sequence[str], where: str, *, keeps_rules: bool) -> Iterator[str]:
    """``held`` against ``rules``. The order of commands counts: the last rule about a command is valid."""
    wanted = [NO_COMMANDS, *(rule for rule in rules if rule != "resetchannels")]
    if not keeps_rules:
        held, wanted = _keys(held), _keys(wanted)
    extra, missing = [w for w in held if w not in wanted], [w for w in wanted if w not in held]
    if extra:
        yield f"its level does not give {' '.join(extra)}{where}"
    if missing:
        yield f"it lacks {' '.join(missing)}{where}"
    if not extra and not missing and _commands(held) != _commands(wanted):
        yield f"its rules are in another order, which changes what they allow: {' '.join(_commands(held))}{where}"


def _keys(words: Sequence[str]) -> list[str]:
    return [word for word in words if word.startswith(KEYS)]


def _commands(words: Sequence[str]) -> list[str]:
    return [word for word in words if not word.startswith(KEYS)]


def _of_selectors(selectors: Sequence[AclUser], wanted: Sequence[list[str]], *, keeps_rules: bool) -> Iterator[str]:
    """The selectors of the level in their order. Those of the mark give nothing."""
    held = [s for s in selectors if not (s["commands"] == NO_COMMANDS and USER_MARK.fullmatch(str(s["keys"])))]
    for selector, rules in zip(held, wanted, strict=False):
        yield from _of_part(
            _rules_in(selector), rules, f" in the selector on {selector['keys']}", keeps_rules=keeps_rules
        )
        if selector["channels"]:
            yield f"its level does not give the channels {selector['channels']}"
    for selector in held[len(wanted) :]:
        yield f"its level does not give the selector ({' '.join(_rules_in(selector))})"
    for rules in wanted[len(held) :]:
        yield f"it lacks the selector ({' '.join(rules)})"


def _never_given(session: Session, name: str) -> Iterator[str]:
    """Nothing where the bot may not try commands, which ``check`` reports."""
    answers = session.packet(*(("ACL", "DRYRUN", name, *command.split(" ")) for command in NEVER_GIVEN))
    if allowed := [command for command, answer in zip(NEVER_GIVEN, answers, strict=True) if answer == "OK"]:
        yield f"its level does not give the commands {', '.join(allowed)}"
