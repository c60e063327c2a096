"""What a restart brings back: every live user, and never one that was taken away."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from adapters.base import LoginRefused, ServerDown, WrongServer
from adapters.redis.users import SERVER_USER
from tests.contract.redis.harness import READING, EngineHarness
from tests.servers.redis import RedisServer


@pytest.fixture
def harness(own: RedisServer) -> EngineHarness:
    return EngineHarness((own,))


def kept(server: RedisServer) -> str:
    files = [server.folder / name for name in ("users.acl", "conf")]
    return "".join(path.read_text() for path in files if path.exists())


@contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    """The server runs as another account than root, and writes a new file beside the old one."""
    folder.chmod(0o555)
    owner = folder.stat()
    os.chown(folder, 0, 0) if os.geteuid() == 0 else None
    try:
        yield
    finally:
        os.chown(folder, owner.st_uid, owner.st_gid) if os.geteuid() == 0 else None
        folder.chmod(0o755)


def test_a_live_user_survives_a_restart_with_its_level_and_mark(harness: EngineHarness) -> None:
    adapter, spec = harness.adapter(), harness.spec(READING)
    identity = adapter.identity()
    adapter.create_user(spec)
    before = adapter.list_users()
    harness.server.restart()
    harness.fill()
    session = harness.login(spec.username, spec.password)
    assert session.read() > 0
    session.close()
    assert adapter.list_users() == before
    assert adapter.identity() == identity
    assert not harness.adapter(identity=identity).drop_user(spec.username, READING).was_absent


def test_no_restart_brings_back_who_was_taken_away(harness: EngineHarness) -> None:
    adapter, spec, other = harness.adapter(), harness.spec(READING), harness.spec(READING)
    adapter.create_user(spec)
    adapter.create_user(other)
    assert spec.username in kept(harness.server), "it must have stood there"
    adapter.drop_user(spec.username, READING)
    assert spec.username not in kept(harness.server)
    harness.server.restart()
    assert not harness.has_user(spec.username)
    harness.login(other.username, other.password).close()


def test_a_crash_of_the_server_brings_nobody_back(harness: EngineHarness) -> None:
    adapter, spec = harness.adapter(), harness.spec(READING)
    adapter.create_user(spec)
    adapter.drop_user(spec.username, READING)
    assert harness.server.process is not None
    harness.server.process.kill()
    harness.server.process.wait()
    harness.server.start()
    assert not harness.has_user(spec.username)


def test_an_old_password_does_not_come_back(harness: EngineHarness) -> None:
    adapter, spec = harness.adapter(), harness.spec(READING)
    adapter.create_user(spec)
    adapter.set_password(spec.username, "f" * 32)
    harness.server.restart()
    harness.login(spec.username, "f" * 32).close()
    with pytest.raises(LoginRefused):
        harness.login(spec.username, spec.password)


def test_a_moved_end_is_kept(harness: EngineHarness) -> None:
    adapter, spec = harness.adapter(), harness.spec(READING, remaining=60)
    adapter.create_user(spec)
    first = adapter.list_users()[0].expires_at
    for remaining in (3600, 120):
        adapter.set_expiry(spec.username, remaining)
        (user,) = adapter.list_users()
        assert first is not None
        assert user.expires_at is not None
        assert abs((user.expires_at - first).total_seconds() - remaining + 60) < 5
        assert (user.ledger, user.request_id) == (harness.ledger, spec.request_id)
    harness.server.restart()
    assert adapter.list_users() == [user]
    harness.fill()
    session = harness.login(spec.username, spec.password)
    assert session.read() > 0
    session.close()


def test_a_drop_that_cannot_be_saved_is_not_done(harness: EngineHarness) -> None:
    adapter, spec = harness.adapter(), harness.spec(READING)
    adapter.create_user(spec)
    session = harness.login(spec.username, spec.password)
    with unwritable(harness.server.folder):
        for _ in range(2):
            with pytest.raises(ServerDown, match="a restart would bring back"):
                adapter.drop_user(spec.username, READING)
        assert not session.is_alive(), "what can be taken is taken"
        assert spec.username in kept(harness.server)
    assert adapter.drop_user(spec.username, READING).was_absent
    assert spec.username not in kept(harness.server)
    harness.server.restart()
    assert not harness.has_user(spec.username)


def test_nobody_is_made_where_nothing_can_be_saved(harness: EngineHarness) -> None:
    with unwritable(harness.server.folder), pytest.raises(ServerDown, match="could not save"):
        harness.adapter().create_user(harness.spec(READING))
    with unwritable(harness.server.folder), pytest.raises(ServerDown, match="could not save"):
        harness.adapter().identity()


def test_a_file_from_before_is_noticed(started: Callable[..., RedisServer]) -> None:
    """Somebody manages the file by other means: the user is back, the list shows it, and it can be taken away again."""
    harness = EngineHarness((started(),))
    adapter, spec = harness.adapter(), harness.spec(READING)
    adapter.create_user(spec)
    saved = (harness.server.folder / "users.acl").read_text()
    adapter.drop_user(spec.username, READING)
    (harness.server.folder / "users.acl").write_text(saved)
    harness.server.restart()
    assert [user.username for user in adapter.list_users()] == [spec.username]
    assert not adapter.drop_user(spec.username, READING).was_absent
    harness.server.restart()
    assert adapter.list_users() == []


def test_a_server_that_lost_its_mark_is_another_until_somebody_says_so(harness: EngineHarness) -> None:
    adapter, spec = harness.adapter(), harness.spec(READING)
    frozen = harness.adapter(identity=adapter.identity())
    frozen.create_user(spec)
    harness.server.run("ACL", "DELUSER", SERVER_USER)
    with pytest.raises(WrongServer) as caught:
        frozen.drop_user(spec.username, READING)
    step = str(caught.value).partition("for all that: ")[2].partition(")),")[0].partition("))")[0] + ")"
    harness.server.run(*step.split())
    assert not frozen.drop_user(spec.username, READING).was_absent


def test_two_that_mark_a_server_at_once_agree(harness: EngineHarness) -> None:
    adapter = harness.adapter()
    first = adapter.identity()
    harness.server.run("ACL", "SETUSER", SERVER_USER, "(~dbaccess:server=0000)")
    assert adapter.identity() == first
    harness.server.restart()
    assert adapter.identity() == first


def test_the_mark_of_the_server_lets_nobody_in(harness: EngineHarness) -> None:
    harness.adapter().identity()
    flags, passwords, commands, keys = harness.server.run("ACL", "GETUSER", SERVER_USER)[1:8:2]
    assert "off" in flags
    assert (passwords, commands, keys) == ([], "-@all", "")
    with pytest.raises(LoginRefused):
        harness.login(SERVER_USER, "")
