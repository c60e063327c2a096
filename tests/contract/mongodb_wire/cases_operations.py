"""Cases 29 to 36: how operations and sessions end; 39: a server without authorization; 40: an unconfirmed write."""

from __future__ import annotations

import hashlib
from typing import Any

from tests.contract.mongodb_wire.harness import (
    APP,
    USERS,
    Client,
    User,
    WireHarness,
    case,
    expect_refused,
    slow_find,
    slow_find_without_session,
)


def _cursor(client: Client) -> Any:
    """A cursor with one document fetched."""
    cursor = client[APP].things.find(batch_size=2)
    next(cursor)
    assert cursor.cursor_id
    return cursor


@case(29)
def kill_all_sessions_ends_operations(harness: WireHarness) -> None:
    victim, other = harness.user(), harness.user()
    killed, other_find = slow_find(harness.client(victim)), slow_find(harness.client(other))
    harness.await_running(victim)
    harness.await_running(other)
    harness.bot.admin.command("killAllSessions", [victim.document])
    with expect_refused(11601, "operation was interrupted"):
        killed.end()
    left = harness.running(other)
    assert left, "the operation of another user ended too"
    harness.bot.admin.command("killOp", 1, op=left[0]["opid"])
    with expect_refused(11601):
        other_find.end()


@case(30)
def kill_all_sessions_ends_cursors(harness: WireHarness) -> None:
    user = harness.user()
    login = harness.client(user)
    cursor = _cursor(login)
    number = cursor.cursor_id
    harness.bot.admin.command("killAllSessions", [user.document])
    with expect_refused(43, f"cursor id {number} not found"):
        list(cursor)
    assert login[APP].things.find_one() is not None


@case(31)
def sessions_of_a_dropped_user_are_found(harness: WireHarness) -> None:
    user = harness.user()
    cursor = _cursor(harness.client(user))
    harness.bot[USERS].command("dropUser", user.name)
    harness.bot.admin.command("killAllSessions", [user.document])
    with expect_refused(43, "not found"):
        harness.root[APP].command("getMore", cursor.cursor_id, collection="things")
    harness.bot.admin.command("killAllSessions", [{"user": "nobody", "db": USERS}])
    with expect_refused(40414, ".db' is missing but a required field"):
        harness.bot.admin.command("killAllSessions", [{"user": user.name}])


def _uid(user: User) -> bytes:
    return hashlib.sha256(str(user).encode()).digest()


@case(34)
def operation_without_session_needs_kill_op(harness: WireHarness) -> None:
    user = harness.user()
    running = slow_find_without_session(harness.raw(user))
    row = harness.await_running(user)
    assert "lsid" not in row
    harness.bot.admin.command("killAllSessions", [user.document])
    assert [one["opid"] for one in harness.running(user)] == [row["opid"]]
    harness.bot.admin.command("killOp", 1, op=row["opid"])
    with expect_refused(11601, "operation was interrupted"):
        running.end()


@case(35)
def kill_op_checks_its_field(harness: WireHarness) -> None:
    reply = harness.bot.admin.command("killOp", 1, op=123456)
    assert reply["info"] == "attempting to kill op"
    with expect_refused(13, "killOp may only be run against the admin database."):
        harness.bot[APP].command("killOp", 1, op=123456)
    with expect_refused(4, 'Missing expected field "op"'):
        harness.bot.admin.command("killOp", 1)
    with expect_refused(14):
        harness.bot.admin.command("killOp", 1, op="x")


@case(36)
def current_op_needs_inprog(harness: WireHarness) -> None:
    user = harness.user()
    login = harness.client(user)
    pipeline = [{"$currentOp": {"allUsers": True}}]
    with expect_refused(13, "not authorized on admin to execute command { aggregate: 1"):
        login.admin.aggregate(pipeline)
    running = slow_find(login)
    row = harness.await_running(user)
    assert row["effectiveUsers"] == [user.document]
    assert row["active"] is True
    assert isinstance(row["opid"], int)
    assert row["lsid"]["uid"] == _uid(user)
    harness.bot.admin.command("killOp", 1, op=row["opid"])
    with expect_refused(11601):
        running.end()


@case(39, is_auth_on=False)
def server_without_authorization_needs_no_login(harness: WireHarness) -> None:
    assert harness.stranger().admin.command("listDatabases")["databases"]
    assert harness.stranger()[APP].things.insert_one({}).acknowledged


@case(40)
def unconfirmed_write_raises_nothing_in_the_driver(harness: WireHarness) -> None:
    user = User(harness.name(), "Secret0Temporary")
    unconfirmed = {"code": 64, "codeName": "WriteConcernFailed", "errmsg": "waiting for replication timed out"}
    harness.root.admin.command(
        "configureFailPoint",
        "failCommand",
        mode={"times": 1},
        data={"failCommands": ["createUser"], "writeConcernError": unconfirmed},
    )
    wait = {"w": "majority", "wtimeout": 1000}
    asked: dict[str, Any] = {"pwd": user.password, "roles": ["read"], "writeConcern": wait}
    reply = harness.root[USERS].command("createUser", user.name, **asked)
    assert (reply["ok"], reply.get("writeConcernError", {}).get("code")) == (1.0, 64)
    assert harness.info(user)["user"] == user.name
    with expect_refused(51003):
        harness.root[USERS].command("createUser", user.name, **asked)
