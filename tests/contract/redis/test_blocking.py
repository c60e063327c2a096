"""Users that are blocked together, on all nodes, and what the comparison with their levels finds."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from adapters.base import ServerDown
from adapters.redis.links import sightings
from adapters.redis.users import to_dict
from tests.contract.redis.harness import NARROW, READING, WRITING, EngineHarness
from tests.servers.redis import RedisServer


def is_off(node: RedisServer, username: str) -> bool:
    return "off" in to_dict(node.run("ACL", "GETUSER", username))["flags"]


def test_users_are_blocked_on_every_node(pair: EngineHarness) -> None:
    spec = pair.spec(READING)
    pair.adapter().create_user(spec)
    sessions = [pair.login(spec.username, spec.password, node) for node in pair.nodes]
    assert pair.adapter().block_users([spec.username]) == {spec.username}
    assert not any(session.is_alive() for session in sessions)
    assert all(is_off(node, spec.username) for node in pair.nodes)
    pair.adapter().drop_user(spec.username, READING)


def test_node_that_is_down_is_an_error_and_the_others_are_blocked(started: Callable[..., RedisServer]) -> None:
    harness = EngineHarness((started(), started()))
    spec = harness.spec(READING)
    harness.adapter().create_user(spec)
    session = harness.login(spec.username, spec.password)
    harness.nodes[1].stop()
    with pytest.raises(ServerDown):
        harness.adapter().block_users([spec.username])
    assert not session.is_alive()
    assert is_off(harness.server, spec.username)


def test_block_outlives_a_restart(started: Callable[..., RedisServer]) -> None:
    harness = EngineHarness((started(),))
    spec = harness.spec(READING)
    harness.adapter().create_user(spec)
    sightings.clear()
    assert harness.adapter().block_users([spec.username]) == {spec.username}
    harness.server.restart()
    assert is_off(harness.server, spec.username)


def test_user_without_a_mark_is_blocked(harness: EngineHarness) -> None:
    spec = harness.spec(READING)
    harness.adapter().create_user(spec)
    for node in harness.nodes:
        node.run("ACL", "SETUSER", spec.username, "clearselectors")
    assert harness.adapter().block_users([spec.username]) == {spec.username}
    harness.adapter().drop_user(spec.username, READING)


def test_end_by_hand_ends_the_user(harness: EngineHarness) -> None:
    spec = harness.spec(READING)
    harness.adapter().create_user(spec)
    session = harness.login(spec.username, spec.password)
    for statement in harness.adapter().end_by_hand(spec.username):
        words = statement.split(" ")
        for node in harness.nodes if words[0] != "CONNECT" and words != ["ACL", "SAVE"] else ():
            if words[0] == "ACL" or session.is_alive():
                node.run(*words)
    assert not session.is_alive()
    assert not harness.has_user(spec.username)


@pytest.mark.parametrize(
    ("rule", "found"),
    [
        ("+@dangerous", "dangerous"), ("+acl", "acl"), ("~*", "~*"), ("&*", "channels"), ("nopass", "nopass"), (">Another0Password", "2 passwords"),
        ("(~x +get)", "selector"), ("skip-sanitize-payload", "skip-sanitize-payload"), ("+@connection", "order"),
    ],
)  # fmt: skip
def test_comparison_names_rules_that_were_set_by_hand(harness: EngineHarness, rule: str, found: str) -> None:
    spec = harness.spec(NARROW)
    harness.adapter().create_user(spec)
    harness.server.run("ACL", "SETUSER", spec.username, rule)
    (text,) = [" ".join(s) for s in harness.adapter().compare_users({spec.username: NARROW}).values()]
    is_listed = not harness.server.run("INFO", "server")["redis_version"].startswith("7.0.")
    assert found in text if is_listed or not rule.startswith("+") else "commands" in text
    harness.adapter().drop_user(spec.username, NARROW)


def test_comparison_names_rules_that_were_taken_away(harness: EngineHarness) -> None:
    spec = harness.spec(WRITING)
    harness.adapter().create_user(spec)
    harness.server.run("ACL", "SETUSER", spec.username, "resetkeys")
    assert "it lacks ~*" in str(harness.adapter().compare_users({spec.username: WRITING})[spec.username])
    harness.adapter().drop_user(spec.username, WRITING)


def test_comparison_holds_after_a_restart(started: Callable[..., RedisServer]) -> None:
    """Redis 7.0 lists the commands of a user in another order then."""
    harness = EngineHarness((started(),))
    specs = [harness.spec(level) for level in (READING, WRITING, NARROW)]
    for spec in specs:
        harness.adapter().create_user(spec)
    harness.server.restart()
    assert harness.adapter().compare_users({spec.username: spec.level for spec in specs}) == {}
