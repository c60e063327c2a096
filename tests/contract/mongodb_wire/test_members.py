"""Replica sets, where each member works for itself, and routers, which remember users."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pymongo.errors import AutoReconnect, NotPrimaryError, ServerSelectionTimeoutError
from pymongo.read_preferences import Secondary

from tests.contract.mongodb_wire.harness import (
    APP,
    READ,
    USERS,
    expect_refused,
    harness_of,
    serving,
    slow_find,
)
from tests.servers.mongodb.server import MongoServer


@pytest.fixture(scope="module")
def replica_set() -> Iterator[MongoServer]:
    with serving(members=2) as made:
        yield made


@pytest.fixture(scope="module")
def routers() -> Iterator[MongoServer]:
    with serving(members=2, routers=True) as made:
        yield made


def test_set_is_found_from_one_member(replica_set: MongoServer) -> None:
    with replica_set.open(replica_set.root_url(), directConnection=False, replicaSet="rs0") as client:
        client[APP].found.insert_one({})
        assert client.nodes == {("127.0.0.1", port) for port in replica_set.members}
        assert client.primary == ("127.0.0.1", replica_set.port)
        assert client[APP].get_collection("found", read_preference=Secondary()).find_one() is not None


def test_secondary_refuses_writes(replica_set: MongoServer) -> None:
    with replica_set.admin(port=replica_set.members[1]) as secondary:
        with pytest.raises(NotPrimaryError, match="'code': 10107"):
            secondary.admin.command("dropUser", "anybody")
        assert secondary.admin.command("connectionStatus")["authInfo"]["authenticatedUsers"]
        assert secondary.admin.command("usersInfo", 1, read_preference=Secondary())["users"]


def test_killing_reaches_one_member(replica_set: MongoServer) -> None:
    """What runs on the other goes on: each member has to be asked."""
    with harness_of(replica_set) as harness:
        user = harness.user()
        there = harness.client(user, port=replica_set.members[1])
        cursor = there[APP].things.find(batch_size=2)
        next(cursor)
        harness.bot.admin.command("killAllSessions", [user.document])
        assert list(cursor)
        cursor = there[APP].things.find(batch_size=2)
        next(cursor)
        with replica_set.admin(port=replica_set.members[1]) as secondary:
            secondary.admin.command("killAllSessions", [user.document])
        with expect_refused(43):
            list(cursor)


def test_killing_sessions_undoes_a_transaction(replica_set: MongoServer) -> None:
    with harness_of(replica_set) as harness:
        user = harness.user({"role": "readWrite", "db": APP})
        login, collection = harness.client(user), harness.name()
        harness.root[APP][collection].insert_one({"_id": "before"})
        with login.start_session() as session:
            session.start_transaction()
            login[APP][collection].insert_one({"_id": "within"}, session=session)
            idle = harness.root.admin.aggregate([{"$currentOp": {"allUsers": True, "idleSessions": True}}])
            assert [row for row in idle if row["type"] == "idleSession"]
            harness.bot.admin.command("killAllSessions", [user.document])
            with expect_refused(251):
                login[APP][collection].insert_one({"_id": "after"}, session=session)
        assert [one["_id"] for one in harness.root[APP][collection].find()] == ["before"]
        with login.start_session() as session, session.start_transaction():
            login[APP][collection].insert_one({"_id": "committed"}, session=session)
        assert harness.root[APP][collection].count_documents({}) == 2


def test_member_goes_and_comes_back(replica_set: MongoServer) -> None:
    port = replica_set.members[1]
    with replica_set.admin(port=port, serverSelectionTimeoutMS=300) as secondary, replica_set.admin() as primary:
        secondary.admin.command("ping")
        replica_set.close_member(port)
        with pytest.raises((ServerSelectionTimeoutError, AutoReconnect)):
            secondary.admin.command("usersInfo", 1)
        assert primary.admin.command("ping")["ok"] == 1.0
        replica_set.open_member(port)
    with replica_set.admin(port=port) as secondary:
        assert secondary.admin.command("ping")["ok"] == 1.0


def test_router_remembers_users(routers: MongoServer) -> None:
    """A user dropped at one router lives on at another, up to half a minute or until that is told."""
    with harness_of(routers) as harness:
        user = harness.user(READ)
        here, there = harness.client(user), harness.client(user, port=routers.members[1])
        assert here.admin.command("hello")["msg"] == "isdbgrid"
        for login in (here, there):
            assert login[APP].things.find_one() is not None
        harness.bot[USERS].command("dropUser", user.name)
        with expect_refused(13, "requires authentication"):
            here[APP].things.find_one()
        assert there[APP].things.find_one() is not None
        assert harness.client(user, port=routers.members[1])[APP].things.find_one() is not None
        with routers.admin(port=routers.members[1]) as other:
            other.admin.command("invalidateUserCache")
        with expect_refused(13, "requires authentication"):
            there[APP].things.find_one()


def test_router_kills_everywhere(routers: MongoServer) -> None:
    with harness_of(routers) as harness:
        user = harness.user(READ)
        running = slow_find(harness.client(user, port=routers.members[1]))
        row = harness.await_running(user)
        assert row["shard"]
        with expect_refused(50759):
            harness.bot.admin.command("killOp", 1)
        with expect_refused(28625):
            harness.bot.admin.command("killOp", 1, op="1")
        harness.bot.admin.command("killOp", 1, op=row["opid"])
        with expect_refused(11601):
            running.end()


def test_unconfirmed_write_is_told_and_stays(replica_set: MongoServer) -> None:
    """With one of two members gone there is no majority."""
    port = replica_set.members[1]
    replica_set.close_member(port)
    try:
        with replica_set.admin() as root:
            wait = {"w": "majority", "wtimeout": 200}
            reply = root[USERS].command("createUser", "unconfirmed", pwd="y", roles=[], writeConcern=wait)
            assert reply["writeConcernError"]["code"] == 64
            assert root[USERS].command("usersInfo", "unconfirmed")["users"]
    finally:
        replica_set.open_member(port)
