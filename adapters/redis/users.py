"""ACL users on one node, their marks, and the mark of the node itself.

A mark is a selector without commands (``(~dbaccess:ledger=…)``). It grants nothing, and it survives ``ACL SAVE``, ``CONFIG REWRITE``,
``ACL LOAD`` and ``resetpass``. A user cannot change its own mark, because no level includes ``ACL SETUSER``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any

from adapters.base import Activity, ForeignUser, ManagedUser, Rejected
from adapters.redis.session import Session
from adapters.usernames import username_pattern

USER_MARK = re.compile(r"~dbaccess:ledger=([a-z0-9]+):request=([0-9]{1,18}):until=([0-9]{1,11})")
SERVER_USER = "dbaccess_server"
SERVER_MARK = re.compile(r"~dbaccess:server=([a-z0-9-]+)")
UNSAVED_PREFIX = "unkept-"
"""Start of the identity of a node that saves its users nowhere. The string is stored in ledgers."""

AclUser = dict[str, Any]
"""The answer of ``ACL GETUSER`` as a dictionary."""


def password_rule(password: str) -> str:
    """The ``#<hash>`` rule of ``ACL SETUSER``. The server stores the same SHA-256 without a salt, so a password must be long and random."""
    return "#" + hashlib.sha256(password.encode()).hexdigest()


def refuse_other_names(prefix: str, username: str) -> None:
    """Raise Rejected for a name that dbaccess does not make."""
    if not username_pattern(prefix).fullmatch(username):
        remedy = f"{prefix}<request>_<who>_<4 of the key>, at most 32 of a-z, 0-9 and _"
        raise Rejected("that is no name of a temporary user", remedy=remedy)


def mark_rule(session: Session, ledger: str, request_id: int, remaining: float) -> str:
    """The selector that marks a user. Its end is the server's clock plus ``remaining`` seconds, as whole seconds since 1970."""
    now = session.now()
    if now is None:
        raise Rejected(f"{session.node} does not report its clock", remedy="Redis 7.0 or later, or Valkey 8 or later")
    return f"(~dbaccess:ledger={ledger}:request={request_id}:until={max(0, int(now + remaining))})"


def get_user(session: Session, username: str) -> AclUser | None:
    """The user as the node has it, or None where it does not exist."""
    answer = session.call("ACL", "GETUSER", username)
    return None if answer is None else to_dict(answer)


def find_marks(user: AclUser, pattern: re.Pattern[str] = USER_MARK) -> list[re.Match[str]]:
    """The marks among the selectors without commands, in the order in which they were set.

    The last mark of a user is the valid one (``set_expiry`` adds one); of a server's marks it is the first.
    """
    bare = [s for s in map(to_dict, user.get("selectors") or ()) if s.get("commands") == "-@all"]
    return [found for s in bare if (found := pattern.fullmatch(str(s.get("keys"))))]


def to_managed_user(username: str, user: AclUser) -> ManagedUser:
    """The user with what its valid mark says; without a mark, ledger, request and expiry are None."""
    mark = next(reversed(find_marks(user)), None)
    return ManagedUser(
        username=username,
        ledger=mark[1] if mark else None,
        request_id=int(mark[2]) if mark else None,
        expires_at=datetime.fromtimestamp(int(mark[3]), UTC) if mark else None,
    )


def find_own(session: Session, username: str, ledger: str) -> ManagedUser | None:
    """The user, or None where it is absent. Raises ForeignUser for a user with the mark of another ledger or without a mark."""
    user = get_user(session, username)
    found = to_managed_user(username, user) if user is not None else None
    if found is not None and found.ledger != ledger:
        raise ForeignUser(username, f"marked by ledger {found.ledger}" if found.ledger else "it has no mark")
    return found


def to_activity(username: str, addresses: Sequence[str]) -> Activity:
    """One session for each client address (``host:port``)."""
    hosts = {address.rpartition(":")[0].strip("[]") for address in addresses}
    return Activity(username=username, sessions=len(addresses), clients=tuple(sorted(hosts)))


def server_mark(session: Session) -> str | None:
    """The identity of the node, or None where it has no mark. If two bots marked the node at once, both read the first mark."""
    session.link.server = to_server_mark(session.call("ACL", "GETUSER", SERVER_USER))
    return session.link.server


def to_server_mark(answer: Any) -> str | None:
    """The identity in the answer to ``ACL GETUSER`` of SERVER_USER."""
    found = find_marks(to_dict(answer), SERVER_MARK) if answer is not None else []
    return found[0][1] if found else None


def unmarked(expected: str) -> str:
    """Says that a node has no mark, with the statement for the case that it is the server on which the grant was made."""
    statement = f"ACL SETUSER {SERVER_USER} off (~dbaccess:server={expected})"
    return f"without a mark (if it is the same server, mark it again: {statement})"


def mark_server(session: Session, identity: str | None = None) -> str:
    """Mark the node with ``identity`` or a random one. Returns the valid mark, which is another bot's if that bot was first."""
    identity = identity or ("" if session.save() else UNSAVED_PREFIX) + token_hex(8)
    session.call("ACL", "SETUSER", SERVER_USER, "off", f"(~dbaccess:server={identity})")
    session.save()
    return server_mark(session) or identity


def is_open(session: Session) -> bool:
    """Whether a client without a password is let in as ``default``. redis-cli continues as ``default`` after a failed login."""
    user = get_user(session, "default")
    return user is not None and {"on", "nopass"} <= set(user["flags"])


OPEN_DEFAULT = (
    "everybody who reaches this server is let in without a password, as the account default",
    "ACL SETUSER default off resetpass",
)
"""The finding and its remedy. With ``off`` alone, protected mode would refuse all remote clients."""


def to_dict(answer: Any) -> dict[str, Any]:
    """A dictionary from a flat list of names and values, which is how protocol 2 sends one."""
    if isinstance(answer, dict):
        return answer
    return dict(zip(answer[::2], answer[1::2], strict=True))
