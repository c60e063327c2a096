"""Several nodes: each has users of its own, and a verb is done only when every node has answered."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from adapters.base import ForeignUser, Rejected, ServerDown, WrongServer
from adapters.contract import wait_until
from adapters.redis import Redis
from tests.contract.redis.conftest import replica_of
from tests.contract.redis.harness import READING, WRITING, EngineHarness
from tests.servers.postgresql import free_port
from tests.servers.redis import RedisServer


@pytest.fixture
def own_pair(started: Callable[..., RedisServer]) -> EngineHarness:
    """A primary and its replica of the test's own, which it may break."""
    primary = started()
    return EngineHarness((primary, started(extra=replica_of(primary))))


def users(node: RedisServer) -> set[str]:
    return set(node.run("ACL", "USERS"))


def test_user_exists_on_every_node_and_sessions_of_all_nodes_are_counted(pair: EngineHarness) -> None:
    adapter, spec = pair.adapter(), pair.spec(READING)
    adapter.create_user(spec)
    sessions = [pair.login(spec.username, spec.password, node) for node in pair.nodes for _ in range(2)]
    wait_until(lambda: pair.nodes[1].run("HLEN", "shop:customers") > 0)
    assert [session.read() > 0 for session in sessions] == [True] * 4
    (activity,) = adapter.activity([spec.username])
    assert (activity.sessions, activity.clients) == (4, ("127.0.0.1",))
    adapter.set_password(spec.username, "f" * 32)
    for node in pair.nodes:
        pair.login(spec.username, "f" * 32, node).close()
    removal = adapter.drop_user(spec.username, READING)
    assert removal.sessions_ended == 4
    assert not any(session.is_alive() for session in sessions)
    assert not any(spec.username in users(node) for node in pair.nodes)


def test_drop_ends_reachable_nodes_at_once_and_is_complete_when_every_node_answered(own_pair: EngineHarness) -> None:
    adapter = own_pair.adapter(identity=own_pair.adapter().identity())
    for away, here in ((0, 1), (1, 0)):
        spec = own_pair.spec(READING)
        adapter.create_user(spec)
        session = own_pair.login(spec.username, spec.password, own_pair.nodes[here])
        own_pair.nodes[away].stop()
        for _ in range(2):
            with pytest.raises(ServerDown):
                adapter.drop_user(spec.username, READING)
        assert not session.is_alive(), "a node that answers is not delayed"
        assert spec.username not in users(own_pair.nodes[here])
        own_pair.nodes[away].start()
        assert spec.username in users(own_pair.nodes[away]), "the node started with the saved user"
        removal = adapter.drop_user(spec.username, READING)
        assert not removal.was_absent
        assert not any(spec.username in users(node) for node in own_pair.nodes)
        own_pair.nodes[away].restart()
        assert spec.username not in users(own_pair.nodes[away])


def test_no_user_is_created_while_a_node_is_down(own_pair: EngineHarness) -> None:
    spec = own_pair.spec(READING)
    own_pair.nodes[1].stop()
    with pytest.raises(ServerDown):
        own_pair.adapter().create_user(spec)
    assert spec.username not in users(own_pair.nodes[0])
    for verb in (
        own_pair.adapter().identity,
        own_pair.adapter().list_users,
        lambda: own_pair.adapter().activity([spec.username]),
    ):
        with pytest.raises(ServerDown):
            verb()
    (problem,) = own_pair.adapter().check([READING]).problems
    assert str(own_pair.nodes[1].port) in problem.what


def test_user_that_one_node_lacks_is_completed_or_dropped(pair: EngineHarness) -> None:
    for finish in (True, False):
        adapter, spec = pair.adapter(), pair.spec(READING)
        adapter.create_user(spec)
        pair.nodes[1].run("ACL", "DELUSER", spec.username)
        with pytest.raises(Rejected):
            adapter.set_password(spec.username, "f" * 32)
        assert spec.username not in users(pair.nodes[1]), "set_password created no user"
        assert [u.username for u in adapter.list_users()] == [spec.username]
        if finish:
            adapter.create_user(spec)
            pair.login(spec.username, spec.password, pair.nodes[1]).close()
        assert not adapter.drop_user(spec.username, READING).was_absent


def test_drop_leaves_a_foreign_user_on_one_node_and_drops_its_own_on_the_other(pair: EngineHarness) -> None:
    adapter, spec = pair.adapter(), pair.spec(READING)
    adapter.create_user(spec)
    foreign_mark = "(~dbaccess:ledger=another:request=1:until=1)"
    pair.nodes[0].run("ACL", "SETUSER", spec.username, "reset", "on", ">theirs", foreign_mark)
    assert [user.ledger for user in adapter.list_users()] == [pair.ledger], (
        "the mark of this ledger on the other node counts"
    )
    with pytest.raises(ForeignUser):
        adapter.drop_user(spec.username, READING)
    assert spec.username in users(pair.nodes[0])
    assert spec.username not in users(pair.nodes[1])
    with pytest.raises(ForeignUser):
        adapter.create_user(pair.spec(WRITING, username=spec.username))
    assert spec.username not in users(pair.nodes[1])
    pair.nodes[0].run("ACL", "DELUSER", spec.username)
    pair.nodes[1].run("ACL", "SETUSER", spec.username, "reset", "on", ">theirs")
    with pytest.raises(ForeignUser):
        adapter.create_user(pair.spec(READING, username=spec.username))
    assert spec.username not in users(pair.nodes[0]), "every node is checked before the first create"
    pair.nodes[1].run("ACL", "DELUSER", spec.username)


