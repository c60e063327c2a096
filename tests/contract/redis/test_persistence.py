"""A restart of the server brings back every live user with its level and end, and never a dropped user or an old password.

Servers save their users in an ACL file, in their configuration file, or nowhere.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from adapters.base import LoginRefused, ServerDown, WrongServer
from adapters.redis.users import SERVER_USER
from tests.conftest import had
from tests.contract.redis.harness import READING, RIGHTS, EngineHarness, make_bot
from tests.servers import redis as servers
from tests.servers.redis import REDIS, VALKEY, RedisServer


@pytest.fixture
def harness(own: RedisServer) -> EngineHarness:
    return EngineHarness((own,))


@pytest.fixture(params=[REDIS, VALKEY], ids=lambda flavour: flavour.name)
def unsaved_harness(request: pytest.FixtureRequest) -> Iterator[EngineHarness]:
    """On a server that has neither an ACL file nor a configuration file."""
    for server in had(lambda: servers.start(request.param, saves_in="nothing")):
        yield EngineHarness((server,))


def saved_text(server: RedisServer) -> str:
    """The ACL file and the configuration file."""
    files = [server.folder / name for name in ("users.acl", "conf")]
    return "".join(path.read_text() for path in files if path.exists())


@contextmanager
def unwritable(folder: Path) -> Iterator[None]:
    """The server, which does not run as root, cannot write its file: to do so it creates a new file in this folder."""
    folder.chmod(0o555)
    owner = folder.stat()
    os.chown(folder, 0, 0) if os.geteuid() == 0 else None
    try:
        yield
    finally:
        os.chown(folder, owner.st_uid, owner.st_gid) if os.geteuid() == 0 else None
        folder.chmod(0o755)


def test_live_user_survives_a_restart_with_its_level_and_mark(harness: EngineHarness) -> None:
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


def test_dropped_user_does_not_return_after_a_restart(harness: EngineHarness) -> None:
    adapter, spec, other = harness.adapter(), harness.spec(READING), harness.spec(READING)
    adapter.create_user(spec)
    adapter.create_user(other)
    assert spec.username in saved_text(harness.server), "the user was saved before the drop"
    adapter.drop_user(spec.username, READING)
    assert spec.username not in saved_text(harness.server)
    harness.server.restart()
    assert not harness.has_user(spec.username)
    harness.login(other.username, other.password).close()


def test_dropped_user_does_not_return_after_a_crash_of_the_server(harness: EngineHarness) -> None:
    adapter, spec = harness.adapter(), harness.spec(READING)
    adapter.create_user(spec)
    adapter.drop_user(spec.username, READING)
    assert harness.server.process is not None
    harness.server.process.kill()
    harness.server.process.wait()
    harness.server.start()
    assert not harness.has_user(spec.username)


def test_old_password_does_not_return_after_a_restart(harness: EngineHarness) -> None:
    adapter, spec = harness.adapter(), harness.spec(READING)
    adapter.create_user(spec)
    adapter.set_password(spec.username, "f" * 32)
    harness.server.restart()
    harness.login(spec.username, "f" * 32).close()
    with pytest.raises(LoginRefused):
        harness.login(spec.username, spec.password)


def test_moved_expiry_survives_a_restart(harness: EngineHarness) -> None:
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


def test_drop_that_cannot_be_saved_is_server_down_and_ends_the_sessions(harness: EngineHarness) -> None:
    adapter, spec = harness.adapter(), harness.spec(READING)
    adapter.create_user(spec)
    session = harness.login(spec.username, spec.password)
    with unwritable(harness.server.folder):
        for _ in range(2):
            with pytest.raises(ServerDown, match="a restart would bring back"):
                adapter.drop_user(spec.username, READING)
        assert not session.is_alive(), "the session ends although the drop is not complete"
        assert spec.username in saved_text(harness.server)
    assert adapter.drop_user(spec.username, READING).was_absent
    assert spec.username not in saved_text(harness.server)
    harness.server.restart()
    assert not harness.has_user(spec.username)


def test_create_and_identity_fail_where_users_cannot_be_saved(harness: EngineHarness) -> None:
    with unwritable(harness.server.folder), pytest.raises(ServerDown, match="could not save"):
        harness.adapter().create_user(harness.spec(READING))
    with unwritable(harness.server.folder), pytest.raises(ServerDown, match="could not save"):
        harness.adapter().identity()


def test_user_from_a_restored_acl_file_is_listed_and_can_be_dropped(started: Callable[..., RedisServer]) -> None:
    """An administrator manages the ACL file by other means and puts an old version back."""
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


# The mark of the server.


def test_server_without_its_mark_is_refused_until_the_printed_statement_is_run(harness: EngineHarness) -> None:
    adapter, spec = harness.adapter(), harness.spec(READING)
    frozen = harness.adapter(identity=adapter.identity())
    harness.server.run("ACL", "DELUSER", SERVER_USER)
    for verb in (lambda: frozen.create_user(spec), lambda: frozen.drop_user(spec.username, READING)):
        with pytest.raises(WrongServer) as caught:
            verb()
    statement = str(caught.value).partition("mark it again: ")[2].partition("))")[0] + ")"
    harness.server.run(*statement.split())
    frozen.create_user(spec)
    assert not frozen.drop_user(spec.username, READING).was_absent


def test_user_with_its_mark_is_dropped_where_the_server_has_lost_its_own(harness: EngineHarness) -> None:
    """The user's mark names the ledger, so it is the server on which the ledger created the user."""
    adapter, spec = harness.adapter(), harness.spec(READING)
    frozen = harness.adapter(identity=adapter.identity())
    frozen.create_user(spec)
    session = harness.login(spec.username, spec.password)
    harness.server.run("ACL", "DELUSER", SERVER_USER)
    assert not frozen.drop_user(spec.username, READING).was_absent
    assert not session.is_alive()
    assert not harness.has_user(spec.username)


