"""Steps that the tests of attacks share: put files in force, break the glass, read what was told, catch a refusal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

from bot.access import request_access
from bot.access.errors import AccessError
from bot.access.ports import AlertNotice
from storage.audit_log import AuditKind
from storage.records import Kind, Request
from tests.access.house import ADA, ALERTS, HOUR, LEAD, SECOND, House

GLASS: Mapping[str, Any] = {
    "name": "break glass", "break_glass": True, "requesters": [ADA, LEAD], "databases": ["*"], "levels": ["*"],
    "max_duration": "1h", "approvals": [], "review": {"from": [SECOND, ADA], "within": "24h"},
}  # fmt: skip


def put_in_force(house: House, **keys: Any) -> None:
    """Change the first rule, write both files, and load them now, as a SIGHUP does."""
    house.policy["rules"][0].update(keys)
    house.write()
    load_now(house)


def load_now(house: House) -> None:
    """What a SIGHUP does."""
    house.context.files.forget()
    house.context.files.refresh()


async def break_the_glass(house: House, who: str = ADA) -> Request:
    typed = request_access.Typed(
        database="shop", level="readonly", duration=HOUR / 2, reason="everything is down", kind=Kind.BREAK_GLASS
    )
    asked = await request_access.request_access(house.context, await house.person(who), typed)
    await house.drain()
    return await house.now(asked.request)


def alerts(house: House, place: str = ALERTS) -> list[str]:
    return [notice.what for notice in house.wall.on(place, AlertNotice)]


async def recorded(house: House, kind: AuditKind) -> list[Mapping[str, Any]]:
    """The facts of all events of a kind."""
    return [event.facts for event in await house.ledger.events_after(0, limit=1000) if event.kind == kind]


async def refusal_of(verb: Awaitable[object]) -> AccessError | None:
    """The no that a person got; None where the verb was done."""
    try:
        await verb
    except AccessError as no:
        return no
    return None


def change_during_lookup(house: House, change: Callable[[], None]) -> None:
    """Once, while Slack is asked who is in which group, ``change`` happens."""
    members, left = house.people.members, [change]

    async def asked(names: Collection[str]) -> Mapping[str, frozenset[str]]:
        found = await members(names)
        if left:
            left.pop()()
        return found

    house.people.members = asked  # type: ignore[method-assign]
