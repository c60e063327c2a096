"""Users on one node: what marks them as ours, what marks the node, and how they are taken away.

A mark is a selector without commands: it opens nothing and survives all ways of saving.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from secrets import token_hex
from typing import Any

from redis.exceptions import ResponseError

from adapters.base import Activity, ManagedUser, ServerDown
from adapters.redis.nodes import DROP_SECONDS, Session

MARK = re.compile(r"~dbaccess:ledger=([a-z0-9]+):request=([0-9]{1,18}):until=([0-9]{1,11})")
SERVER_USER = "dbaccess_server"
SERVER_MARK = re.compile(r"~dbaccess:server=([a-z0-9-]+)")
UNKEPT = "unkept-"
"""Begins the word of a node that keeps its users nowhere."""

User = dict[str, Any]


def hashed(password: str) -> str:
    """As the server keeps it; without salt, so passwords must be long and random, which ours are."""
    return "#" + hashlib.sha256(password.encode()).hexdigest()


def get_user(session: Session, username: str) -> User | None:
    """None where there is none."""
    answer = session.call("ACL", "GETUSER", username)
    return None if answer is None else paired(answer)


def marks(user: User, pattern: re.Pattern[str] = MARK) -> list[re.Match[str]]:
    """Of the selectors without commands. The last mark of ours holds, the first of the server's."""
    bare = [s for s in map(paired, user.get("selectors") or ()) if s["commands"] == "-@all"]
    return [found for s in bare if (found := pattern.fullmatch(str(s["keys"])))]


def managed(username: str, user: User) -> ManagedUser:
    mark = next(reversed(marks(user)), None)
    return ManagedUser(
        username=username,
        ledger=mark[1] if mark else None,
        request_id=int(mark[2]) if mark else None,
        expires_at=datetime.fromtimestamp(int(mark[3]), UTC) if mark else None,
    )


def activity_of(username: str, addresses: Sequence[str]) -> Activity:
    hosts = {address.rpartition(":")[0].strip("[]") for address in addresses}
    return Activity(username=username, sessions=len(addresses), clients=tuple(sorted(hosts)))


def take_away(session: Session, username: str) -> set[tuple[str, str]]:
    """The sessions there were. DELUSER takes login, rights and sessions at once; then it is read back until none is left."""
    deadline, pause = time.monotonic() + DROP_SECONDS, 0.01
    try:
        ours = {(row["id"], row["addr"]) for row in session.clients() if row.get("user") == username}
    except ResponseError:  # not allowed, or taken out of this server: then only the proof is not to be had
        session.call("ACL", "DELUSER", username)
        session.save()
        raise
    session.call("ACL", "DELUSER", username)
    while True:
        left = [row for row in session.clients() if row.get("user") == username or (row["id"], row["addr"]) in ours]
        if not left and get_user(session, username) is None:
            return ours
        if time.monotonic() > deadline:
            raise ServerDown(f"{len(left)} sessions of {username} do not end on {session.node}")
        ours |= {(row["id"], row["addr"]) for row in left}
        for row in left:
            session.call("CLIENT", "KILL", "ID", row["id"])
        time.sleep(pause)
        pause = min(pause * 2, 0.2)


def server_mark(session: Session) -> str | None:
    """Of two that were made at once the first holds, for everybody."""
    user = get_user(session, SERVER_USER)
    found = marks(user, SERVER_MARK) if user is not None else []
    return found[0][1] if found else None


def mark_server(session: Session, word: str | None = None) -> str:
    """What the server is marked with from now on, by us or by whoever was first."""
    word = word or ("" if session.save() else UNKEPT) + token_hex(8)
    session.call("ACL", "SETUSER", SERVER_USER, "off", f"(~dbaccess:server={word})")
    session.save()
    return server_mark(session) or word


def is_open(session: Session) -> bool:
    """Whether whoever connects is let in as ``default``; redis-cli goes on as it after a login that failed."""
    user = get_user(session, "default")
    return user is not None and {"on", "nopass"} <= set(user["flags"])


OPEN_DEFAULT = (
    "everybody who reaches this server is let in without a password, as the account default",
    "ACL SETUSER default off resetpass",
)


def paired(answer: Any) -> dict[str, Any]:
    """Names and values, as the protocol gives them in turn."""
    return dict(zip(answer[::2], answer[1::2], strict=True))
