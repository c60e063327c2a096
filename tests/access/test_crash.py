"""Killed between any two steps and started again, every request still ends revoked and nobody is left."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from bot.access import extend, request_access
from bot.access.ports import CardNotice, ClosedNotice, CredentialsNotice
from storage.records import Kind, Request, State, TaskKind
from tests.access.house import ADA, HOUR, SECOND, House, Killed
from tests.soak import SOAK

GLASS = {
    "name": "break glass", "break_glass": True, "requesters": [ADA], "databases": ["*"], "levels": ["*"],
    "review": {"from": [SECOND], "within": "24h"},
}  # fmt: skip

STRIDES = {"extending": 3, "breaking the glass": 3}
"""These lives are long: every third step dies in `make test`, every one in `make soak`."""

LEDGER_STEPS = ("advance", "finish", "message_posted", "message_drawn", "put_back", "claim")


def killable(house: House) -> None:
    """Every call of the ledger is a step too: dead before it, or dead after it committed."""
    for name in LEDGER_STEPS:
        real = getattr(house.ledger, name)

        async def stepped(*args: object, _real: object = real, _name: str = name, **kwargs: object) -> object:
            house.step(f"before {_name}")
            found = await _real(*args, **kwargs)  # type: ignore[operator]
            house.step(f"after {_name}")
            return found

        setattr(house.ledger, name, stepped)


async def begun(house: House, part: str) -> Request:
    """Up to where death may come; what is left to do is on disk."""
    if part == "breaking the glass":
        house.policy["rules"].append(GLASS)
        house.write()
        typed = request_access.Typed(
            database="shop", level="readonly", reason="everything is down", kind=Kind.BREAK_GLASS
        )
        return (await request_access.request_access(house.context, await house.person(ADA), typed)).request
    request = await house.approve(await house.ask())
    if part == "ending":
        await house.drain()
        house.clock.at += (await house.now(request)).terms.duration
    if part == "extending":
        await house.drain()
        typed = request_access.Typed(duration=HOUR, reason="the refund takes longer")
        more = await extend.extend(house.context, await house.person(ADA), request.id, typed)
        await house.approve(more.request)
    return request


async def as_promised(house: House, request: Request, part: str) -> None:
    ended = await house.now(request)
    assert ended.expires_at is not None
    if part == "extending":
        assert ended.ended_at is not None
        assert ended.ended_at >= ended.expires_at
        assert ended.duration is not None
        assert ended.started_at is not None
        assert ended.expires_at - ended.started_at == ended.duration + HOUR
    if part == "breaking the glass":
        assert house.wall.on(SECOND, CardNotice), "somebody was told"
        assert ended.needs_review


async def lived(folder: Path, kill_at: int, part: str) -> bool:
    """One life with a death in it; True where death came. ``part``: while granting, or while ending."""
    folder.mkdir()
    house = House(folder=folder, store=f"sqlite+aiosqlite:///{folder}/ledger.db")
    await house.open()
    try:
        request = await begun(house, part)
        killable(house)
        house.steps, house.kill_at = 0, kill_at
        was_killed = False
        try:
            await house.drain()
        except Killed:
            was_killed = True
        await house.restart()
        await house.turn(hours=3)
        ended = await house.now(request)
        assert ended.state is State.REVOKED, (kill_at, ended)
        assert house.server.users == {}, kill_at
        assert house.wall.on(ADA, ClosedNotice), kill_at
        assert not house.wall.on(ADA, CredentialsNotice), kill_at
        assert {task.kind for task in await house.ledger.tasks()} <= {TaskKind.REVIEW}, kill_at
        await as_promised(house, request, part)
        return was_killed
    finally:
        await house.close()


@pytest.mark.parametrize("part", ["granting", "ending", "extending", "breaking the glass"])
async def test_killed_at_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    monkeypatch.setenv("HOUSE_ADMIN_URL", "postgresql://bot:HouseAdminSecret@localhost/shop")
    for kill_at in count(1, STRIDES.get(part, 1) if SOAK == 1 else 1):
        if not await lived(tmp_path / f"{part}{kill_at}", kill_at, part):
            break
    assert kill_at > 20, "the deaths were really tried"