def test_two_bots_that_mark_a_server_at_once_read_the_same_identity(harness: EngineHarness) -> None:
    adapter = harness.adapter()
    first = adapter.identity()
    harness.server.run("ACL", "SETUSER", SERVER_USER, "(~dbaccess:server=0000)")
    assert adapter.identity() == first
    harness.server.restart()
    assert adapter.identity() == first


def test_user_that_marks_the_server_cannot_log_in_and_has_no_rights(harness: EngineHarness) -> None:
    harness.adapter().identity()
    flags, passwords, commands, keys = harness.server.run("ACL", "GETUSER", SERVER_USER)[1:8:2]
    assert "off" in flags
    assert (passwords, commands, keys) == ([], "-@all", "")
    with pytest.raises(LoginRefused):
        harness.login(SERVER_USER, "")


# A server that saves its users nowhere: a restart ends all access.


def test_unsaved_user_is_gone_after_a_restart_and_the_drop_says_so(unsaved_harness: EngineHarness) -> None:
    harness = unsaved_harness
    adapter, spec = harness.adapter(), harness.spec(READING)
    identity = adapter.identity()
    assert adapter.check().identity == identity
    frozen = harness.adapter(identity=identity)
    frozen.create_user(spec)
    harness.login(spec.username, spec.password).close()
    harness.server.restart()
    make_bot(harness.server, harness.bot, RIGHTS)
    with pytest.raises(LoginRefused):
        harness.login(spec.username, spec.password)
    assert frozen.drop_user(spec.username, READING).was_absent
    assert harness.adapter().identity() == identity


def test_check_warns_that_a_restart_forgets_all_users(unsaved_harness: EngineHarness) -> None:
    health = unsaved_harness.adapter().check([READING])
    assert health.problems == ()
    assert [w for w in health.warnings if "a restart forgets all users" in w.what]


def test_unsaved_user_is_created_and_dropped(unsaved_harness: EngineHarness) -> None:
    adapter, spec = unsaved_harness.adapter(), unsaved_harness.spec(READING)
    adapter.create_user(spec)
    session = unsaved_harness.login(spec.username, spec.password)
    assert adapter.drop_user(spec.username, READING).sessions_ended == 1
    assert not session.is_alive()
