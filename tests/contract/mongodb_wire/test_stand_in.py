"""The stand-in as a server: it refuses what it does not know, logs like the real server, and keeps its data."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pymongo.errors import AutoReconnect, ServerSelectionTimeoutError

from tests.contract.mongodb_wire.harness import (
    APP,
    USERS,
    WireHarness,
    expect_refused,
    harness_of,
    serving,
    slow_find_without_session,
    until,
)
from tests.servers.mongodb import server
from tests.servers.mongodb.server import MongoServer


@pytest.fixture(scope="module")
def standalone() -> Iterator[MongoServer]:
    with serving() as made:
        yield made


@pytest.fixture
def harness(standalone: MongoServer) -> Iterator[WireHarness]:
    with harness_of(standalone) as made:
        yield made


def test_unknown_commands_and_fields_are_errors(harness: WireHarness) -> None:
    with expect_refused(59, "no such command: 'frobnicate'"):
        harness.root.admin.command("frobnicate")
    with expect_refused(40415, "BSON field 'find.frobnicate' is an unknown field."):
        harness.root[APP].command("find", "things", frobnicate=1)
    with expect_refused(40415, "'KillAllSessionsCmd.frobnicate'"):
        harness.root.admin.command("killAllSessions", [{"user": "x", "db": "y", "frobnicate": 1}])
    with expect_refused(40324):
        list(harness.root[APP].things.aggregate([{"$frobnicate": 1}]))
    with expect_refused(9):
        list(harness.root.admin.aggregate([{"$currentOp": {"allUsers": True, "frobnicate": True}}]))
    with expect_refused(72):
        harness.root.admin.command("killAllSessions", [], writeConcern={"w": 1})
    with expect_refused(73):
        harness.raw().command("a b", ping=1)


def test_features_that_are_not_modelled_are_refused(harness: WireHarness) -> None:
    refused: tuple[dict[str, Any], ...] = ({"$where": "this.n == 1"}, {"n": {"$gt": 1}}, {"$or": [{}]})
    for query in refused:
        with expect_refused(2, "the stand-in does not know"):
            list(harness.root[APP].things.find(query))


def test_log_shows_commands_without_passwords(harness: WireHarness) -> None:
    user = harness.user()
    harness.client(user)[APP].things.find_one()
    harness.root[USERS].command("updateUser", user.name, pwd="AnotherSecret0")
    text = harness.server.log_text()
    assert f'"createUser": "{user.name}"' in text
    assert f'"updateUser": "{user.name}", "pwd": "xxx"' in text
    assert user.password not in text
    assert "AnotherSecret0" not in text


def test_process_does_not_stay_root(standalone: MongoServer) -> None:
    if not Path("/proc").exists():
        pytest.skip("there is no /proc to look it up in")
    owner = Path(f"/proc/{standalone.processes[0].pid}").stat().st_uid
    assert owner != 0
    assert os.geteuid() in (0, owner)


def test_written_data_outlives_the_process() -> None:
    with serving() as made:
        with harness_of(made) as harness:
            user = harness.user(customData={"mark": 1})
            before = harness.info(user)
        for end in (made.kill, made.stop):
            end()
            with made.client(user.name, user.password, USERS, serverSelectionTimeoutMS=300) as client:
                with pytest.raises((ServerSelectionTimeoutError, AutoReconnect)):
                    client[APP].things.find_one()
                made.start()
            with harness_of(made) as harness:
                assert harness.info(user) == before
                assert harness.client(user)[APP].things.find_one() is not None


def test_only_the_first_administrator_needs_no_login(standalone: MongoServer) -> None:
    with standalone.stranger() as stranger, expect_refused(13, "requires authentication"):
        stranger.admin.command("createUser", "second", pwd="x", roles=["root"])


def test_idle_connections_show_their_user(harness: WireHarness) -> None:
    """Up to 8.0; a dropped user until the next command on the connection."""
    user = harness.user()
    login = harness.client(user)
    login[APP].things.find_one()
    harness.root[USERS].command("dropUser", user.name)
    pipeline = [{"$currentOp": {"allUsers": True, "idleConnections": True}}]

    def rows() -> list[dict[str, Any]]:
        return [one for one in harness.root.admin.aggregate(pipeline) if user.document in one.get("effectiveUsers", [])]

    (row,) = rows()
    assert row["active"] is False
    login.admin.command("ping")
    assert rows() == []


def test_operation_of_a_lost_client_ends(harness: WireHarness) -> None:
    user = harness.user()
    raw = harness.raw(user)
    running = slow_find_without_session(raw)
    harness.await_running(user)
    raw._socket.shutdown(socket.SHUT_RDWR)
    until(lambda: not harness.running(user))
    with pytest.raises(ConnectionResetError):
        running.end()


def test_newer_release_differs_where_the_adapter_depends_on_it() -> None:
    with serving(variant="8.2") as new, harness_of(new) as harness:
        with expect_refused(13, "buildInfo requires authentication"):
            harness.stranger().admin.command("buildInfo")
        assert harness.root.admin.command("buildInfo")["version"] == "8.2.0"
        harness.client(harness.user())[APP].things.find_one()
        rows = list(harness.root.admin.aggregate([{"$currentOp": {"allUsers": True, "idleConnections": True}}]))
        assert not [row for row in rows if not row["active"] and "effectiveUsers" in row]
        assert [row for row in rows if row["active"] and "effectiveUsers" in row]


def test_server_starts_on_another_port_where_one_was_taken_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """The port answers, but it is another process that answers."""
    with serving(auth=False) as other:
        ports = iter([*other.members, server.free_port()])
        monkeypatch.setattr(server, "free_port", lambda: next(ports))
        with serving(auth=False, mutant="hello_lacks_read_only") as made:
            assert made.members != other.members
            with made.stranger() as client:
                assert "readOnly" not in client.admin.command("hello")
