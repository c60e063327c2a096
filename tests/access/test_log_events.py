"""The log events of the use cases, and their lines at a terminal."""

from __future__ import annotations

from collections.abc import MutableMapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from bot import logs
from bot.access import decide, request_access, review, revoke, use_case_types
from bot.access.errors import AccessError
from tests.access.environment import ADA, LEAD, STRANGER, AccessEnvironment


def shown(entry: MutableMapping[str, Any]) -> str:
    return logs.line_of(logs.LINES[entry["event"]], {k: v for k, v in entry.items() if k not in ("event", "log_level")})


def lines(logged: list[MutableMapping[str, Any]]) -> list[str]:
    return [shown(entry) for entry in logged if entry["event"] in logs.LINES]


async def test_grant_and_end_are_logged(environment: AccessEnvironment) -> None:
    with capture_logs() as logged:
        request = await environment.granted()
        password = environment.credentials().password
        environment.login(request)
        await revoke.done(environment.context, await environment.person(ADA), request.id)
        await environment.drain()
    live, ended = lines(logged)
    assert live.startswith("#1 live: ada, readonly on shop, until ")
    assert ended == "#1 ended: ada, readonly on shop, given back, 1 session ended"
    assert password is not None
    assert password not in str(logged)


async def test_denial_is_logged_without_its_reason(environment: AccessEnvironment) -> None:
    request = await environment.ask()
    with capture_logs() as logged:
        await decide.deny(environment.context, await environment.person(LEAD), request, "not today, secret words")
    assert lines(logged) == ["#1 denied: ada, readonly on shop, by lead"]
    assert "secret words" not in str(logged)


async def test_refusals_are_logged(environment: AccessEnvironment) -> None:
    request = await environment.granted()
    stranger = await environment.person(STRANGER)
    wanted = use_case_types.RequestInput(
        database="shop", level="readonly", duration=timedelta(hours=1), reason="looking at a refund"
    )
    waiting = await environment.ask(LEAD)
    with capture_logs() as logged:
        for verb in (
            request_access.request_access(environment.context, stranger, wanted),
            decide.approve(environment.context, stranger, waiting),
            revoke.revoke(environment.context, stranger, request.id),
            review.sign_off(environment.context, stranger, request),
        ):
            with pytest.raises(AccessError):
                await verb
    first, *others = lines(logged)
    assert first.startswith("refused: stranger, readonly on shop: ")
    assert others == [
        f"#{n} refused click: stranger, {verb}" for n, verb in ((2, "decide"), (1, "revoke"), (1, "review"))
    ]


def test_names_cannot_control_the_terminal() -> None:
    line = logs.line_of(
        logs.LINES["request_refused"],
        {"who": "a\x1b[2Jda\n#9 live: eve\u202e", "access_level": "{who}", "database": None, "why": "no"},
    )
    assert line == "refused: a[2Jda#9 live: eve, {who} on -: no"


def test_end_on_another_day_shows_its_date() -> None:
    now = datetime(2026, 11, 23, 10, 0, tzinfo=UTC)
    assert logs._until(now + timedelta(hours=2), now) == "12:00"
    assert logs._until(now + timedelta(hours=20), now) == "2026-11-24 06:00"
