"""Users that are blocked together, and what the comparison with their levels finds."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pymongo.errors import PyMongoError

from adapters.harness import wait_until
from adapters.mongodb.levels import managed_role
from tests.contract.mongodb.harness import NARROW, READING, WRITING, MongoDBHarness


def stored(harness: MongoDBHarness, username: str) -> dict[str, Any]:
    with harness.server.admin() as root:
        (found,) = root[harness.users].command("usersInfo", username)["users"]
    return dict(found)


def test_blocked_user_has_its_mark_and_no_role(harness: MongoDBHarness) -> None:
    spec, adapter = harness.spec(READING), harness.adapter()
    adapter.create_user(spec)
    assert adapter.block_users([spec.username]) == {spec.username}
    assert stored(harness, spec.username)["roles"] == []
    (listed,) = [user for user in adapter.list_users() if user.username == spec.username]
    assert (listed.ledger, listed.request_id) == (harness.ledger, spec.request_id)
    assert listed.expires_at is not None
    assert adapter.compare_users({spec.username: READING}) == {}, "an end is no difference"
    adapter.drop_user(spec.username, READING)


def test_block_ends_a_running_statement(harness: MongoDBHarness) -> None:
    spec, adapter = harness.spec(READING), harness.adapter()
    adapter.create_user(spec)
    session = harness.login(spec.username, spec.password)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(session.work, 15.0)
        wait_until(lambda: adapter.activity([spec.username])[0].sessions > 0)
        assert adapter.block_users([spec.username]) == {spec.username}
        assert isinstance(running.exception(timeout=60), PyMongoError)
    session.close()
    adapter.drop_user(spec.username, READING)


def test_end_by_hand_names_the_users_database(harness: MongoDBHarness) -> None:
    drop, kill, operations = harness.adapter().end_by_hand("j_1_ada_x7k2")
    assert drop == f'db.getSiblingDB("{harness.users}").dropUser("j_1_ada_x7k2")'
    assert "killAllSessions" in kill
    assert "killOp" in operations


def test_comparison_names_the_roles_of_another_level(harness: MongoDBHarness) -> None:
    spec, adapter = harness.spec(WRITING), harness.adapter()
    adapter.create_user(spec)
    found = adapter.compare_users({spec.username: NARROW})[spec.username]
    managed = managed_role(adapter.server, NARROW)
    assert f"its level does not give the role readWrite@{harness.app}" in found
    assert f"it lacks the role {managed}@{harness.app} of its level" in found
    adapter.drop_user(spec.username, WRITING)


def test_refresh_makes_a_managed_role_equal_to_its_level(harness: MongoDBHarness) -> None:
    spec, adapter = harness.spec(NARROW), harness.adapter()
    adapter.create_user(spec)
    (role,) = stored(harness, spec.username)["roles"]
    on_orders = [{"resource": {"db": harness.app, "collection": "orders"}, "actions": ["find", "insert"]}]
    with harness.server.admin() as root:
        root[harness.app].command("grantPrivilegesToRole", role["role"], privileges=on_orders)
    (sentence,) = adapter.refresh_levels([NARROW, READING])
    assert f"find, insert on {harness.app}.orders was revoked" in sentence
    assert adapter.refresh_levels([NARROW]) == []
    adapter.drop_user(spec.username, NARROW)