@pytest.mark.parametrize("url", ["", "no URL at all"])
def test_replica_with_an_unreadable_url_does_not_prevent_the_drop_on_other_nodes(pair: EngineHarness, url: str) -> None:
    """The secret was removed after the user was created. New users are rejected, and the drop ends what it can reach."""
    adapter, spec = pair.adapter(), pair.spec(READING)
    adapter.create_user(spec)
    session = pair.login(spec.username, spec.password, pair.nodes[0])
    lost = Redis(pair.target(), replace(pair.urls(), replicas=(url,)))
    with pytest.raises(Rejected, match="cannot be read"):
        lost.create_user(pair.spec(READING))
    with pytest.raises(Rejected, match="cannot be read"):
        lost.drop_user(spec.username, READING)
    assert not session.is_alive()
    assert spec.username not in users(pair.nodes[0])
    adapter.drop_user(spec.username, READING)
    assert spec.username not in users(pair.nodes[1])


def test_each_node_has_its_own_identity_and_the_order_matters(pair: EngineHarness) -> None:
    first, second = pair.adapter().identity().split(",")
    assert first != second
    assert pair.adapter().check().identity == f"{first},{second}"
    for wrong in (f"{second},{first}", first, f"{first},{first}"):
        spec = pair.spec(READING)
        with pytest.raises(WrongServer):
            pair.adapter(identity=wrong).drop_user(spec.username, READING)
        with pytest.raises(WrongServer):
            pair.adapter(identity=wrong).create_user(spec)
        assert not pair.has_user(spec.username)


def test_node_without_the_bots_account_is_a_problem_and_create_is_rejected(pair: EngineHarness) -> None:
    pair.nodes[1].run("ACL", "DELUSER", pair.bot)
    (problem,) = pair.adapter().check().problems
    assert f"{pair.nodes[1].port} does not let {pair.bot} in" in problem.what
    spec = pair.spec(READING)
    with pytest.raises(Rejected):
        pair.adapter().create_user(spec)
    assert not pair.has_user(spec.username)


# Nodes that databases.yml does not name.


@pytest.mark.parametrize("which", [0, 1])
def test_check_warns_of_a_node_that_is_not_named(pair: EngineHarness, which: int) -> None:
    alone, other = EngineHarness((pair.nodes[which],)), pair.nodes[1 - which]
    wait_until(lambda: "online" in str(pair.nodes[0].run("INFO", "replication")))
    warnings = [w.what for w in alone.adapter().check().warnings]
    assert [w for w in warnings if f"127.0.0.1:{other.port} that databases.yml does not" in w]
    assert bool([w for w in warnings if "takes no writes" in w]) == (which == 1)
    assert not [w for w in pair.adapter().check().warnings if "databases.yml" in w.what]


@pytest.fixture
def cluster(started: Callable[..., RedisServer]) -> tuple[RedisServer, RedisServer]:
    settings = "cluster-enabled yes\nmasteruser tester\nmasterauth SuperSecret0Admin\ncluster-port "
    bus = free_port()
    one, other = started(extra=settings + str(bus)), started(extra=settings + str(free_port()))
    one.run("CLUSTER", "ADDSLOTSRANGE", "0", "16383")
    other.run("CLUSTER", "MEET", one.host, one.port, bus)
    wait_until(lambda: _has_joined(one) and _has_joined(other))
    first = str(one.run("CLUSTER", "MYID"))
    other.run("CLUSTER", "REPLICATE", first)
    wait_until(lambda: str(one.run("CLUSTER", "SHARDS")).count("replication-offset") == 2)
    wait_until(lambda: all("cluster_state:ok" in str(node.run("CLUSTER", "INFO")) for node in (one, other)))
    wait_until(lambda: other.run("INFO", "replication")["master_link_status"] == "up")
    return one, other


def _has_joined(node: RedisServer) -> bool:
    return "cluster_known_nodes:2" in str(node.run("CLUSTER", "INFO"))


def test_users_and_sessions_on_the_nodes_of_a_cluster(cluster: tuple[RedisServer, RedisServer]) -> None:
    one, other = cluster
    harness = EngineHarness((one, other))
    adapter, spec = harness.adapter(), harness.spec(WRITING)
    assert not [w for w in adapter.check().warnings if "databases.yml" in w.what]
    alone = EngineHarness((one,)).adapter().check()
    assert [w for w in alone.warnings if f":{other.port} that databases.yml does not" in w.what]
    adapter.create_user(spec)
    sessions = [harness.login(spec.username, spec.password, node) for node in harness.nodes]
    sessions[0].write()
    assert sessions[1].execute("READONLY") == "OK"
    wait_until(lambda: sessions[1].read_beside() > 0)
    assert sessions[0].execute("CLUSTER", "SLOTS")
    assert adapter.drop_user(spec.username, WRITING).sessions_ended == 2
    assert not any(session.is_alive() for session in sessions)
