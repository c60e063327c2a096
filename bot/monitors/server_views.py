"""The servers as the sweep sees them: their managed users, and the rights and sessions of the users that the ledger knows.

Each server is asked for its users once, however many databases it has. What concerns one grant is asked at the grant's frozen target, whose
identity is checked: a user is never missed on another server.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import structlog

from adapters.base import Adapter, AdapterError, Level, ManagedUser, Target
from bot.access.context import Context
from bot.access.server_errors import describe_server_error
from bot.access.targets import configured_targets, level_of, target_of, unique_servers
from bot.engines import Share
from storage.figures import Grants
from storage.records import Request, State

log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class Group:
    """Grants with the same frozen target. ``active`` have a user now; ``ended`` must have none and no session."""

    target: Target
    active: tuple[Request, ...]
    ended: tuple[Request, ...]


@dataclass(frozen=True, kw_only=True)
class Place:
    """One server to look at, and the grants there."""

    server: Target
    groups: tuple[Group, ...] = ()


@dataclass(frozen=True, kw_only=True)
class GroupView:
    """What the server shows of one group. ``changed``: by username, how it differs from its level. ``sessions``: by name of an ended user."""

    group: Group
    changed: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sessions: Mapping[str, int] = field(default_factory=dict)
    refreshed: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class View:
    """What one server shows. ``groups`` has the groups whose look succeeded."""

    place: Place
    users: tuple[ManagedUser, ...]
    groups: tuple[GroupView, ...]


def places(context: Context, grants: Grants, failed: dict[str, str]) -> list[Place]:
    """The configured servers, and those of the frozen targets of these grants. A target that cannot be read is reported in ``failed``."""
    live, ended = _by_target(grants.live, failed), _by_target(grants.ended, {})
    groups = dict[Target, list[Group]]()
    servers = unique_servers([*configured_targets(context), *(_without_identity(one) for one in (*live, *ended))])
    for target in dict.fromkeys((*live, *ended)):
        active = tuple(one for one in live.get(target, ()) if one.state is State.ACTIVE)
        group = Group(target=target, active=active, ended=tuple(ended.get(target, ())))
        server = next((one for one in servers if len(unique_servers([one, target])) == 1), None)
        if server is not None and (group.active or group.ended):
            groups.setdefault(server, []).append(group)
    return [Place(server=one, groups=tuple(groups.get(one, ()))) for one in servers]


def _without_identity(target: Target) -> Target:
    return replace(target, identity=None)


def _by_target(grants: Iterable[Request], failed: dict[str, str]) -> dict[Target, list[Request]]:
    found = dict[Target, list[Request]]()
    for request in grants:
        if not request.target:
            continue
        try:
            found.setdefault(target_of(request), []).append(request)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            failed[request.database] = f"the target of #{request.id} cannot be read ({type(error).__name__})"
    return found


async def view_server(context: Context, place: Place, failed: dict[str, str], *, refreshes: bool) -> View:
    """Look at one server. ``refreshes``: make the managed roles of live grants equal to their levels. Raises AdapterError.

    A group whose look fails is left out, and the reason is put into ``failed``.
    """
    users = await list_users(context, place.server)
    views = list[GroupView]()
    for group in place.groups:
        try:
            views.append(await _look_at_group(context, group, refreshes=refreshes))
        except AdapterError as error:
            failed[group.target.name] = describe_server_error(group.target.name, error)
    return View(place=place, users=users, groups=tuple(views))


async def list_users(context: Context, server: Target) -> tuple[ManagedUser, ...]:
    """The managed users on a server. Raises AdapterError."""
    return tuple(await context.engines.call(server, lambda adapter: adapter.list_users(), share=Share.SWEEP))


async def _look_at_group(context: Context, group: Group, *, refreshes: bool) -> GroupView:
    levels = _levels(group.active)
    unique = {repr(level): level for level in levels.values()} if refreshes else {}
    ended = [str(one.username) for one in group.ended]

    def verbs(adapter: Adapter) -> GroupView:
        return GroupView(
            group=group,
            refreshed=tuple(adapter.refresh_levels(list(unique.values()))) if unique else (),
            changed=dict(adapter.compare_users(levels)) if levels else {},
            sessions={one.username: one.sessions for one in adapter.activity(ended)} if ended else {},
        )

    return await context.engines.call(group.target, verbs, share=Share.SWEEP)


def _levels(grants: Sequence[Request]) -> dict[str, Level]:
    """By username, the level as the grant froze it. One that cannot be read is left out."""
    found = dict[str, Level]()
    for request in grants:
        try:
            found[str(request.username)] = level_of(request)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            log.warning("level_unreadable", request=request.id, error=type(error).__name__)
    return found
