"""Levels as rules of ``ACL SETUSER``: what may be done is listed, and what may never be is taken out last.

Minus must be last: ``-@dangerous +@connection`` gives CLIENT KILL back. Which commands each set lets through was tried command by command.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from adapters.base import Level, Rejected

CLUSTER = tuple(f"+cluster|{word}" for word in ("slots", "shards", "nodes", "info", "keyslot", "myid"))
NEVER = ("-@dangerous", "-@scripting", "-client|tracking", "-client|caching")
"""``client|tracking`` and ``client|caching`` are connection commands and show the names of all keys."""
ROOT = ("+@connection", "+@transaction", *CLUSTER, *NEVER)
PRESETS = {"readonly": ("%R~*", "+@read"), "readwrite": ("~*", "+@read", "+@write")}
SHOWS_NAMES = ("scan", "randomkey")
"""Key patterns hide values; these show the name of every key, so patterns but ``*`` have them only where they are named."""
CATEGORIES = """
read write keyspace string hash list set sortedset bitmap hyperloglog geo stream blocking
"""
"""Those that are about keys. ``@fast`` and ``@slow`` hold a bit of everything, and channels are not given."""
REFUSED = """
acl auth bgrewriteaof bgsave client cluster commandlog config debug eval eval_ro evalsha evalsha_ro failover fcall fcall_ro flushall
flushdb function hello info keys lastsave latency migrate module monitor pfdebug pfselftest psubscribe psync publish pubsub replconf replicaof
reset restore restore-asking role save script shutdown slaveof slowlog sort sort_ro spublish ssubscribe subscribe swapdb sync
"""
"""Their subcommands, too: dangerous, scripting, channels, or the connection's own, which every level has as far as it may."""
PRIVILEGE = re.compile(r"@?[a-z][a-z0-9_.-]*(\|[a-z0-9_-]+)?")
PATTERN = re.compile(r"[!#-&*-\[\]^_a-z{|}~]+")
"""Printable ASCII without what the server's own files would not read back: blanks, quotes, parentheses, backslashes."""


def rules_of(level: Level) -> tuple[str, ...]:
    """A level as rules of ``ACL SETUSER``, to follow ``reset``. Raises Rejected for what is not to be given."""
    for name in level.settings:
        raise Rejected(f"there is no setting {name} of a Redis user", remedy="leave settings out")
    unknown = [role for role in level.roles if role not in PRESETS]
    if unknown or not (level.roles or level.grants):
        remedy = f"roles: [readonly] or [readwrite], or grants on key patterns; not {', '.join(unknown) or 'nothing'}"
        raise Rejected(f"the level {level.name} names no preset of Redis", remedy=remedy)
    widest = PRESETS["readwrite"] if "readwrite" in level.roles else PRESETS.get("".join(level.roles[:1]), ())
    return ("resetchannels", *widest, *ROOT, *(selector(level, g.on, g.privileges) for g in level.grants))


def selector(level: Level, on: Sequence[str], privileges: Sequence[str]) -> str:
    """What one grant allows. A command must fit one selector whole, so writing needs ``~``, which is read and write."""
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
    hidden = [f"-{word}" for word in SHOWS_NAMES if "*" not in on and word not in wanted]
    rules = [f"{sign}{pattern}" for pattern in on] + [f"+{privilege}" for privilege in wanted]
    return f"({' '.join([*rules, *hidden, *NEVER])})"


def refuse_privilege(level: Level, privilege: str) -> None:
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
