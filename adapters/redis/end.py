"""The end of a user on one node.

``ACL DELUSER`` ends the login, the rights and every session of the user in one step. It is sent in one packet with all that belongs to it,
so the server runs it between two commands of other clients, and also after the bot has stopped waiting for the answer.

Before it, the marks of the node and of the user are read, unless this process has seen both. A mark that cannot be read delays nothing.
"""

from __future__ import annotations

import time
from typing import Any, NamedTuple

from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as TimedOut

from adapters.base import Blocked, ForeignUser, ServerDown, WrongServer
from adapters.redis.links import Sighting, sightings
from adapters.redis.nodes import DROP_SECONDS, UNREADABLE
from adapters.redis.session import Session
from adapters.redis.users import (
    SERVER_USER,
    UNSAVED_PREFIX,
    get_user,
    mark_server,
    to_dict,
    to_managed_user,
    to_server_mark,
    unmarked,
)

FIRST_PAUSE_SECONDS = 0.01
LONGEST_PAUSE_SECONDS = 0.2
NAMED_AT_MOST = 5


class Ending(NamedTuple):
    """The user to end on one node: the ledger that answers for it, and the mark of the node, where the grant has frozen one."""

    username: str
    ledger: str
    server: str | None


class Ended(NamedTuple):
    """``was_there`` is whether the node had the user; ``sessions`` is the number of its sessions there."""

    was_there: bool
    sessions: int


def end_user(session: Session, ending: Ending) -> Ended:
    """End the user, save, and read back. An absent user is no error.

    Raises ForeignUser and WrongServer before anything is changed, and Blocked where sessions are left. A right that the bot lacks is the error
    only after the user is deleted.
    """
    refused = None if was_seen(session, ending) else check_marks(session, ending)
    killed, deleted, saved = send_end(session, ending.username)
    sightings.difference_update({s for s in sightings if s.username == ending.username and s.ledger == ending.ledger})
    if isinstance(deleted, ResponseError):
        raise deleted
    session.save(saved)
    if isinstance(killed, ResponseError) and "no such user" in str(killed).lower():
        killed = 0
    for error in (refused, killed):  # the user is deleted; that its end cannot be proven is the error
        if isinstance(error, ResponseError):
            raise error
    sessions = int(killed) + prove_end(session, ending.username)
    if session.link.server is None and str(ending.server).startswith(UNSAVED_PREFIX):
        mark_server(session, ending.server)
    return Ended(was_there=deleted != 0, sessions=sessions)


def send_end(session: Session, username: str) -> list[Any]:
    """The answers to ``CLIENT KILL USER``, ``ACL DELUSER`` and ``ACL SAVE``, sent in one packet.

    The sessions are counted by killing them. ``CLIENT LIST`` may be as long as the user wants, and a server that limits the answers closes
    the connection before it runs the rest of the packet.
    """
    try:
        return session.packet(("CLIENT", "KILL", "USER", username), ("ACL", "DELUSER", username), ("ACL", "SAVE"))
    except TimedOut:
        when = f"the order to delete {username} was sent, and the server runs it as soon as it runs any other command"
        raise ServerDown(f"{busy(session)}; {when}", is_ambiguous=True) from None


def busy(session: Session) -> str:
    """Why the server may not have answered."""
    return f"{session.node} has not answered for {session.patience:.0f} seconds: it runs long commands, or is frozen"


def was_seen(session: Session, ending: Ending) -> bool:
    """Whether this process has seen the user with the mark of its ledger, and the mark of the node on this connection."""
    server = session.link.server
    is_server = server is not None and ending.server in (None, server)
    return is_server and Sighting(ending.ledger, str(server), ending.username) in sightings


def check_marks(session: Session, ending: Ending) -> ResponseError | None:
    """Raises ForeignUser for a user of another ledger, and WrongServer for another server. Returns the error where a mark is not readable.

    A node without a mark is the right one if it has the user with the mark of its ledger, or if it saves nothing and was restarted.
    """
    try:
        answers = session.packet(("ACL", "GETUSER", SERVER_USER), ("ACL", "GETUSER", ending.username))
    except TimedOut:
        raise ServerDown(f"{busy(session)}; the next try goes on waiting for the same answer") from None
    for answer in answers:
        if isinstance(answer, ResponseError):
            return answer
    try:
        user = None if answers[1] is None else to_managed_user(ending.username, to_dict(answers[1]))
        session.link.server = server = to_server_mark(answers[0])
    except UNREADABLE:
        return ResponseError("an answer to ACL GETUSER could not be read")
    if user is not None and user.ledger not in (None, ending.ledger):
        raise ForeignUser(ending.username, f"marked by ledger {user.ledger}")
    is_ours = user is not None and user.ledger == ending.ledger
    is_lost = server is None and (is_ours or str(ending.server).startswith(UNSAVED_PREFIX))
    if ending.server not in (None, server) and not is_lost:
        raise WrongServer(expected=str(ending.server), found=server or unmarked(str(ending.server)))
    return None


def prove_end(session: Session, username: str) -> int:
    """Read back until the user and all its sessions are gone. A session that is still listed is killed by its id. Returns the number of these.

    A user that is there again is deleted again: a ``SETUSER`` of this bot whose answer was lost may have run late.
    """
    deadline, pause, seen = time.monotonic() + DROP_SECONDS, FIRST_PAUSE_SECONDS, set[str]()
    while True:
        left = [row for row in session.clients() if row.get("user") == username]
        is_there = get_user(session, username) is not None
        if not left and not is_there:
            return len(seen)
        if time.monotonic() > deadline:
            raise blocked(session, username, left)
        seen |= {row["id"] for row in left}
        if is_there:
            session.packet(("ACL", "DELUSER", username), ("ACL", "SAVE"))
        for row in left:
            session.call("CLIENT", "KILL", "ID", row["id"])
        time.sleep(pause)
        pause = min(pause * 2, LONGEST_PAUSE_SECONDS)


def blocked(session: Session, username: str, left: list[dict[str, str]]) -> Blocked:
    """Names the sessions that do not end, and the statement that ends one."""
    if not left:
        return Blocked(f"{session.node}: somebody creates {username} again and again", remedy=f"ACL DELUSER {username}")
    named = ", ".join(f"{row['id']} from {row.get('addr', 'an unknown address')}" for row in left[:NAMED_AT_MOST])
    further = f" and {len(left) - NAMED_AT_MOST} more" if len(left) > NAMED_AT_MOST else ""
    what = f"{len(left)} sessions of {username} do not end on {session.node}: {named}{further}"
    return Blocked(what, remedy=f"CLIENT KILL ID {left[0]['id']}")
