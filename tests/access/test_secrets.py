"""A password is in one message and nowhere else: neither in the ledger file nor in a log, whatever fails."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterator

import pytest
import structlog

from bot import logs
from bot.access import password, revoke
from bot.jobs import password as password_job
from bot.jobs import provision
from bot.notifications.notices import ClosedNotice
from bot.settings import Settings
from storage.records import State
from tests.access.environment import ADA, AccessEnvironment

ADMIN_PASSWORD = "ShopAdminSecret"


@pytest.fixture(params=["json", "console"])
def log(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    """Everything that the process logs, with the real setup, in each format, at the level debug."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    interaction = io.StringIO()
    monkeypatch.setattr(sys, "stderr", interaction)
    monkeypatch.setattr(logs, "shows_tracebacks", True)
    logs.configure(Settings(log=request.param, log_level="debug"))
    yield interaction
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every password that was created."""
    found: list[str] = []
    real = password.make_password

    def remembered() -> str:
        found.append(real())
        return found[-1]

    for module in (provision, password_job, password):
        monkeypatch.setattr(module, "make_password", remembered)
    return found


def fail_once_everywhere(environment: AccessEnvironment, failed: set[str]) -> None:
    """Each step outside raises an unexpected error the first time it is reached."""

    def step(name: str) -> None:
        if name not in failed:
            failed.add(name)
            raise RuntimeError(f"unforeseen at {name}")

    environment.server.step = environment.messenger.step = step


async def test_no_failure_writes_a_secret(environment: AccessEnvironment, log: io.StringIO, made: list[str]) -> None:
    request = await environment.approve(await environment.ask())
    failed: set[str] = set()
    fail_once_everywhere(environment, failed)
    await environment.turn(minutes=8)
    live = await environment.now(request)
    assert live.state is State.ACTIVE
    assert environment.login(live) is not None
    await password.renew(environment.context, await environment.person(ADA), live)
    await environment.turn(minutes=2)
    assert environment.login(live) is not None
    await revoke.done(environment.context, await environment.person(ADA), request.id)
    await environment.turn(minutes=5)
    assert (await environment.now(request)).state is State.REVOKED
    assert environment.messenger.on(ADA, ClosedNotice)
    assert {
        "before create",
        "after create",
        "after set_password",
        "after update CredentialsNotice",
        "after drop",
    } <= failed
    interaction = log.getvalue()
    assert interaction.count("unforeseen at") >= len(failed), "the failures were logged"
    assert len(made) >= 4
    stored = b"".join(path.read_bytes() for path in environment.folder.glob("ledger.db*"))
    for secret in (*made, ADMIN_PASSWORD):
        assert secret not in interaction
        assert secret.encode() not in stored
    assert str(request.id).encode() in stored
