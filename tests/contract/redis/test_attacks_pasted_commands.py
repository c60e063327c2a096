"""The command that a person pastes, on a machine that has redis-cli and none of the bot's files: it works as it stands."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from adapters.base import Secrets, Tls
from tests.conftest import had
from tests.contract.redis.harness import BOT_PASSWORD, READING, EngineHarness, RecordingRedis
from tests.open_faults import open_fault
from tests.servers import certificates
from tests.servers import redis as servers
from tests.servers.postgresql import free_port
from tests.servers.redis import REDIS


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """The bot's own file of the authority; the person's machine has no such path."""
    return tmp_path / "bot" / "ca.pem"


@pytest.fixture
def secured(authority: Path) -> Iterator[tuple[EngineHarness, RecordingRedis]]:
    port = free_port()
    with certificates.made() as pem:
        authority.parent.mkdir()
        shutil.copy(pem.ca, authority)
        files = (("cert", pem.certificate), ("key", pem.key), ("ca-cert", pem.ca))
        extra = f"tls-port {port}\ntls-auth-clients no\n" + "".join(f"tls-{word}-file {path}\n" for word, path in files)
        for server in had(lambda: servers.start(REDIS, extra=extra)):
            harness = EngineHarness((server,))
            target = harness.target(tls=Tls(mode="verify-full", ca=str(authority)))
            adapter = RecordingRedis(
                target, Secrets(admin_url=f"rediss://{harness.bot}:{BOT_PASSWORD}@127.0.0.1:{port}")
            )
            adapter.passwords = harness.passwords
            yield harness, adapter


@open_fault("U7", "the command names the bot's own file of the authority, which no other machine has")
def test_over_tls_that_verifies(secured: tuple[EngineHarness, RecordingRedis], authority: Path) -> None:
    harness, adapter = secured
    spec = harness.spec(READING)
    adapter.create_user(spec)
    command = adapter.endpoint(READING).paste(spec.username, spec.password)
    authority.rename(authority.with_name("elsewhere.pem"))
    said = harness.login_by(command)
    authority.with_name("elsewhere.pem").rename(authority)
    adapter.drop_user(spec.username, READING)
    assert f"user={spec.username}" in said, said
