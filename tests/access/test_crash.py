"""The process is killed between any two steps and started again. Every request still ends revoked, and no user is left."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from bot.access import extend, request_access, use_case_types
from bot.notifications.notices import CardNotice, ClosedNotice, CredentialsNotice
from storage.records import Request, RequestKind, State, TaskKind
from tests.access.environment import ADA, HOUR, SECOND, AccessEnvironment, Killed
from tests.soak import SOAK

BREAK_GLASS_RULE = {
    "name": "break glass", "break_glass": True, "requesters": [ADA], "databases": ["*"], "levels": ["*"],
    "review": {"from": [SECOND], "within": "24h"},
}  # fmt: skip

STRIDES = {"extending": 3, "break-glass": 3}
"""These runs are long: `make test` kills at every third step, `make soak` at every step."""

LEDGER_STEPS = (
    ("requests", "advance"), ("tasks", "claim_due"), ("tasks", "hold"), ("tasks", "let_go"), ("tasks", "finish"),
    ("tasks", "reschedule"), ("messages", "posted"), ("messages", "rendered"),
)  # fmt: skip


def killable(environment: AccessEnvironment) -> None:
    """Every call of the ledger is a step too: the process dies before it, or after its commit."""
    for part, name in LEDGER_STEPS:
        holder = getattr(environment.ledger, part)
        real = getattr(holder, name)

        async def stepped(*args: object, _real: object = real, _name: str = name, **kwargs: object) -> object:
            environment.step(f"before {_name}")
            found = await _real(*args, **kwargs)  # type: ignore[operator]
            environment.step(f"after {_name}")
            return found

        setattr(holder, name, stepped)


async def begun(environment: AccessEnvironment, part: str) -> Request:
    """Run the part in which the process may die. Everything that is left to do is in the ledger."""
    if part == "break-glass":
        environment.policy["rules"].append(BREAK_GLASS_RULE)
        environment.write()
        wanted = use_case_types.RequestInput(
            database="shop", level="readonly", reason="everything is down", kind=RequestKind.BREAK_GLASS
        )
        return (await request_access.request_access(environment.context, await environment.person(ADA), wanted)).request
    request = await environment.approve(await environment.ask())
    if part == "ending":
        await environment.drain()
        environment.clock.at += (await environment.now(request)).terms.duration
    if part == "extending":
        await environment.drain()
        wanted = use_case_types.RequestInput(duration=HOUR, reason="the refund takes longer")
        more = await extend.extend(environment.context, await environment.person(ADA), request.id, wanted)
        await environment.approve(more.request)
    return request


async def as_promised(environment: AccessEnvironment, request: Request, part: str) -> None:
    ended = await environment.now(request)
    assert ended.expires_at is not None
    if part == "extending":
        assert ended.ended_at is not None
        assert ended.ended_at >= ended.expires_at
        assert ended.duration is not None
        assert ended.started_at is not None
        assert ended.expires_at - ended.started_at == ended.duration + HOUR
    if part == "break-glass":
        assert environment.messenger.on(SECOND, CardNotice), "somebody was notified"
        assert ended.needs_review


async def lived(folder: Path, kill_at: int, part: str) -> bool:
    """One run in which the process dies at step ``kill_at``. True where that step was reached. ``part`` is the part of the run."""
    folder.mkdir()
    environment = AccessEnvironment(folder=folder, store=f"sqlite+aiosqlite:///{folder}/ledger.db")
    await environment.open()
    try:
        request = await begun(environment, part)
        killable(environment)
        environment.steps, environment.kill_at = 0, kill_at
        was_killed = False
        try:
            await environment.drain()
        except Killed:
            was_killed = True
        await environment.restart()
        await environment.turn(hours=3)
        ended = await environment.now(request)
        assert ended.state is State.REVOKED, (kill_at, ended)
        assert environment.server.users == {}, kill_at
        assert environment.messenger.on(ADA, ClosedNotice), kill_at
        assert not environment.messenger.on(ADA, CredentialsNotice), kill_at
        assert {task.kind for task in await environment.ledger.tasks.all()} <= {TaskKind.REVIEW}, kill_at
        await as_promised(environment, request, part)
        return was_killed
    finally:
        await environment.close()


@pytest.mark.parametrize("part", ["granting", "ending", "extending", "break-glass"])
async def test_process_killed_at_every_step_leaves_no_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    monkeypatch.setenv("SHOP_ADMIN_URL", "postgresql://bot:ShopAdminSecret@localhost/shop")
    for kill_at in count(1, STRIDES.get(part, 1) if SOAK == 1 else 1):
        if not await lived(tmp_path / f"{part}{kill_at}", kill_at, part):
            break
    assert kill_at > 20, "the kills were really tried"
