"""Killed between any two steps and started again, every request still ends revoked and nobody is left."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from bot.access.ports import ClosedNotice, CredentialsNotice
from storage.records import State
from tests.access.house import ADA, House, Killed

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


async def lived(folder: Path, kill_at: int, part: str) -> bool:
    """One life with a death in it; True where death came. ``part``: while granting, or while ending."""
    folder.mkdir()
    house = House(folder=folder, store=f"sqlite+aiosqlite:///{folder}/ledger.db")
    await house.open()
    try:
        request = await house.approve(await house.ask())
        if part == "ending":
            await house.drain()
            house.clock.at += (await house.now(request)).terms.duration
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
        assert await house.ledger.tasks() == (), kill_at
        return was_killed
    finally:
        await house.close()


@pytest.mark.parametrize("part", ["granting", "ending"])
async def test_killed_at_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    monkeypatch.setenv("HOUSE_ADMIN_URL", "postgresql://bot:HouseAdminSecret@localhost/shop")
    for kill_at in count(1):
        if not await lived(tmp_path / f"{part}{kill_at}", kill_at, part):
            break
    assert kill_at > 20, "the deaths were really tried"
