"""Check the servers: what each of them ends by itself, and whether its users match the ledger.

The sweep finds managed users without a live grant, and live grants without their user. Each server is queried once,
however many databases it has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import structlog

from adapters.base import AdapterError, Level, ManagedUser, Removal, Target
from bot.access.context import Context
from bot.access.targets import configured_targets, unique_servers
from bot.engines import Share
from storage.audit_log import AuditKind
from storage.records import Request, State

log = structlog.get_logger(__name__)


class StrayKind(StrEnum):
    """The difference between a user on a server and the ledger."""

    ORPHAN = "orphan"
    MISSING = "missing"
    FOREIGN = "foreign"


@dataclass(frozen=True, kw_only=True)
class Stray:
    """A managed user without a live grant, a foreign user, or a live grant without its user.

    ``ledger`` is the ledger that the user's mark names; None without a mark.
    """

    kind: StrayKind
    target: Target
    username: str
    request_id: int | None
    ledger: str | None

    @property
    def what(self) -> str:
        """The difference as a sentence."""
        if self.kind is StrayKind.ORPHAN:
            return f"{self.username} is on the server of {self.target.name} and no live grant has it"
        if self.kind is StrayKind.MISSING:
            return f"{self.username} of live grant #{self.request_id} is not on the server of {self.target.name}"
        whose = f"of ledger {self.ledger}" if self.ledger else "without a mark"
        return f"{self.username} on the server of {self.target.name} is {whose}: a foreign user, not touched"


@dataclass(frozen=True, kw_only=True)
class SweepResult:
    """The result of a sweep. ``unanswered``: by name of the database, why its server was not checked."""

    servers: int
    users: int
    strays: tuple[Stray, ...]
    unanswered: Mapping[str, str]


async def find_strays(context: Context) -> SweepResult:
    """Compare the users of all servers with the ledger. The ledger is read before and after, so a grant that begins or ends meanwhile is no stray."""
    before = await context.ledger.live_grants()
    frozen = [Target.from_json(request.target) for request in before if request.target]
    servers = unique_servers([*configured_targets(context), *frozen])
    listed, unanswered = dict[Target, list[ManagedUser]](), dict[str, str]()
    for server in servers:
        try:
            listed[server] = await context.engines.call(server, lambda adapter: adapter.list_users())
        except AdapterError as error:
            unanswered[server.name] = str(error)
    after = await context.ledger.live_grants()
    known = {request.username for request in (*before, *after)}
    strays = [
        _stray(server, user, context.ledger.id)
        for server, users in listed.items()
        for user in users
        if user.username not in known
    ]
    strays += _missing(listed, before, after)
    users = sum(map(len, listed.values()))
    return SweepResult(servers=len(servers), users=users, strays=tuple(strays), unanswered=unanswered)


def _stray(server: Target, user: ManagedUser, ledger: str) -> Stray:
    kind = StrayKind.ORPHAN if user.ledger == ledger else StrayKind.FOREIGN
    return Stray(kind=kind, target=server, username=user.username, request_id=user.request_id, ledger=user.ledger)


def _missing(
    listed: Mapping[Target, list[ManagedUser]], before: tuple[Request, ...], after: tuple[Request, ...]
) -> list[Stray]:
    """Grants that were ACTIVE before and after, whose server answered and does not have their user."""
    active = {request.id for request in before if request.state is State.ACTIVE}
    found = []
    for request in after:
        if request.id not in active or request.state is not State.ACTIVE or not request.target or not request.username:
            continue
        own = Target.from_json(request.target)
        server = next((s for s in listed if len(unique_servers([s, own])) == 1), None)
        if server is not None and request.username not in {user.username for user in listed[server]}:
            found.append(
                Stray(kind=StrayKind.MISSING, target=own, username=request.username, request_id=request.id, ledger=None)
            )
    return found


async def measure_servers(context: Context) -> None:
    """Measure what each server ends by itself, for the cards. A server that does not answer keeps its last result."""
    for one in unique_servers(configured_targets(context)):
        try:
            health = await context.engines.measure(one)
        except AdapterError as error:
            log.warning("server_check_failed", database=one.name, error=str(error))
        else:
            log.info("server_checked", database=one.name, version=health.version, enforced=health.enforced.value)


async def end_stray(context: Context, stray: Stray, *, actor: str) -> Removal:
    """Drop an orphan: a managed user of this ledger without a live grant. ``actor`` is for the audit log. Raises AdapterError."""
    assert stray.kind is StrayKind.ORPHAN, "a foreign user is never touched"
    removal = await context.engines.call(
        stray.target, lambda adapter: adapter.drop_user(stray.username, Level(name="sweep")), share=Share.ENDS
    )
    facts = {"database": stray.target.name, "username": stray.username, "sessions_ended": removal.sessions_ended}
    await context.ledger.record(AuditKind.SWEPT, actor=actor, facts=facts)
    return removal
