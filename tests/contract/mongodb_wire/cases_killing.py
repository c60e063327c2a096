"""Cases 29 to 37: ending what runs; 39 and 40: a server without authentication, a write nobody confirmed."""

from __future__ import annotations

import hashlib
from typing import Any

from tests.contract.mongodb_wire.bench import (
    APP,
    USERS,
    Bench,
    Client,
    User,
    expect_refused,
    slow_find,
    slow_find_without_session,
)
from tests.contract.mongodb_wire.cases import case


def _cursor(client: Client) -> Any:
    """Open at the server, with one document fetched."""
    cursor = client[APP].things.find(batch_size=2)
    next(cursor)
    assert cursor.cursor_id
    return cursor


@case(29)
def killing_sessions_ends_what_runs(bench: Bench) -> None:
    victim, other = bench.user(), bench.user()
    his, another = slow_find(bench.client(victim)), slow_find(bench.client(other))
    bench.await_running(victim)
    bench.await_running(other)
    bench.bot.admin.command("killAllSessions", [victim.document])
    with expect_refused(11601, "operation was interrupted"):
        his.end()
    left = bench.running(other)
    assert left, "another's was ended too"
    bench.bot.admin.command("killOp", 1, op=left[0]["opid"])
    with expect_refused(11601):
        another.end()


@case(30)
def killing_sessions_ends_cursors(bench: Bench) -> None:
    user = bench.user()
    login = bench.client(user)
    cursor = _cursor(login)
    number = cursor.cursor_id
    bench.bot.admin.command("killAllSessions", [user.document])
    with expect_refused(43, f"cursor id {number} not found"):
        list(cursor)
    assert login[APP].things.find_one() is not None


@case(31)
def sessions_of_a_dropped_user_are_found(bench: Bench) -> None:
    user = bench.user()
    cursor = _cursor(bench.client(user))
    bench.bot[USERS].command("dropUser", user.name)
    bench.bot.admin.command("killAllSessions", [user.document])
    with expect_refused(43, "not found"):
        bench.root[APP].command("getMore", cursor.cursor_id, collection="things")
    bench.bot.admin.command("killAllSessions", [{"user": "nobody", "db": USERS}])
    with expect_refused(40414, ".db' is missing but a required field"):
        bench.bot.admin.command("killAllSessions", [{"user": user.name}])


def _killer(bench: Bench) -> Client:
    """One who may act in another's name."""
    role = bench.name()
    privileges = [{"resource": {"cluster": True}, "actions": ["killAnySession", "impersonate"]}]
    bench.root.admin.command("createRole", role, privileges=privileges, roles=[])
    return bench.client(bench.user({"role": role, "db": "admin"}))


@case(32)
def pattern_with_users_kills_everybodys(bench: Bench) -> None:
    victim, other = bench.user(), bench.user()
    cursors = [_cursor(bench.client(victim)), _cursor(bench.client(other))]
    pattern = [{"users": [victim.document]}]
    with expect_refused(13, "not authorized to impersonate"):
        bench.bot.admin.command("killAllSessionsByPattern", pattern)
    _killer(bench).admin.command("killAllSessionsByPattern", pattern)
    for cursor in cursors:
        with expect_refused(43, "not found"):
            list(cursor)


def _uid(user: User) -> bytes:
    return hashlib.sha256(str(user).encode()).digest()


@case(33)
def pattern_with_uid_kills_that_users(bench: Bench) -> None:
    victim, other = bench.user(), bench.user()
    his, another = _cursor(bench.client(victim)), _cursor(bench.client(other))
    bench.bot.admin.command("killAllSessionsByPattern", [{"uid": _uid(victim)}])
    with expect_refused(43, "not found"):
        list(his)
    assert list(another)
    with expect_refused(12):
        bench.bot.admin.command("killAllSessionsByPattern", [{"uid": b""}])


@case(34)
def operation_without_session_needs_kill_op(bench: Bench) -> None:
    user = bench.user()
    running = slow_find_without_session(bench.raw(user))
    row = bench.await_running(user)
    assert "lsid" not in row
    bench.bot.admin.command("killAllSessions", [user.document])
    assert [one["opid"] for one in bench.running(user)] == [row["opid"]]
    bench.bot.admin.command("killOp", 1, op=row["opid"])
    with expect_refused(11601, "operation was interrupted"):
        running.end()


@case(35)
def kill_op_checks_its_field(bench: Bench) -> None:
    reply = bench.bot.admin.command("killOp", 1, op=123456)
    assert reply["info"] == "attempting to kill op"
    with expect_refused(13, "killOp may only be run against the admin database."):
        bench.bot[APP].command("killOp", 1, op=123456)
    with expect_refused(4, 'Missing expected field "op"'):
        bench.bot.admin.command("killOp", 1)
    with expect_refused(14):
        bench.bot.admin.command("killOp", 1, op="x")


@case(36)
def current_op_shows_others_to_who_may(bench: Bench) -> None:
    user = bench.user()
    login = bench.client(user)
    everybodys = [{"$currentOp": {"allUsers": True}}]
    with expect_refused(13, "not authorized on admin to execute command { aggregate: 1"):
        login.admin.aggregate(everybodys)
    running = slow_find(login)
    row = bench.await_running(user)
    assert row["effectiveUsers"] == [user.document]
    assert row["active"] is True
    assert isinstance(row["opid"], int)
    assert row["lsid"]["uid"] == _uid(user)
    bench.bot.admin.command("killOp", 1, op=row["opid"])
    with expect_refused(11601):
        running.end()


@case(37)
def cursor_is_its_owners(bench: Bench) -> None:
    user = bench.user()
    cursor = bench.raw(user).command(APP, find="things", batchSize=2)["cursor"]["id"]
    root = bench.raw()
    root.log_in(*bench.server.root, "admin")
    with expect_refused(13, f"cursor id {cursor} was not created by the authenticated user"):
        root.command(APP, getMore=cursor, collection="things")


@case(39, is_auth_on=False)
def server_without_authentication_answers_anybody(bench: Bench) -> None:
    assert bench.stranger().admin.command("listDatabases")["databases"]
    assert bench.stranger()[APP].things.insert_one({}).acknowledged


@case(40)
def unconfirmed_write_is_no_error_of_the_driver(bench: Bench) -> None:
    user = User(bench.name(), "Secret0Temporary")
    unconfirmed = {"code": 64, "codeName": "WriteConcernFailed", "errmsg": "waiting for replication timed out"}
    bench.root.admin.command(
        "configureFailPoint",
        "failCommand",
        mode={"times": 1},
        data={"failCommands": ["createUser"], "writeConcernError": unconfirmed},
    )
    wait = {"w": "majority", "wtimeout": 1000}
    asked: dict[str, Any] = {"pwd": user.password, "roles": ["read"], "writeConcern": wait}
    reply = bench.root[USERS].command("createUser", user.name, **asked)
    assert (reply["ok"], reply.get("writeConcernError", {}).get("code")) == (1.0, 64)
    assert bench.info(user)["user"] == user.name
    with expect_refused(51003):
        bench.root[USERS].command("createUser", user.name, **asked)
