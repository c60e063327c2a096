"""Replica sets, where each member runs its own operations, and routers, which cache users."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pymongo.errors import NotPrimaryError
from pymongo.read_preferences import Secondary

from tests.contract.mongodb_wire.harness import APP, READ, USERS, expect_refused, harness_of, serving, slow_find
from tests.servers.mongodb.server import MongoServer


@pytest.fixture(scope="module")
def replica_set() -> Iterator[MongoServer]:
    with serving(members=2) as made:
        yield made


@pytest.fixture(scope="module")
def routers() -> Iterator[MongoServer]:
    with serving(members=2, routers=True) as made:
        yield made


def test_driver_finds_the_set_from_one_member(replica_set: MongoServer) -> None:
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


def test_kill_ends_sessions_of_one_member_only(replica_set: MongoServer) -> None:
    with harness_of(replica_set) as harness:
        user = harness.user()
        on_secondary = harness.client(user, port=replica_set.members[1])
        cursor = on_secondary[APP].things.find(batch_size=2)
        next(cursor)
        harness.bot.admin.command("killAllSessions", [user.document])
        assert list(cursor)
        cursor = on_secondary[APP].things.find(batch_size=2)
        next(cursor)
        with replica_set.admin(port=replica_set.members[1]) as secondary:
            secondary.admin.command("killAllSessions", [user.document])
        with expect_refused(43):
            list(cursor)


def test_router_caches_a_dropped_user(routers: MongoServer) -> None:
    """The other router accepts the user for up to 30 seconds, or until its cache is emptied."""
    with harness_of(routers) as harness:
        user = harness.user(READ)
        first, second = harness.client(user), harness.client(user, port=routers.members[1])
        assert first.admin.command("hello")["msg"] == "isdbgrid"
        for login in (first, second):
            assert login[APP].things.find_one() is not None
        harness.bot[USERS].command("dropUser", user.name)
        with expect_refused(13, "requires authentication"):
            first[APP].things.find_one()
        assert second[APP].things.find_one() is not None
        assert harness.client(user, port=routers.members[1])[APP].things.find_one() is not None
        with routers.admin(port=routers.members[1]) as router:
            router.admin.command("invalidateUserCache")
        with expect_refused(13, "requires authentication"):
            second[APP].things.find_one()


def test_router_kills_operations_of_all_routers(routers: MongoServer) -> None:
    with harness_of(routers) as harness:
        user = harness.user(READ)
        running = slow_find(harness.client(user, port=routers.members[1]))
        row = harness.await_running(user)
        assert row["shard"]
        with expect_refused(28625):
            harness.bot.admin.command("killOp", 1, op="1")
        harness.bot.admin.command("killOp", 1, op=row["opid"])
        with expect_refused(11601):
            running.end()
