"""The stand-in as a server: strict, logged as the real one, its accounts outliving its process."""

from __future__ import annotations

import hashlib
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bson
import pytest
from pymongo.errors import AutoReconnect, ServerSelectionTimeoutError
from pymongo.server_api import ServerApi
from pymongo.write_concern import WriteConcern

from tests.contract.mongodb_wire.harness import (
    APP,
    READ,
    SLOW_FILTER,
    USERS,
    EngineHarness,
    User,
    expect_refused,
    harness_of,
    serving,
    slow_find,
    slow_find_without_session,
    until,
)
from tests.servers.mongodb.server import MongoServer


@pytest.fixture(scope="module")
def standalone() -> Iterator[MongoServer]:
    with serving() as made:
        yield made


@pytest.fixture
def harness(standalone: MongoServer) -> Iterator[EngineHarness]:
    with harness_of(standalone) as made:
        yield made


def test_unknown_commands_fields_and_operators_are_errors(harness: EngineHarness) -> None:
    with expect_refused(59, "no such command: 'frobnicate'"):
        harness.root.admin.command("frobnicate")
    with expect_refused(40415, "BSON field 'find.frobnicate' is an unknown field."):
        harness.root[APP].command("find", "things", frobnicate=1)
    with expect_refused(40415, "'KillAllSessionsCmd.frobnicate'"):
        harness.root.admin.command("killAllSessions", [{"user": "x", "db": "y", "frobnicate": 1}])
    with expect_refused(2, "unknown operator: $frobnicate"):
        list(harness.root[APP].things.find({"n": {"$frobnicate": 1}}))
    with expect_refused(40324):
        list(harness.root[APP].things.aggregate([{"$frobnicate": 1}]))
    with expect_refused(9):
        list(harness.root.admin.aggregate([{"$currentOp": {"frobnicate": True}}]))
    with expect_refused(72):
        harness.root.admin.command("killAllSessions", [], writeConcern={"w": 1})
    with expect_refused(73):
        harness.raw().command("a b", ping=1)
    with expect_refused(2, "the stand-in does not know"):
        list(harness.root[APP].things.find({"$where": "this.n == 1"}))


def test_hello_in_the_old_message(harness: EngineHarness) -> None:
    """Drivers before 4.18 begin so; the current one no longer does."""
    assert _old_query(harness, {"ismaster": 1, "helloOk": True})["ismaster"] is True
    assert _old_query(harness, {"ismaster": 1, "$db": "admin"})["code"] == 40621


def _old_query(harness: EngineHarness, body: dict[str, Any]) -> dict[str, Any]:
    raw = harness.raw()
    message = struct.pack("<i", 0) + b"admin.$cmd\0" + struct.pack("<ii", 0, -1) + bson.encode(body)
    raw._socket.sendall(struct.pack("<iiii", len(message) + 16, 7, 0, 2004) + message)
    (length,) = struct.unpack("<i", raw._read(4))
    head = raw._read(length - 4)
    assert struct.unpack("<iii", head[:12])[1:] == (7, 1)
    return dict(bson.decode(head[32:]))


def test_unacknowledged_writes_get_no_reply(harness: EngineHarness) -> None:
    things = harness.root[APP].get_collection("unacknowledged", write_concern=WriteConcern(w=0))
    things.insert_one({"n": 1})
    assert harness.root.admin.command("ping")["ok"] == 1.0
    until(lambda: harness.root[APP].unacknowledged.count_documents({}) == 1)


def test_nonsense_closes_the_connection_and_nothing_else(harness: EngineHarness) -> None:
    raw = harness.raw()
    raw._socket.sendall(struct.pack("<iiii", 20, 1, 0, 4711) + b"abcd")
    with pytest.raises(ConnectionResetError):
        raw._read(1)
    assert harness.root.admin.command("ping")["ok"] == 1.0


def test_log_shows_commands_without_passwords(harness: EngineHarness) -> None:
    user = harness.user()
    harness.client(user)[APP].things.find_one()
    harness.root[USERS].command("updateUser", user.name, pwd="AnotherSecret0")
    text = harness.server.log_text()
    assert f'"createUser": "{user.name}"' in text
    assert f'"updateUser": "{user.name}", "pwd": "xxx"' in text
    assert user.password not in text
    assert "AnotherSecret0" not in text
    assert "The stand-in is wrong" not in text


def test_process_is_nobodys(standalone: MongoServer) -> None:
    """Started by root it does not stay root."""
    if not Path("/proc").exists():
        pytest.skip("there is no /proc to look it up in")
    owner = Path(f"/proc/{standalone.processes[0].pid}").stat().st_uid
    assert owner != 0
    assert os.geteuid() in (0, owner)


def test_what_was_written_outlives_the_process() -> None:
    with serving() as made:
        with harness_of(made) as harness:
            user = harness.user(customData={"mark": 1})
            before = harness.info(user, showCredentials=True)
        for end in (made.kill, made.stop):
            end()
            with made.client(user.name, user.password, USERS, serverSelectionTimeoutMS=300) as client:
                with pytest.raises((ServerSelectionTimeoutError, AutoReconnect)):
                    client[APP].things.find_one()
                made.start()
            with harness_of(made) as harness:
                assert harness.info(user, showCredentials=True) == before
                assert harness.client(user)[APP].things.find_one() is not None


