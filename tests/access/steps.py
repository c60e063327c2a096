"""Steps that the attack tests share: load configuration files, use break-glass access, read alerts, catch a refusal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

from bot.access import request_access, use_case_types
from bot.access.errors import AccessError
from bot.notifications.notices import AlertNotice
from storage.audit_kinds import AuditKind
from storage.records import Request, RequestKind
from tests.access.environment import ADA, ALERTS, HOUR, LEAD, SECOND, AccessEnvironment

BREAK_GLASS_RULE: Mapping[str, Any] = {
    "name": "break glass", "break_glass": True, "requesters": [ADA, LEAD], "databases": ["*"], "levels": ["*"],
    "max_duration": "1h", "approvals": [], "review": {"from": [SECOND, ADA], "within": "24h"},
}  # fmt: skip


def put_in_force(environment: AccessEnvironment, **keys: Any) -> None:
    """Change the first rule, write both files, and load them now, as on SIGHUP."""
    environment.policy["rules"][0].update(keys)
    environment.write()
    load_now(environment)


def load_now(environment: AccessEnvironment) -> None:
    """Load the files now, as on SIGHUP."""
    environment.context.files.forget()
    environment.context.files.refresh()


async def use_break_glass(environment: AccessEnvironment, who: str = ADA) -> Request:
    wanted = use_case_types.RequestInput(
        database="shop", level="readonly", duration=HOUR / 2, reason="everything is down", kind=RequestKind.BREAK_GLASS
    )
    asked = await request_access.request_access(environment.context, await environment.person(who), wanted)
    await environment.drain()
    return await environment.now(asked.request)


def alerts(environment: AccessEnvironment, place: str = ALERTS) -> list[str]:
    return [notice.what for notice in environment.messenger.on(place, AlertNotice)]


async def recorded(environment: AccessEnvironment, kind: AuditKind) -> list[Mapping[str, Any]]:
    """The facts of all audit events of a kind."""
    return [event.facts for event in await environment.ledger.audit.events_after(0, limit=1000) if event.kind == kind]


async def refusal_of(verb: Awaitable[object]) -> AccessError | None:
    """The error that a use case raises; None where it succeeds."""
    try:
        await verb
    except AccessError as no:
        return no
    return None


def change_during_lookup(environment: AccessEnvironment, change: Callable[[], None]) -> None:
    """Call ``change`` once, during the next lookup of groups in Slack."""
    members, left = environment.people.members, [change]

    async def asked(names: Collection[str]) -> Mapping[str, frozenset[str]]:
        found = await members(names)
        if left:
            left.pop()()
        return found

    environment.people.members = asked  # type: ignore[method-assign]
