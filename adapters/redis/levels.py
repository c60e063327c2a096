"""Access levels as rules of ``ACL SETUSER``. Rules list what is allowed; what is never allowed is removed at the end.

The order matters: ``-@dangerous +@connection`` would give ``CLIENT KILL`` back, so the minus rules come last. The commands that each
level allows were tried one by one on Redis 7.0, 8.0 and 8.6 and on Valkey 8.1 and 9.1.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from adapters.base import Level, Rejected

CLUSTER_RULES = tuple(f"+cluster|{word}" for word in ("slots", "shards", "nodes", "info", "keyslot", "myid"))
REMOVED_LAST = ("-@dangerous", "-@scripting", "-client|tracking", "-client|caching")
"""``client|tracking`` and ``client|caching`` are connection commands, and they show the names of all keys."""
COMMON_RULES = ("+@connection", "+@transaction", *CLUSTER_RULES, *REMOVED_LAST)
PRESETS = {"readonly": ("%R~*", "+@read"), "readwrite": ("~*", "+@read", "+@write")}
SHOWS_KEY_NAMES = ("scan", "randomkey")
"""Key patterns hide values, but these commands show the name of every key. A grant on patterns other than ``*`` has them only if it lists them."""
CATEGORIES = """
read write keyspace string hash list set sortedset bitmap hyperloglog geo stream blocking
"""
"""The command categories that are about keys. ``@fast`` and ``@slow`` contain commands of every kind, and no level includes channels."""
REFUSED = """
acl auth bgrewriteaof bgsave client cluster commandlog config debug eval eval_ro evalsha evalsha_ro failover fcall fcall_ro flushall
flushdb function hello info keys lastsave latency migrate module monitor pfdebug pfselftest psubscribe psync publish pubsub replconf replicaof
reset restore restore-asking role save script shutdown slaveof slowlog sort sort_ro spublish ssubscribe subscribe swapdb sync
"""
"""Commands that no grant may list, with all their subcommands: they are dangerous, run scripts or use channels, or they are connection
commands, of which ``COMMON_RULES`` already gives each level the safe ones."""
PRIVILEGE = re.compile(r"@?[a-z][a-z0-9_.-]*(\|[a-z0-9_-]+)?")
PATTERN = re.compile(r"[!#-&*-\[\]^_a-z{|}~]+")
"""Printable ASCII without blanks, quotes, parentheses and backslashes: a server could not read those back from its own files."""


def rules_of(level: Level) -> tuple[str, ...]:
    """The rules of a level, to follow ``reset``. Raises Rejected for a level that cannot be granted."""
    for name in level.settings:
        raise Rejected(f"there is no setting {name} of a Redis user", remedy="leave settings out")
    unknown = [role for role in level.roles if role not in PRESETS]
    if unknown or not (level.roles or level.grants):
        remedy = f"roles: [readonly] or [readwrite], or grants on key patterns; not {', '.join(unknown) or 'nothing'}"
        raise Rejected(f"the level {level.name} names no preset of Redis", remedy=remedy)
    widest = PRESETS["readwrite"] if "readwrite" in level.roles else PRESETS.get("".join(level.roles[:1]), ())
    return ("resetchannels", *widest, *COMMON_RULES, *(selector(level, g.on, g.privileges) for g in level.grants))


def selector(level: Level, on: Sequence[str], privileges: Sequence[str]) -> str:
    """The selector of one grant. Raises Rejected for a pattern or a privilege that cannot be granted.

    A command must fit one selector as a whole. Writing therefore needs ``~`` (read and write) and not ``%W~``.
    """
    for pattern in on:
        if not PATTERN.fullmatch(pattern):
            remedy = "printable ASCII without blanks, quotes, parentheses and backslashes"
            raise Rejected(
                f"the level {level.name} names a key pattern that cannot be used: {pattern!r}", remedy=remedy
            )
    wanted = [privilege.lower() for privilege in privileges]
    for privilege in wanted:
        refuse_privilege(level, privilege)
    if not on or not wanted:
        raise Rejected(
            f"a grant of the level {level.name} is empty", remedy='{on: ["orders:*"], privileges: ["@read"]}'
        )
    sign = "%R~" if set(wanted) == {"@read"} else "~"
    hidden = [f"-{command}" for command in SHOWS_KEY_NAMES if "*" not in on and command not in wanted]
    rules = [f"{sign}{pattern}" for pattern in on] + [f"+{privilege}" for privilege in wanted]
    return f"({' '.join([*rules, *hidden, *REMOVED_LAST])})"


def refuse_privilege(level: Level, privilege: str) -> None:
    """Raise Rejected unless the privilege is a category about keys or a command that may be granted."""
    name = privilege.removeprefix("@")
    if not PRIVILEGE.fullmatch(privilege):
        what, remedy = "is no privilege of Redis", 'a category as "@read" or a command as "hget"'
    elif privilege.startswith("@") and name not in CATEGORIES.split():
        what, remedy = "is not given", f"one of @{', @'.join(sorted(CATEGORIES.split()))}"
    elif name.split("|")[0] in REFUSED.split():
        what, remedy = "is not given to temporary users", "it reaches beyond keys, or outlives its user; leave it out"
    else:
        return
    raise Rejected(f"{privilege!r} in the level {level.name} {what}", remedy=remedy)