def test_first_administrator_is_made_once(standalone: MongoServer) -> None:
    with standalone.stranger() as stranger, expect_refused(13, "requires authentication"):
        stranger.admin.command("createUser", "second", pwd="x", roles=["root"])


def test_idle_connections_tell_whose_they_are(harness: EngineHarness) -> None:
    """Up to 8.0, and of a dropped user until his next command."""
    user = harness.user()
    login = harness.client(user)
    login[APP].things.find_one()
    harness.root[USERS].command("dropUser", user.name)
    asked = [{"$currentOp": {"allUsers": True, "idleConnections": True}}]

    def his() -> list[dict[str, Any]]:
        return [row for row in harness.root.admin.aggregate(asked) if user.document in row.get("effectiveUsers", [])]

    (row,) = his()
    assert row["active"] is False
    login.admin.command("ping")
    assert his() == []


def test_idle_cursors_tell_their_session(harness: EngineHarness) -> None:
    user = harness.user()
    cursor = harness.client(user)[APP].things.find(batch_size=2)
    next(cursor)
    asked: list[dict[str, Any]] = [
        {"$currentOp": {"allUsers": True, "idleCursors": True}},
        {"$match": {"type": "idleCursor"}},
    ]
    rows = [row for row in harness.root.admin.aggregate(asked) if row["cursor"]["cursorId"] == cursor.cursor_id]
    assert [row["ns"] for row in rows] == [f"{APP}.things"]
    assert rows[0]["lsid"]["uid"] == hashlib.sha256(str(user).encode()).digest()
    assert "effectiveUsers" not in rows[0]
    cursor.close()


def test_both_mechanisms_and_any_name(harness: EngineHarness) -> None:
    for name in ("plain", "a=b,c", "ünï", "with space@and:more/"):
        for mechanism in ("SCRAM-SHA-1", "SCRAM-SHA-256"):
            user = User(f"{name}-{mechanism}", "p\u00aaß\u00a0x")
            harness.root[USERS].command(
                "createUser", user.name, pwd=user.password, roles=[READ], mechanisms=[mechanism]
            )
            assert harness.client(user)[APP].things.find_one() is not None
            with expect_refused(18):
                harness.client(user._replace(password="wrong"))[APP].things.find_one()
    digest = hashlib.md5(b"digested:mongo:Secret0").hexdigest()
    how: dict[str, Any] = {"pwd": digest, "digestPassword": False, "roles": [READ]}
    with expect_refused(2, "SCRAM-SHA-256 requires undigested passwords"):
        harness.root[USERS].command("createUser", "digested", **how)
    harness.root[USERS].command("createUser", "digested", **how, mechanisms=["SCRAM-SHA-1"])
    assert harness.client(User("digested", "Secret0"))[APP].things.find_one() is not None


def test_strict_api_has_no_users(harness: EngineHarness) -> None:
    strict = harness.clients.enter_context(harness.server.admin(server_api=ServerApi("1", strict=True)))
    assert strict[APP].things.find_one() is not None
    with expect_refused(323):
        strict[USERS].command("createUser", "x", pwd="y", roles=[])


def test_write_concern_is_read(harness: EngineHarness) -> None:
    with expect_refused(2, "when a host is not replicated"):
        harness.root[USERS].command("createUser", "x", pwd="y", roles=[], writeConcern={"w": 2})
    with expect_refused(40415, "writeConcern.frobnicate"):
        harness.root[USERS].command("createUser", "x", pwd="y", roles=[], writeConcern={"frobnicate": 1})


def test_reply_is_lost_after_the_work(harness: EngineHarness) -> None:
    data = {"failCommands": ["createUser"]}
    harness.root.admin.command("configureFailPoint", "loseReply", mode={"times": 1}, data=data)
    with pytest.raises(AutoReconnect):
        harness.root[USERS].command("createUser", "lost", pwd="y", roles=[])
    assert harness.root[USERS].command("usersInfo", "lost")["users"]
    harness.root.admin.command(
        "configureFailPoint", "failCommand", mode={"times": 1}, data={**data, "closeConnection": True}
    )
    with pytest.raises(AutoReconnect):
        harness.root[USERS].command("createUser", "never", pwd="y", roles=[])
    assert not harness.root[USERS].command("usersInfo", "never")["users"]


def test_own_operations_are_ones_own_to_kill(harness: EngineHarness) -> None:
    user, other = harness.user(), harness.user()
    running = slow_find(harness.client(user))
    row = harness.await_running(user)
    with expect_refused(13, "not authorized on admin to execute command { killOp"):
        harness.client(other).admin.command("killOp", 1, op=row["opid"])
    with expect_refused(13):
        harness.client(user).admin.command("killOp", 1)
    harness.client(user).admin.command("killOp", 1, op=row["opid"])
    with expect_refused(11601):
        running.end()


def test_client_that_is_gone_runs_nothing(harness: EngineHarness) -> None:
    user = harness.user()
    raw = harness.raw(user)
    running = slow_find_without_session(raw)
    harness.await_running(user)
    raw._socket.shutdown(socket.SHUT_RDWR)
    until(lambda: not harness.running(user))
    with pytest.raises(ConnectionResetError):
        running.end()


def test_time_limit_ends_an_operation(harness: EngineHarness) -> None:
    with expect_refused(50, "operation exceeded time limit"):
        list(harness.root[APP].things.find(SLOW_FILTER).max_time_ms(250))
