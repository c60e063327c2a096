"""Differences between the users on the servers and the ledger.

The ledger is read before and after each look, and a user that nobody answers for is looked at twice: a grant that begins or ends
meanwhile is no difference.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum

from adapters.base import ManagedUser, Target
from bot.access.context import Context
from bot.access.descriptions import count, shorten
from bot.access.recovery import marked_users
from bot.access.targets import server_key, unknown_servers
from bot.durations import format_duration
from bot.monitors.server_views import GroupView, View, list_users, places, view_server
from bot.monitors.servers import drop_leftovers, on_server
from bot.trial import FIRST_NUMBER
from storage.figures import Grants
from storage.records import Request, State
from storage.recovery import MarkedUser

ENDED_WITHIN = timedelta(minutes=15)
"""Grants that ended within this time are looked at: no session of theirs may be left."""
MOVED_MIN = timedelta(seconds=5)
"""The smallest difference between an end on the server and in the ledger that counts."""
BATCH_SECONDS = 20.0
"""The looks that are done by then are judged; those at servers that answer later are judged when they are done."""
UNTOUCHED = ", not touched"
DIFFERENCES_SHOWN, DIFFERENCE_MAX = 5, 200


class StrayKind(StrEnum):
    """The difference between a server and the ledger."""

    ORPHAN = "orphan"
    MISSING = "missing"
    FOREIGN = "foreign"
    CHANGED = "changed"
    MOVED = "moved"
    LINGERING = "lingering"


@dataclass(frozen=True, kw_only=True)
class Stray:
    """One difference.

    ORPHAN: a managed user of this ledger without a live grant; ``has_ended`` where the ledger knows that its grant has ended. FOREIGN: one of another ledger, or without a mark. MISSING: a live grant
    without its user. CHANGED: a user whose rights differ from its level by ``differences``. MOVED: a user whose end on the server is later than in the
    ledger by ``moved_by`` (earlier where that is negative). LINGERING: an ended grant with ``sessions`` that still work. ``ledger`` is what the user's
    mark names; None without a mark.
    """

    kind: StrayKind
    target: Target
    username: str
    request_id: int | None = None
    ledger: str | None = None
    differences: tuple[str, ...] = ()
    moved_by: timedelta = timedelta(0)
    sessions: int = 0
    has_ended: bool = False

    @property
    def is_trial(self) -> bool:
        """Whether ``doctor --try`` made the user."""
        return self.kind is StrayKind.ORPHAN and (self.request_id or 0) >= FIRST_NUMBER

    @property
    def what(self) -> str:
        """The difference as a sentence without its full stop."""
        on = f"on the server of {self.target.name}"
        match self.kind:
            case StrayKind.ORPHAN:
                return f"{self.username} is {on} and no live grant has it"
            case StrayKind.MISSING:
                return f"{self.username} of live grant #{self.request_id} is not {on}"
            case StrayKind.CHANGED:
                return f"{self.username} of live grant #{self.request_id} {on} was changed by hand: {self._listed()}"
            case StrayKind.MOVED:
                word = "later" if self.moved_by > timedelta(0) else "earlier"
                by = format_duration(max(timedelta(seconds=1), abs(self.moved_by)))
                return f"{self.username} of live grant #{self.request_id} ends {by} {word} {on} than in the ledger"
            case StrayKind.LINGERING:
                return f"{self.username} of ended grant #{self.request_id} still has {count(self.sessions, 'session')} {on}"
            case StrayKind.FOREIGN:
                whose = f"of ledger {self.ledger}" if self.ledger else "without a mark"
                return f"{self.username} {on} is {whose}: a foreign user{UNTOUCHED}"

    def _listed(self) -> str:
        shown = [shorten(one.rstrip("."), DIFFERENCE_MAX) for one in self.differences[:DIFFERENCES_SHOWN]]
        further = len(self.differences) - len(shown)
        return "; ".join([*shown, *([f"and {further} more"] if further else [])])


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """The result of a sweep, or of a part of it. ``unanswered``: by name of the database, why its server was not checked.

    ``answered`` are the servers that were checked, ``unseen`` those that were not, ``checked`` the numbers of the grants that were. ``refreshed``: by database, what was changed to make
    managed roles equal to their levels. ``dropped``: sentences about leftovers of ended users that were dropped. ``unexplained``: by server, the users that show
    that the ledger is not the newest.
    """

    servers: int
    users: int
    strays: tuple[Stray, ...]
    unanswered: Mapping[str, str]
    answered: tuple[Target, ...] = ()
    unseen: tuple[Target, ...] = ()
    checked: frozenset[int] = frozenset()
    refreshed: Mapping[str, tuple[str, ...]]
    dropped: tuple[str, ...] = ()
    unexplained: Mapping[Target, tuple[MarkedUser, ...]] = field(default_factory=dict)


async def find_strays(context: Context, *, refreshes: bool = False, drops_leftovers: bool = False) -> SweepResult:
    """Compare the users of all servers with the ledger.

    ``refreshes``: make the managed roles of live grants equal to their levels. ``drops_leftovers``: afterwards drop what ended users left and nobody needs, on the servers that answered.
    """
    parts = [part async for part in sweep_servers(context, refreshes=refreshes)]
    answered = [server for part in parts for server in part.answered]
    unanswered = unknown_servers(context) | {name: why for part in parts for name, why in part.unanswered.items()}
    return SweepResult(
        servers=sum(part.servers for part in parts),
        users=sum(part.users for part in parts),
        strays=tuple(stray for part in parts for stray in part.strays),
        unanswered=unanswered,
        answered=tuple(answered),
        checked=frozenset().union(*(part.checked for part in parts)),
        refreshed={name: found for part in parts for name, found in part.refreshed.items()},
        dropped=await drop_leftovers(context, answered) if drops_leftovers else (),
        unexplained={server: users for part in parts for server, users in part.unexplained.items()},
    )


async def sweep_servers(
    context: Context, *, refreshes: bool = False, request_ids: Sequence[int] = ()
) -> AsyncIterator[SweepResult]:
    """Look at all servers at the same time. Yields the servers that answered soon, and each that answers later.

    ``refreshes``: make the managed roles of live grants equal to their levels. ``request_ids``: further ended grants to look at.
    """
    before = await context.ledger.figures.grants(ended_within=ENDED_WITHIN, request_ids=request_ids)
    unanswered = dict[str, str]()
    looks = {
        asyncio.create_task(
            on_server(place.server, view_server(context, place, unanswered, refreshes=refreshes), unanswered)
        ): place
        for place in places(context, before, unanswered)
    }
    if not looks:
        yield SweepResult(servers=0, users=0, strays=(), unanswered=unanswered, refreshed={})
    waiting = set(looks)
    try:
        while waiting:
            done, waiting = await asyncio.wait(waiting, timeout=BATCH_SECONDS)
            if done:
                found = {looks[task].server: task.result() for task in done}
                yield await _compare(context, found, before, unanswered)
    finally:
        for task in waiting:
            task.cancel()


async def _compare(
    context: Context, found: Mapping[Target, View | None], before: Grants, unanswered: Mapping[str, str]
) -> SweepResult:
    views = [view for view in found.values() if view is not None]
    unexplained = await _unexplained(context, views)
    after = await context.ledger.figures.grants(ended_within=ENDED_WITHIN)
    known = {one.username for grants in (before, after) for one in grants.live}
    strays = [
        _stray(view, user, context.ledger.id) for view in views for user in view.users if user.username not in known
    ]
    strays = await _seen_again(context, strays)
    live = {one.id: one for one in after.live if one.state is State.ACTIVE}
    for view in views:
        users = {user.username: user for user in view.users}
        for group in view.groups:
            strays += _of_group(group, users, live)
    groups = [group for view in views for group in view.groups]
    return SweepResult(
        servers=len(found),
        users=sum(len(view.users) for view in views),
        strays=tuple(strays),
        unanswered=dict(unanswered),
        answered=tuple(view.place.server for view in views),
        unseen=tuple(server for server, view in found.items() if view is None),
        checked=frozenset(one.id for view in groups for one in (*view.group.active, *view.group.ended)),
        refreshed={one.group.target.name: one.refreshed for one in groups if one.refreshed},
        unexplained=unexplained,
    )


async def _unexplained(context: Context, views: Sequence[View]) -> dict[Target, tuple[MarkedUser, ...]]:
    """By server, the users that this ledger cannot explain. Servers without one count as compared."""
    found = dict[Target, tuple[MarkedUser, ...]]()
    for view in views:
        unknown = await context.ledger.recovery.unexplained(marked_users(view.users, ledger=context.ledger.id))
        if unknown:
            found[view.place.server] = unknown
        else:
            context.compared.add(server_key(view.place.server))
    return found


def _stray(view: View, user: ManagedUser, ledger: str) -> Stray:
    kind = StrayKind.ORPHAN if user.ledger == ledger else StrayKind.FOREIGN
    return Stray(
        kind=kind, target=view.place.server, username=user.username, request_id=user.request_id, ledger=user.ledger
    )


async def _seen_again(context: Context, strays: Sequence[Stray]) -> list[Stray]:
    """The strays without the orphans that a second look does not find, or whose grant the ledger has by now."""
    servers = dict.fromkeys(stray.target for stray in strays if stray.kind is StrayKind.ORPHAN)
    if not servers:
        return list(strays)
    failed = dict[str, str]()
    looks = await asyncio.gather(*(on_server(server, list_users(context, server), failed) for server in servers))
    listed = {server: {user.username for user in users or ()} for server, users in zip(servers, looks, strict=True)}
    after = await context.ledger.figures.grants(ended_within=ENDED_WITHIN)
    live = {one.username for one in after.live}
    known = await context.ledger.requests.get_many({stray.request_id or 0 for stray in strays})
    return [
        replace(stray, has_ended=_has_ended(stray, known))
        for stray in strays
        if stray.kind is not StrayKind.ORPHAN or (stray.username in listed[stray.target] and stray.username not in live)
    ]


def _has_ended(stray: Stray, known: Mapping[int, Request]) -> bool:
    """Whether the ledger started the grant of this user, and ended it."""
    grant = known.get(stray.request_id or 0)
    is_its_grant = grant is not None and grant.username == stray.username and grant.started_at is not None
    return is_its_grant and grant is not None and grant.state is State.REVOKED


def _of_group(view: GroupView, users: Mapping[str, ManagedUser], live: Mapping[int, Request]) -> Iterator[Stray]:
    """Differences of grants that were ACTIVE before and after the look, and sessions of those that had ended before it."""
    for request in view.group.active:
        now, name = live.get(request.id), str(request.username)
        if now is None:
            continue
        found = Stray(kind=StrayKind.MISSING, target=view.group.target, username=name, request_id=request.id)
        if name not in users:
            yield found
            continue
        if name in view.changed:
            yield replace(found, kind=StrayKind.CHANGED, differences=view.changed[name])
        if moved_by := _moved_by(users[name], request, now):
            yield replace(found, kind=StrayKind.MOVED, moved_by=moved_by)
    for request in view.group.ended:
        name = str(request.username)
        if view.sessions.get(name) and name not in users:
            yield Stray(
                kind=StrayKind.LINGERING,
                target=view.group.target,
                username=name,
                request_id=request.id,
                sessions=view.sessions[name],
            )


def _moved_by(user: ManagedUser, before: Request, after: Request) -> timedelta:
    """By how much the end on the server is later than both ends in the ledger, or earlier than both. An extension may come between."""
    ends = [one.expires_at for one in (before, after) if one.expires_at is not None]
    if user.expires_at is None or not ends:
        return timedelta(0)
    if user.expires_at - max(ends) >= MOVED_MIN:
        return user.expires_at - max(ends)
    return user.expires_at - min(ends) if min(ends) - user.expires_at >= MOVED_MIN else timedelta(0)
