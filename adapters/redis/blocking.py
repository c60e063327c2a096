"""Blocks users whose ends fall together on one node: refuses their logins and closes their sessions, in one packet for all of them.

``off`` refuses logins and leaves sessions running, so every user's sessions are killed in the same packet. Nothing is dropped.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as TimedOut

from adapters.base import AdapterError, ServerDown, WrongServer
from adapters.redis.end import busy
from adapters.redis.nodes import UNREADABLE
from adapters.redis.session import Session
from adapters.redis.users import (
    SERVER_USER,
    UNSAVED_PREFIX,
    AclUser,
    find_marks,
    to_dict,
    to_managed_user,
    to_server_mark,
    unmarked,
)

PATIENCE_SECONDS = 5.0
"""How long a call waits for one answer of a node."""
END_SECONDS = 1.0
"""How long a call tries to close sessions that are still listed."""
PAUSE_SECONDS = 0.01


def block_on(session: Session, usernames: Sequence[str], *, ledger: str, server: str | None) -> frozenset[str]:
    """The users that are refused and have no session on this node. ``server`` is the mark of the node, where the grant has frozen one.

    Raises WrongServer before anything is changed, and ServerDown where the node does not answer.
    """
    try:
        known = _read(session, usernames, ledger=ledger, server=server)
        ours = [name for name, user in known.items() if user is not None and _ledger(name, user) in (None, ledger)]
        _send(session, ours)
        return _read_back(session, [*ours, *(name for name, user in known.items() if user is None)])
    except TimedOut:
        raise ServerDown(
            f"{busy(session)}; the next end goes on waiting for the same answers", is_ambiguous=True
        ) from None


def _ledger(name: str, user: AclUser) -> str | None:
    return to_managed_user(name, user).ledger


def _read(session: Session, usernames: Sequence[str], *, ledger: str, server: str | None) -> dict[str, AclUser | None]:
    """The users as the node has them. Those whose answer cannot be read are left out."""
    mark, *answers = session.packet(*(("ACL", "GETUSER", name) for name in (SERVER_USER, *usernames)))
    found = dict[str, AclUser | None]()
    for answer in (mark, *answers):
        if isinstance(answer, ResponseError):  # to refuse the login of an absent user would create it
            raise answer
    for name, answer in zip(usernames, answers, strict=True):
        with suppress(*UNREADABLE):
            found[name] = None if answer is None else to_dict(answer)
    session.link.server = seen = to_server_mark(mark)
    is_ours = any(_ledger(name, user) == ledger for name, user in found.items() if user is not None)
    is_lost = seen is None and (is_ours or str(server).startswith(UNSAVED_PREFIX))
    if server not in (None, seen) and not is_lost:
        raise WrongServer(expected=str(server), found=seen or unmarked(str(server)))
    return found


def _send(session: Session, usernames: Sequence[str]) -> None:
    """``off`` comes first, so that a session that is closed cannot log in again. Where the users cannot be saved, the drop that follows says so."""
    if not usernames:
        return
    off = [("ACL", "SETUSER", name, "off") for name in usernames]
    kills = [("CLIENT", "KILL", "USER", name) for name in usernames]
    saved = session.packet(*off, *kills, ("ACL", "SAVE"))[-1]
    with suppress(AdapterError, ResponseError):
        session.save(saved)


def _read_back(session: Session, usernames: Sequence[str]) -> frozenset[str]:
    """Sessions that are still listed are killed by their ids, until END_SECONDS are over."""
    deadline = time.monotonic() + END_SECONDS
    while True:
        left = [row for row in session.clients() if row.get("user") in usernames]
        if not left or time.monotonic() > deadline:
            break
        session.packet(*(("CLIENT", "KILL", "ID", row["id"]) for row in left))
        time.sleep(PAUSE_SECONDS)
    answers = session.packet(*(("ACL", "GETUSER", name) for name in usernames)) if usernames else []
    living = {row.get("user") for row in left}
    refused = {n for n, a in zip(usernames, answers, strict=True) if n not in living and _is_refused(session, n, a)}
    return frozenset(refused)


def _is_refused(session: Session, name: str, answer: Any) -> bool:
    """A user that was dropped meanwhile was created again by ``off``, without a password and a mark. It is deleted."""
    if answer is None or isinstance(answer, ResponseError):
        return answer is None
    with suppress(*UNREADABLE):
        user = to_dict(answer)
        if not user["passwords"] and not find_marks(user):
            session.packet(("ACL", "DELUSER", name), ("ACL", "SAVE"))
        return "off" in user["flags"]
    return False
