"""Failures that the facts of MongoDB make possible, one at a time, on the stand-in, which can cause them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from adapters.base import Connect, ForeignUser, Level, LoginRefused, PrivilegeGrant, Rejected, Secrets, ServerDown, Tls
from adapters.harness import Denied, wait_until
from adapters.mongodb import MongoDB
from adapters.mongodb.levels import managed_role
from adapters.mongodb.supported import unsupported
from tests.contract.mongodb.harness import BOT_PASSWORD, MongoDBHarness
from tests.servers.mongodb import server as servers
from tests.servers.mongodb.server import SLOW, MongoServer


@pytest.fixture(scope="module")
def alone() -> Iterator[MongoServer]:
    made = servers.start()
    yield made
    made.remove()


@pytest.fixture(scope="module")
def pair() -> Iterator[MongoServer]:
    made = servers.start(members=2)
    yield made
    made.remove()


@pytest.fixture
def shop(alone: MongoServer) -> MongoDBHarness:
    return MongoDBHarness(alone)


def fail(
    harness: MongoDBHarness, command: str, *, name: str = "failCommand", port: int | None = None, **data: Any
) -> None:
    """The next such command fails in this way."""
    with harness.server.admin(port=port) as root:
        root.admin.command("configureFailPoint", name, mode={"times": 1}, data={"failCommands": [command], **data})


# Servers that are not supported.


def test_a_server_without_authorization_is_refused() -> None:
    server = servers.start(auth=False)
    try:
        harness = MongoDBHarness(server)
        adapter = MongoDB(
            harness.target(), Secrets(admin_url=f"mongodb://x:y@127.0.0.1:{server.port}/?authSource=admin")
        )
        spec = harness.spec(harness.reading)
        with pytest.raises(Rejected, match="answers clients that do not log in") as no:
            adapter.create_user(spec)
        assert no.value.remedy is not None
        assert "--auth" in no.value.remedy
        assert not harness.has_user(spec.username)
    finally:
        server.remove()


def test_a_look_alike_is_refused() -> None:
    server = servers.start(variant="ferretdb")
    try:
        harness = MongoDBHarness(server)
        with pytest.raises(Rejected, match="FerretDB"):
            harness.adapter().create_user(harness.spec(harness.reading))
        assert [f for f in harness.adapter().check().problems if "FerretDB" in f.what]
    finally:
        server.remove()


@pytest.fixture(scope="module")
def old() -> Iterator[MongoDBHarness]:
    made = servers.start(variant="6.0")
    yield MongoDBHarness(made)
    made.remove()


def test_an_old_server_gets_no_new_grants(old: MongoDBHarness) -> None:
    for level in (old.reading, old.narrow):
        spec = old.spec(level)
        with pytest.raises(Rejected, match=r"MongoDB 6\.0\.20 is not supported") as no:
            old.adapter().create_user(spec)
        assert no.value.remedy is not None
        assert "MongoDB 7.0 or later" in no.value.remedy
        assert not old.has_user(spec.username)


def test_check_names_the_version_that_an_old_server_needs(old: MongoDBHarness) -> None:
    (finding,) = old.adapter().check([old.reading]).problems
    assert finding.what == "MongoDB 6.0.20 is not supported: no new grants"
    assert finding.remedy is not None
    assert "upgrade the server to MongoDB 7.0 or later" in finding.remedy


def test_an_old_server_is_not_marked(old: MongoDBHarness) -> None:
    with pytest.raises(Rejected, match="not supported"):
        old.adapter().identity()
    with old.server.admin() as root:
        assert not root[old.users].command("rolesInfo", 1)["roles"]
        assert not root[old.users].command("usersInfo", 1)["users"]


def test_a_user_on_an_old_server_is_still_ended(old: MongoDBHarness) -> None:
    """The server was replaced by an older one, or the user was created before 7.0 became the minimum."""
    spec, adapter = old.spec(old.reading), old.adapter()
    mark = {"dbaccess": {"ledger": old.ledger, "request": spec.request_id, "ends_at": datetime.now(UTC)}}
    with old.server.admin() as root:
        role = {"role": "read", "db": old.app}
        root[old.users].command("createUser", spec.username, pwd=spec.password, roles=[role], customData=mark)
    assert [user.username for user in adapter.list_users()] == [spec.username]
    session = old.login(spec.username, spec.password)
    assert session.read() > 0
    assert adapter.activity([spec.username])[0].sessions > 0
    assert not adapter.drop_user(spec.username, spec.level).was_absent
    assert not session.is_alive()
    session.close()
    assert adapter.list_users() == []


@pytest.mark.parametrize(
    ("version", "is_supported"),
    [("7.0.0", True), ("8.2.0-rc1", True), ("10.0.1", True), ("6.3.2", False), ("4.4.29", False), ("unknown", False)],
)
def test_supported_versions(version: str, *, is_supported: bool) -> None:
    assert (unsupported({"version": version}) is None) is is_supported


def test_atlas_is_refused(shop: MongoDBHarness) -> None:
    """Atlas refuses createUser by code 8000."""
    fail(shop, "createUser", errorCode=8000)
    with pytest.raises(Rejected, match="does not accept this command") as no:
        shop.adapter().create_user(shop.spec(shop.reading))
    assert no.value.remedy is not None
    assert "Administration API" in no.value.remedy


def test_a_server_that_does_not_enforce_roles_is_refused() -> None:
    """A user without roles tries to read before the first grant, whatever name the server reports."""
    server = servers.start(variant="unenforced")
    try:
        harness = MongoDBHarness(server)
        with pytest.raises(Rejected, match="roles limit nothing"):
            harness.adapter().identity()
        with server.admin() as root:
            assert not root[harness.users].command("usersInfo", 1)["users"], "the probe's user is dropped"
    finally:
        server.remove()


def test_the_probe_leaves_no_user(shop: MongoDBHarness) -> None:
    assert shop.adapter().identity() == shop.adapter().identity()
    with shop.server.admin() as root:
        assert not root[shop.users].command("usersInfo", 1)["users"]


# Levels.


@pytest.mark.parametrize(
    "role",
    [
        "dbOwner",
        "userAdmin",
        "root@admin",
        "userAdminAnyDatabase@admin",
        "restore@admin",
        "backup@admin",
        "clusterAdmin@admin",
        "__system@admin",
    ],
)
def test_a_dangerous_built_in_role_is_never_given(shop: MongoDBHarness, role: str) -> None:
    spec = shop.spec(Level(name="x", roles=(role,)))
    with pytest.raises(Rejected, match="never given"):
        shop.adapter().create_user(spec)
    assert not shop.has_user(spec.username)
    assert shop.adapter().check([spec.level]).problems


@pytest.mark.parametrize(
    ("privileges", "roles"),
    [
        ([{"resource": {"db": "{app}", "collection": ""}, "actions": ["find", "grantRole"]}], []),
        ([{"resource": {"db": "{app}", "collection": ""}, "actions": ["createUser"]}], []),
        ([], ["dbOwner"]),
    ],
)
def test_a_dangerous_custom_role_is_never_given(
    shop: MongoDBHarness, privileges: list[dict[str, Any]], roles: list[str]
) -> None:
    given = [{**p, "resource": {**p["resource"], "db": shop.app}} for p in privileges]
    with shop.server.admin() as root:
        root[shop.app].command("createRole", "dangerous", privileges=given, roles=roles)
    try:
        with pytest.raises(Rejected, match="could outlive the grant"):
            shop.adapter().create_user(shop.spec(Level(name="x", roles=("dangerous",))))
    finally:
        with shop.server.admin() as root:
            root[shop.app].command("dropRole", "dangerous")


def test_a_harmless_custom_role_is_given(shop: MongoDBHarness) -> None:
    privilege = {"resource": {"db": shop.app, "collection": "customers"}, "actions": ["find"]}
    with shop.server.admin() as root:
        root[shop.app].command("createRole", "customers_only", privileges=[privilege], roles=[])
    spec = shop.spec(Level(name="x", roles=("customers_only",)))
    shop.adapter().create_user(spec)
    session = shop.login(spec.username, spec.password)
    assert session.read() > 0
    with pytest.raises(Denied):
        session.read_beside()
    session.close()
    shop.adapter().drop_user(spec.username, spec.level)
    with shop.server.admin() as root:
        assert root[shop.app].command("rolesInfo", "customers_only")["roles"], "the team's own role stays"


@pytest.mark.parametrize("action", ["createUser", "grantRole", "anyAction", "dropDatabase", "", "$where", "find; drop"])
def test_a_level_cannot_give_this_action(shop: MongoDBHarness, action: str) -> None:
    with pytest.raises(Rejected, match="cannot give"):
        shop.adapter().create_user(
            shop.spec(Level(name="x", grants=(PrivilegeGrant(on=("customers",), privileges=(action,)),)))
        )


def test_a_level_cannot_reach_system_collections(shop: MongoDBHarness) -> None:
    for level in (
        Level(name="x", grants=(PrivilegeGrant(on=("system.profile",), privileges=("find",)),)),
        Level(name="x", grants=(PrivilegeGrant(on=("system.users",), privileges=("find",)),), database="admin"),
        Level(name="x", grants=(PrivilegeGrant(on=("*",), privileges=("find",)),), database="admin"),
    ):
        with pytest.raises(Rejected, match="cannot give anything"):
            shop.adapter().create_user(shop.spec(level))
    privilege = {"resource": {"db": "admin", "collection": "system.users"}, "actions": ["find"]}
    with shop.server.admin() as root:
        root.admin.command("createRole", f"hashes_{shop.tag}", privileges=[privilege], roles=[])
        bot = {"resource": {"db": "admin", "collection": ""}, "actions": ["viewRole", "grantRole"]}
        root.admin.command("grantPrivilegesToRole", shop.bot, privileges=[bot])
    with pytest.raises(Rejected, match=r"reaches system\.users"):
        shop.adapter().create_user(shop.spec(Level(name="x", roles=(f"hashes_{shop.tag}@admin",))))


def test_a_level_without_a_database_is_refused(shop: MongoDBHarness) -> None:
    adapter = shop.adapter(connect=Connect())
    with pytest.raises(Rejected, match="has no database"):
        adapter.create_user(shop.spec(shop.reading))
    with pytest.raises(Rejected, match="no settings"):
        shop.adapter().create_user(shop.spec(replace(shop.reading, settings={"timeout": "1"})))


def test_a_managed_role_is_corrected_and_dropped_with_its_last_user(shop: MongoDBHarness) -> None:
    level, adapter = shop.narrow, shop.adapter()
    role = managed_role(adapter.server, level)
    first, second = shop.spec(level), shop.spec(level)
    adapter.create_user(first)
    more = {"resource": {"db": shop.app, "collection": "orders"}, "actions": ["find", "remove"]}
    with shop.server.admin() as root:
        root[shop.app].command("grantPrivilegesToRole", role, privileges=[more])
        root[shop.app].command(
            "revokePrivilegesFromRole",
            role,
            privileges=[{**more, "resource": {"db": shop.app, "collection": "customers"}, "actions": ["find"]}],
        )
    adapter.create_user(second)
    session = shop.login(second.username, second.password)
    assert session.read() > 0
    with pytest.raises(Denied):
        session.read_beside()
    session.close()
    adapter.drop_user(first.username, level)
    with shop.server.admin() as root:
        assert root[shop.app].command("rolesInfo", role)["roles"]
    adapter.drop_user(second.username, level)
    with shop.server.admin() as root:
        assert not root[shop.app].command("rolesInfo", role)["roles"]


def test_a_managed_role_that_holds_another_role_is_refused(shop: MongoDBHarness) -> None:
    adapter = shop.adapter()
    role = managed_role(adapter.server, shop.narrow)
    with shop.server.admin() as root:
        root[shop.app].command("createRole", role, privileges=[], roles=["dbOwner"])
    with pytest.raises(Rejected, match="which its level does not give"):
        adapter.create_user(shop.spec(shop.narrow))
    with shop.server.admin() as root:
        root[shop.app].command("dropRole", role)


def test_users_of_one_managed_role_in_parallel(shop: MongoDBHarness) -> None:
    specs = [shop.spec(shop.narrow) for _ in range(16)]
    adapter = shop.adapter()

    def live(spec: Any) -> None:
        adapter.create_user(spec)
        session = shop.login(spec.username, spec.password)
        assert session.read() > 0
        session.close()
        adapter.drop_user(spec.username, spec.level)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(live, specs))


# Replies that are lost or incomplete.


def test_an_unconfirmed_write_can_be_repeated(shop: MongoDBHarness) -> None:
    """The driver raises nothing for such a reply."""
    trouble = {"code": 64, "errmsg": "waiting for replication timed out"}
    spec = shop.spec(shop.reading)
    fail(shop, "createUser", writeConcernError=trouble)
    with pytest.raises(ServerDown, match="majority") as no:
        shop.adapter().create_user(spec)
    assert no.value.is_ambiguous
    again = shop.spec(shop.reading, username=spec.username)
    shop.adapter().create_user(again)
    shop.login(again.username, again.password).close()
    fail(shop, "dropUser", writeConcernError=trouble)
    with pytest.raises(ServerDown, match="majority"):
        shop.adapter().drop_user(spec.username, spec.level)
    shop.adapter().drop_user(spec.username, spec.level)
    assert not shop.has_user(spec.username)


@pytest.mark.parametrize("point", ["failCommand", "loseReply"])
@pytest.mark.parametrize(
    "command", ["createUser", "dropUser", "updateUser", "usersInfo", "killAllSessions", "aggregate"]
)
def test_a_lost_reply_can_be_repeated(shop: MongoDBHarness, command: str, point: str) -> None:
    spec, adapter = shop.spec(shop.reading), shop.adapter()
    verbs: tuple[Any, ...] = (
        lambda: adapter.create_user(spec),
        lambda: adapter.set_password(spec.username, spec.password),
        lambda: adapter.drop_user(spec.username, spec.level),
    )
    fail(shop, command, name=point, **({"closeConnection": True} if point == "failCommand" else {}))
    lost = list[ServerDown]()
    for verb in verbs:
        try:
            verb()
        except ServerDown as no:
            lost.append(no)
            verb()
    assert [no.is_ambiguous for no in lost] == [True]
    assert not shop.has_user(spec.username)


def test_errors_of_a_stepdown_can_be_repeated(shop: MongoDBHarness) -> None:
    for number in (10107, 91, 189, 11600):
        fail(shop, "createUser", errorCode=number)
        spec = shop.spec(shop.reading)
        with pytest.raises(ServerDown):
            shop.adapter().create_user(spec)
        shop.adapter().create_user(spec)
        shop.adapter().drop_user(spec.username, spec.level)


def test_a_frozen_server_is_down(alone: MongoServer) -> None:
    harness = MongoDBHarness(alone)
    began = time.monotonic()
    for process in alone.processes:
        os.kill(process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(ServerDown):
            harness.adapter().identity()
        assert time.monotonic() - began < 60
    finally:
        for process in alone.processes:
            os.kill(process.pid, signal.SIGCONT)


# Other users.


def test_operations_of_other_users_continue(shop: MongoDBHarness) -> None:
    """A kill without an owner ends the operations of all users."""
    with shop.server.admin() as root:
        root[shop.app].few.insert_many([{"n": n} for n in range(15)])
    ended, other = shop.spec(shop.reading), shop.spec(shop.reading)
    adapter = shop.adapter()
    for spec in (ended, other):
        adapter.create_user(spec)
    session = shop.login(other.username, other.password)
    cursor = session.client[shop.app].customers.find({}, batch_size=2)
    assert cursor.next()
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(lambda: len(list(session.client[shop.app].few.find({"$where": SLOW}))))
        wait_until(lambda: adapter.activity([other.username])[0].sessions > 0)
        adapter.drop_user(ended.username, ended.level)
        assert work.result(timeout=120) == 15
    assert len(list(cursor)) == 99
    session.close()
    adapter.drop_user(other.username, other.level)


def test_cursors_of_a_dropped_user_are_closed(shop: MongoDBHarness) -> None:
    spec, adapter = shop.spec(shop.reading), shop.adapter()
    adapter.create_user(spec)
    session = shop.login(spec.username, spec.password)
    cursor = session.client[shop.app].customers.find({}, batch_size=2)
    assert cursor.next()
    assert idle_cursors(shop) == 1
    adapter.drop_user(spec.username, spec.level)
    assert idle_cursors(shop) == 0
    session.close()


def idle_cursors(harness: MongoDBHarness) -> int:
    """Cursors on the customers of this harness: the row of a cursor does not name its user."""
    with harness.server.admin() as root:
        shown = root.admin.aggregate([{"$currentOp": {"allUsers": True, "idleCursors": True}}])
        return sum(row["type"] == "idleCursor" and row["ns"] == f"{harness.app}.customers" for row in shown)


def test_the_same_name_in_another_database_is_another_user(shop: MongoDBHarness) -> None:
    spec = shop.spec(shop.reading)
    with shop.server.admin() as root:
        root[shop.app].command("createUser", spec.username, pwd="Known0Password", roles=["read"])
    shop.adapter().create_user(spec)
    shop.adapter().drop_user(spec.username, spec.level)
    with shop.server.admin() as root:
        assert root[shop.app].command("usersInfo", spec.username)["users"]


@pytest.mark.parametrize(
    ("mark", "is_of_another_ledger"),
    [
        (None, False),
        ({}, False),
        ({"dbaccess": "x"}, False),
        ({"dbaccess": {"ledger": 7}}, False),
        ({"dbaccess": {"ledger": "other", "request": "x", "ends_at": 1}}, True),
    ],
)
def test_a_foreign_or_unreadable_mark(shop: MongoDBHarness, mark: Any, *, is_of_another_ledger: bool) -> None:
    """A user of another ledger is never changed. A user with an unreadable mark gets nothing and can be ended."""
    spec = shop.spec(shop.reading)
    with shop.server.admin() as root:
        options = {} if mark is None else {"customData": mark}
        root[shop.users].command("createUser", spec.username, pwd="Known0Password", roles=[], **options)
    with pytest.raises(ForeignUser):
        shop.adapter().create_user(spec)
    assert spec.username in {user.username for user in shop.adapter().list_users()}
    if is_of_another_ledger:
        with pytest.raises(ForeignUser):
            shop.adapter().drop_user(spec.username, spec.level)
    else:
        shop.adapter().drop_user(spec.username, spec.level)
    assert (spec.username in {user.username for user in shop.adapter().list_users()}) is is_of_another_ledger


def test_check_warns_of_users_in_admin(shop: MongoDBHarness) -> None:
    health = MongoDB(shop.target(ops_schema="admin"), Secrets(admin_url=shop.server.root_url())).check()
    assert any("administrators" in finding.what for finding in health.warnings)


# Replica sets.


def test_an_operation_on_a_secondary_is_ended(pair: MongoServer) -> None:
    harness = MongoDBHarness(pair)
    spec, adapter = harness.spec(harness.reading), harness.adapter()
    adapter.create_user(spec)
    session = harness.login(spec.username, spec.password, port=pair.members[1])
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(session.work, 20)
        wait_until(lambda: adapter.activity([spec.username])[0].sessions > 0)
        began = time.monotonic()
        adapter.drop_user(spec.username, spec.level)
        with pytest.raises(Exception, match=r"interrupted|requires authentication"):
            work.result(timeout=120)
        assert time.monotonic() - began < 15, "the operation takes 20 s"
    assert not session.is_alive()
    session.close()


@pytest.fixture
def trio() -> Iterator[MongoServer]:
    """A set that keeps its majority without one member."""
    made = servers.start(members=3)
    yield made
    made.remove()


def test_a_drop_waits_for_every_member(trio: MongoServer) -> None:
    harness = MongoDBHarness(trio)
    spec, adapter = harness.spec(harness.reading), harness.adapter()
    adapter.create_user(spec)
    trio.close_member(trio.members[1])
    try:
        with pytest.raises(ServerDown, match=str(trio.members[1])):
            adapter.drop_user(spec.username, spec.level)
        assert [f for f in adapter.check().problems if "not every member answers" in f.what]
    finally:
        trio.open_member(trio.members[1])
    wait_until(lambda: is_ended(adapter, spec))
    assert not harness.has_user(spec.username)


def is_ended(adapter: MongoDB, spec: Any) -> bool:
    try:
        adapter.drop_user(spec.username, spec.level)
    except ServerDown:
        return False
    return True


def test_a_bad_replica_url_does_not_stop_the_drop(shop: MongoDBHarness) -> None:
    spec = shop.spec(shop.reading)
    bad = MongoDB(
        shop.target(replicas=("env:REPLICA",)),
        Secrets(admin_url=shop.admin_url, replicas=("mongodb://u:Pw0Secret@[h",)),
    )
    bad.create_user(spec)
    session = shop.login(spec.username, spec.password)
    with pytest.raises(Rejected, match="env:REPLICA cannot be read") as no:
        bad.drop_user(spec.username, spec.level)
    assert "Pw0Secret" not in str(no.value)
    assert not session.is_alive()
    session.close()


# Secrets.


@pytest.mark.parametrize(
    "url",
    [
        "mongodb://",
        "postgresql://u:Pw0Secret@h/d",
        "nonsense",
        "mongodb://h:27017/",
        "mongodb://u:Pw0Secret@h:port/",
        "mongodb://u:Pw0Secret@h/#x",
    ],
)
def test_an_unreadable_admin_url_is_refused(shop: MongoDBHarness, url: str) -> None:
    with pytest.raises(Rejected, match=r"cannot be read|refused") as no:
        MongoDB(shop.target(), Secrets(admin_url=url)).identity()
    assert "Pw0Secret" not in f"{no.value!r} {no.value.__context__!r}"


def test_a_wrong_bot_password_is_refused_without_showing_it(shop: MongoDBHarness) -> None:
    url = shop.admin_url.replace(BOT_PASSWORD, "Wrong0Password")
    with pytest.raises(Rejected, match="refused the bot's own login") as no:
        MongoDB(shop.target(), Secrets(admin_url=url)).identity()
    assert "Wrong0Password" not in f"{no.value!r} {no.value.__context__!r}"


def test_the_command_holds_no_password(shop: MongoDBHarness) -> None:
    spec = shop.spec(shop.reading)
    pasted = shop.adapter(tls=Tls(mode="verify-full")).endpoint(spec.level).paste(spec.username, spec.password)
    assert spec.password not in pasted
    assert (
        pasted
        == f'mongosh "mongodb://{spec.username}@127.0.0.1:{shop.server.port}/{shop.app}?authSource={shop.users}&tls=true"'
    )
    command = shop.adapter(connect=Connect(host="::1", port=1, database="a b")).endpoint(spec.level).command
    assert "@[::1]:1/a%20b?" in command


def test_no_threads_are_left(shop: MongoDBHarness) -> None:
    """Each use opens a client, and a client has threads."""
    spec, adapter = shop.spec(shop.reading), shop.adapter()
    before = threading.active_count()
    adapter.create_user(spec)
    with pytest.raises(LoginRefused):
        adapter.login(spec.username, "x", spec.level)
    adapter.drop_user(spec.username, spec.level)
    wait_until(lambda: threading.active_count() <= before)
