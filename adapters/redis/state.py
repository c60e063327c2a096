"""Describes what outlives a user on the nodes: function libraries, modules, and accounts that dbaccess does not manage.

No level includes a command that changes any of it, so a difference shows what somebody else did while the grant was live. The bot may lack
the rights to see some of it. The state then says so, and the end is not affected.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from re import Pattern

from redis.exceptions import ResponseError

from adapters.base import AdapterError
from adapters.level_state import LevelState
from adapters.redis.session import Session
from adapters.redis.users import SERVER_USER, find_marks, to_dict

UNSEEN = "could not be read"
ACCOUNTS_AT_MOST = 1000
"""Accounts that are read one by one. Of a node with more, only the names are described."""
RULES = ("flags", "commands", "keys", "channels", "selectors")


def node_facts(session: Session, managed: Pattern[str]) -> Iterator[tuple[str, str]]:
    """Kind and fact of one node. ``managed`` matches the names of temporary users."""
    kinds: dict[str, Callable[[], Iterator[str]]] = {
        "function libraries": lambda: _libraries(session),
        "modules": lambda: _modules(session),
        "accounts beside the temporary users": lambda: _accounts(session, managed),
    }
    for kind, facts in kinds.items():
        for fact in _seen(facts):
            yield kind, f"{fact} on {session.node}"


def changes(before: LevelState | None, read: Callable[[], LevelState]) -> tuple[str, ...]:
    """What differs from the state before the grant. An error is a note: the user is gone already."""
    if before is None:
        return ()
    try:
        return before.differences(read())
    except AdapterError as error:
        return (f"Whether anything else changed while the grant was live is not known: {error}",)


def _seen(facts: Callable[[], Iterator[str]]) -> list[str]:
    try:
        return list(facts())
    except ResponseError:  # a right is missing, or the command is disabled
        return [UNSEEN]


def _libraries(session: Session) -> Iterator[str]:
    for library in map(to_dict, session.call("FUNCTION", "LIST", "WITHCODE")):
        code = str(library.get("library_code"))
        yield f"{library.get('library_name')} [{_digest(code)}]"


def _modules(session: Session) -> Iterator[str]:
    for module in map(to_dict, session.call("MODULE", "LIST")):
        yield f"{module.get('name')} {module.get('ver')}"


def _accounts(session: Session, managed: Pattern[str]) -> Iterator[str]:
    """Accounts with a digest of their rules and the number of their passwords. Users of every ledger come and go, so none with a mark is described."""
    names = [name for name in session.call("ACL", "USERS") if name != SERVER_USER and not managed.fullmatch(name)]
    if len(names) > ACCOUNTS_AT_MOST:
        yield from names
        return
    answers = session.packet(*(("ACL", "GETUSER", name) for name in names)) if names else []
    for name, answer in zip(names, answers, strict=True):
        if isinstance(answer, ResponseError):
            raise answer
        user = to_dict(answer) if answer is not None else {}
        if not find_marks(user):
            rules = repr([sorted(str(user.get(part)).split()) for part in RULES])  # Redis 7.0 changes their order
            yield f"{name} [{_digest(rules)}, {len(user.get('passwords') or ())} passwords]"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:8]
