"""What a restart brings back: every live user, and never one that was taken away."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from adapters.base import LoginRefused, Unreachable, WrongServer
from adapters.redis.users import SERVER_USER
from tests.contract.redis.bench import READING, Bench
from tests.servers.redis import RedisServer


@pytest.fixture
def bench(own: RedisServer) -> Bench:
    return Bench((own,))


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


def test_a_live_user_survives_a_restart_with_its_level_and_mark(bench: Bench) -> None:
    adapter, spec = bench.adapter(), bench.spec(READING)
    identity = adapter.identity()
    adapter.create_user(spec)
    before = adapter.list_users()
    bench.server.restart()
    bench.fill()
    session = bench.login(spec.username, spec.password)
    assert session.read() > 0
    session.close()
    assert adapter.list_users() == before
    assert adapter.identity() == identity
    assert not bench.adapter(identity=identity).drop_user(spec.username, READING).was_absent


def test_no_restart_brings_back_who_was_taken_away(bench: Bench) -> None:
    adapter, spec, other = bench.adapter(), bench.spec(READING), bench.spec(READING)
    adapter.create_user(spec)
    adapter.create_user(other)
    assert spec.username in kept(bench.server), "it must have stood there"
    adapter.drop_user(spec.username, READING)
    assert spec.username not in kept(bench.server)
    bench.server.restart()
    assert not bench.has_user(spec.username)
    bench.login(other.username, other.password).close()


def test_a_crash_of_the_server_brings_nobody_back(bench: Bench) -> None:
    adapter, spec = bench.adapter(), bench.spec(READING)
    adapter.create_user(spec)
    adapter.drop_user(spec.username, READING)
    assert bench.server.process is not None
    bench.server.process.kill()
    bench.server.process.wait()
    bench.server.start()
    assert not bench.has_user(spec.username)


def test_an_old_password_does_not_come_back(bench: Bench) -> None:
    adapter, spec = bench.adapter(), bench.spec(READING)
    adapter.create_user(spec)
    adapter.set_password(spec.username, "f" * 32)
    bench.server.restart()
    bench.login(spec.username, "f" * 32).close()
    with pytest.raises(LoginRefused):
        bench.login(spec.username, spec.password)


def test_a_moved_end_is_kept(bench: Bench) -> None:
    adapter, spec = bench.adapter(), bench.spec(READING, remaining=60)
    adapter.create_user(spec)
    first = adapter.list_users()[0].expires_at
    for remaining in (3600, 120):
        adapter.set_expiry(spec.username, remaining)
        (user,) = adapter.list_users()
        assert first is not None
        assert user.expires_at is not None
        assert abs((user.expires_at - first).total_seconds() - remaining + 60) < 5
        assert (user.ledger, user.request_id) == (bench.ledger, spec.request_id)
    bench.server.restart()
    assert adapter.list_users() == [user]
    bench.fill()
    session = bench.login(spec.username, spec.password)
    assert session.read() > 0
    session.close()


def test_a_drop_that_cannot_be_saved_is_not_done(bench: Bench) -> None:
    adapter, spec = bench.adapter(), bench.spec(READING)
    adapter.create_user(spec)
    session = bench.login(spec.username, spec.password)
    with unwritable(bench.server.folder):
        for _ in range(2):
            with pytest.raises(Unreachable, match="a restart would bring back"):
                adapter.drop_user(spec.username, READING)
        assert not session.is_alive(), "what can be taken is taken"
        assert spec.username in kept(bench.server)
    assert adapter.drop_user(spec.username, READING).was_absent
    assert spec.username not in kept(bench.server)
    bench.server.restart()
    assert not bench.has_user(spec.username)


def test_nobody_is_made_where_nothing_can_be_saved(bench: Bench) -> None:
    with unwritable(bench.server.folder), pytest.raises(Unreachable, match="could not save"):
        bench.adapter().create_user(bench.spec(READING))
    with unwritable(bench.server.folder), pytest.raises(Unreachable, match="could not save"):
        bench.adapter().identity()


def test_a_file_from_before_is_noticed(started: Callable[..., RedisServer]) -> None:
    """Somebody manages the file by other means: the user is back, the list shows it, and it can be taken away again."""
    bench = Bench((started(),))
    adapter, spec = bench.adapter(), bench.spec(READING)
    adapter.create_user(spec)
    saved = (bench.server.folder / "users.acl").read_text()
    adapter.drop_user(spec.username, READING)
    (bench.server.folder / "users.acl").write_text(saved)
    bench.server.restart()
    assert [user.username for user in adapter.list_users()] == [spec.username]
    assert not adapter.drop_user(spec.username, READING).was_absent
    bench.server.restart()
    assert adapter.list_users() == []


def test_a_server_that_lost_its_mark_is_another_until_somebody_says_so(bench: Bench) -> None:
    adapter, spec = bench.adapter(), bench.spec(READING)
    frozen = bench.adapter(identity=adapter.identity())
    frozen.create_user(spec)
    bench.server.run("ACL", "DELUSER", SERVER_USER)
    with pytest.raises(WrongServer) as caught:
        frozen.drop_user(spec.username, READING)
    step = str(caught.value).partition("for all that: ")[2].partition(")),")[0].partition("))")[0] + ")"
    bench.server.run(*step.split())
    assert not frozen.drop_user(spec.username, READING).was_absent


def test_two_that_mark_a_server_at_once_agree(bench: Bench) -> None:
    adapter = bench.adapter()
    first = adapter.identity()
    bench.server.run("ACL", "SETUSER", SERVER_USER, "(~dbaccess:server=0000)")
    assert adapter.identity() == first
    bench.server.restart()
    assert adapter.identity() == first


def test_the_mark_of_the_server_lets_nobody_in(bench: Bench) -> None:
    bench.adapter().identity()
    flags, passwords, commands, keys = bench.server.run("ACL", "GETUSER", SERVER_USER)[1:8:2]
    assert "off" in flags
    assert (passwords, commands, keys) == ([], "-@all", "")
    with pytest.raises(LoginRefused):
        bench.login(SERVER_USER, "")
