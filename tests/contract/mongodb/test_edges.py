"""What the facts of MongoDB say would go wrong, one at a time. Against the stand-in, which has the switches for it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from adapters.base import Connect, ForeignUser, Grant, Level, LoginRefused, Rejected, Secrets, ServerDown, Tls
from adapters.harness import Denied, wait_until
from adapters.mongodb import MongoDB
from adapters.mongodb.levels import kept_role
from tests.contract.mongodb.harness import BOT_PASSWORD, EngineHarness
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
def shop(alone: MongoServer) -> EngineHarness:
    return EngineHarness(alone)


def fail(
    harness: EngineHarness, command: str, *, name: str = "failCommand", port: int | None = None, **data: Any
) -> None:
    """The next such command goes wrong in this way."""
    with harness.server.admin(port=port) as root:
        root.admin.command("configureFailPoint", name, mode={"times": 1}, data={"failCommands": [command], **data})


# Servers that are not served.


def test_a_server_without_authorization_is_refused() -> None:
    server = servers.start(auth=False)
    try:
        harness = EngineHarness(server)
        adapter = MongoDB(
            harness.target(), Secrets(admin_url=f"mongodb://x:y@127.0.0.1:{server.port}/?authSource=admin")
        )
        spec = harness.spec(harness.reading)
        with pytest.raises(Rejected, match="answers those who do not log in") as no:
            adapter.create_user(spec)
        assert no.value.remedy is not None
        assert "--auth" in no.value.remedy
        assert not harness.has_user(spec.username)
    finally:
        server.remove()


def test_a_server_that_only_looks_like_it_is_refused() -> None:
    server = servers.start(like="ferretdb")
    try:
        adapter = MongoDB(EngineHarness.target(unbuilt(server)), Secrets(admin_url=server.root_url()))
        with pytest.raises(Rejected, match="FerretDB"):
            adapter.create_user(unbuilt(server).spec(Level(name="readonly", roles=("read",))))
    finally:
        server.remove()


def test_a_server_whose_roles_limit_nothing_is_refused() -> None:
    """Whatever it calls itself: a user without roles tries to read there, before the first grant."""
    server = servers.start(like="limitless")
    try:
        harness = EngineHarness(server)
        with pytest.raises(Rejected, match="roles limit nothing"):
            harness.adapter().identity()
        with server.admin() as root:
            assert not root[harness.users].command("usersInfo")["users"], "the one who tried is gone"
    finally:
        server.remove()


def test_the_one_who_tried_whether_roles_limit_is_gone(shop: EngineHarness) -> None:
    assert shop.adapter().identity() == shop.adapter().identity()
    with shop.server.admin() as root:
        assert not root[shop.users].command("usersInfo")["users"]


def unbuilt(server: MongoServer) -> EngineHarness:
    """A bench whose bot was not made: such a server has no roles to make."""
    found = object.__new__(EngineHarness)
    found.server, found.tag, found.app, found.users = server, "x", "shop", "temps"
    found.ledger, found.prefix = "ledger01", "jx_"
    return found


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
def test_a_mighty_role_is_never_given(shop: EngineHarness, role: str) -> None:
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
def test_an_own_role_that_is_mighty_is_never_given(
    shop: EngineHarness, privileges: list[dict[str, Any]], roles: list[str]
) -> None:
    given = [{**p, "resource": {**p["resource"], "db": shop.app}} for p in privileges]
    with shop.server.admin() as root:
        root[shop.app].command("createRole", "mighty", privileges=given, roles=roles)
    try:
        with pytest.raises(Rejected, match="could outlive the grant"):
            shop.adapter().create_user(shop.spec(Level(name="x", roles=("mighty",))))
    finally:
        with shop.server.admin() as root:
            root[shop.app].command("dropRole", "mighty")


def test_an_own_role_that_is_not_is_given(shop: EngineHarness) -> None:
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
        assert root[shop.app].command("rolesInfo", "customers_only")["roles"], "it is the team's own"


@pytest.mark.parametrize("action", ["createUser", "grantRole", "anyAction", "dropDatabase", "", "$where", "find; drop"])
def test_what_a_level_may_not_give(shop: EngineHarness, action: str) -> None:
    with pytest.raises(Rejected, match="cannot give"):
        shop.adapter().create_user(shop.spec(Level(name="x", grants=(Grant(on=("customers",), privileges=(action,)),))))


def test_a_level_gives_nothing_of_the_servers_own(shop: EngineHarness) -> None:
    for level in (
        Level(name="x", grants=(Grant(on=("system.profile",), privileges=("find",)),)),
        Level(name="x", grants=(Grant(on=("system.users",), privileges=("find",)),), database="admin"),
        Level(name="x", grants=(Grant(on=("*",), privileges=("find",)),), database="admin"),
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


def test_a_level_about_no_database(shop: EngineHarness) -> None:
    adapter = shop.adapter(connect=Connect())
    with pytest.raises(Rejected, match="about no database"):
        adapter.create_user(shop.spec(shop.reading))
    with pytest.raises(Rejected, match="no settings"):
        shop.adapter().create_user(shop.spec(replace(shop.reading, settings={"timeout": "1"})))


def test_a_kept_role_is_made_equal_and_goes_when_nobody_has_it(shop: EngineHarness) -> None:
    level, adapter = shop.narrow, shop.adapter()
    role = kept_role(adapter.server, level)
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


def test_a_kept_role_that_somebody_made_mightier(shop: EngineHarness) -> None:
    adapter = shop.adapter()
    role = kept_role(adapter.server, shop.narrow)
    with shop.server.admin() as root:
        root[shop.app].command("createRole", role, privileges=[], roles=["dbOwner"])
    with pytest.raises(Rejected, match="which its level does not give"):
        adapter.create_user(shop.spec(shop.narrow))
    with shop.server.admin() as root:
        root[shop.app].command("dropRole", role)


def test_kept_roles_in_parallel(shop: EngineHarness) -> None:
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


# Answers that are lost or half.


def test_a_majority_that_does_not_confirm_is_tried_again(shop: EngineHarness) -> None:
    """The driver raises nothing for it."""
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


@pytest.mark.parametrize(
    "command", ["createUser", "dropUser", "updateUser", "usersInfo", "killAllSessions", "aggregate"]
)
def test_an_answer_that_is_lost(shop: EngineHarness, command: str) -> None:
    spec, adapter = shop.spec(shop.reading), shop.adapter()
    verbs: tuple[Any, ...] = (
        lambda: adapter.create_user(spec),
        lambda: adapter.set_password(spec.username, spec.password),
        lambda: adapter.drop_user(spec.username, spec.level),
    )
    fail(shop, command, name="loseReply", closeConnection=True)
    lost = list[ServerDown]()
    for verb in verbs:
        try:
            verb()
        except ServerDown as no:
            lost.append(no)
            verb()
    assert [no.is_ambiguous for no in lost] == [True]
    assert not shop.has_user(spec.username)


def test_steps_of_a_primary_are_tried_again(shop: EngineHarness) -> None:
    for number in (10107, 91, 189, 11600):
        fail(shop, "createUser", errorCode=number)
        spec = shop.spec(shop.reading)
        with pytest.raises(ServerDown):
            shop.adapter().create_user(spec)
        shop.adapter().create_user(spec)
        shop.adapter().drop_user(spec.username, spec.level)


def test_a_server_that_is_frozen_is_given_up(alone: MongoServer) -> None:
    harness = EngineHarness(alone)
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


# Others.


def test_what_others_do_goes_on(shop: EngineHarness) -> None:
    """A kill that does not name its user ends everybody's."""
    with shop.server.admin() as root:
        root[shop.app].few.insert_many([{"n": n} for n in range(15)])
    mine, other = shop.spec(shop.reading), shop.spec(shop.reading)
    adapter = shop.adapter()
    for spec in (mine, other):
        adapter.create_user(spec)
    session = shop.login(other.username, other.password)
    cursor = session.client[shop.app].customers.find({}, batch_size=2)
    assert cursor.next()
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(lambda: len(list(session.client[shop.app].few.find({"$where": SLOW}))))
        wait_until(lambda: adapter.activity([other.username])[0].sessions > 0)
        adapter.drop_user(mine.username, mine.level)
        assert work.result(timeout=120) == 15
    assert len(list(cursor)) == 99
    session.close()
    adapter.drop_user(other.username, other.level)


def test_cursors_of_a_dropped_user_are_gone(shop: EngineHarness) -> None:
    spec, adapter = shop.spec(shop.reading), shop.adapter()
    adapter.create_user(spec)
    session = shop.login(spec.username, spec.password)
    cursor = session.client[shop.app].customers.find({}, batch_size=2)
    assert cursor.next()
    assert idle_cursors(shop) == 1
    adapter.drop_user(spec.username, spec.level)
    assert idle_cursors(shop) == 0
    session.close()


def idle_cursors(harness: EngineHarness) -> int:
    """On the customers of this bench: a row of a cursor does not name its user."""
    with harness.server.admin() as root:
        shown = root.admin.aggregate([{"$currentOp": {"allUsers": True, "idleCursors": True}}])
        return sum(row["type"] == "idleCursor" and row["ns"] == f"{harness.app}.customers" for row in shown)


def test_a_users_name_is_ours_in_our_database_alone(shop: EngineHarness) -> None:
    """The same name in another database is another user."""
    spec = shop.spec(shop.reading)
    with shop.server.admin() as root:
        root[shop.app].command("createUser", spec.username, pwd="Known0Password", roles=["read"])
    shop.adapter().create_user(spec)
    shop.adapter().drop_user(spec.username, spec.level)
    with shop.server.admin() as root:
        assert root[shop.app].command("usersInfo", spec.username)["users"]


@pytest.mark.parametrize(
    ("mark", "is_anothers"),
    [
        (None, False),
        ({}, False),
        ({"dbaccess": "x"}, False),
        ({"dbaccess": {"ledger": 7}}, False),
        ({"dbaccess": {"ledger": "other", "request": "x", "ends_at": 1}}, True),
    ],
)
def test_a_mark_that_is_not_ours(shop: EngineHarness, mark: Any, *, is_anothers: bool) -> None:
    """A user of another ledger is never touched; one whose mark cannot be read is given nothing, and still ended."""
    spec = shop.spec(shop.reading)
    with shop.server.admin() as root:
        options = {} if mark is None else {"customData": mark}
        root[shop.users].command("createUser", spec.username, pwd="Known0Password", roles=[], **options)
    with pytest.raises(ForeignUser):
        shop.adapter().create_user(spec)
    assert spec.username in {user.username for user in shop.adapter().list_users()}
    if is_anothers:
        with pytest.raises(ForeignUser):
            shop.adapter().drop_user(spec.username, spec.level)
    else:
        shop.adapter().drop_user(spec.username, spec.level)
    assert (spec.username in {user.username for user in shop.adapter().list_users()}) is is_anothers


def test_users_in_admin_are_warned_of(shop: EngineHarness) -> None:
    health = MongoDB(shop.target(ops_schema="admin"), Secrets(admin_url=shop.server.root_url())).check()
    assert any("administrators" in finding.what for finding in health.warnings)


# Sets.


def test_what_runs_on_a_secondary_is_ended(pair: MongoServer) -> None:
    harness = EngineHarness(pair)
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
        assert time.monotonic() - began < 15, "the work would have taken 20"
    assert not session.is_alive()
    session.close()


@pytest.fixture
def trio() -> Iterator[MongoServer]:
    """With a majority when one is away."""
    made = servers.start(members=3)
    yield made
    made.remove()


def test_a_member_that_is_away_is_tried_again(trio: MongoServer) -> None:
    harness = EngineHarness(trio)
    spec, adapter = harness.spec(harness.reading), harness.adapter()
    adapter.create_user(spec)
    trio.close_member(trio.members[1])
    try:
        with pytest.raises(ServerDown, match=str(trio.members[1])):
            adapter.drop_user(spec.username, spec.level)
        assert [f for f in adapter.check().problems if "not every member answers" in f.what]
    finally:
        trio.open_member(trio.members[1])
    wait_until(lambda: ended(adapter, spec))
    assert not harness.has_user(spec.username)


def ended(adapter: MongoDB, spec: Any) -> bool:
    try:
        adapter.drop_user(spec.username, spec.level)
    except ServerDown:
        return False
    return True


def test_a_replica_whose_url_is_bad_keeps_no_login_open(shop: EngineHarness) -> None:
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
def test_an_admin_url_that_cannot_be_read(shop: EngineHarness, url: str) -> None:
    with pytest.raises(Rejected, match=r"cannot be read|refused") as no:
        MongoDB(shop.target(), Secrets(admin_url=url)).identity()
    assert "Pw0Secret" not in f"{no.value!r} {no.value.__context__!r}"


def test_a_wrong_password_of_the_bot(shop: EngineHarness) -> None:
    url = shop.admin_url.replace(BOT_PASSWORD, "Wrong0Password")
    with pytest.raises(Rejected, match="refused the bot's own login") as no:
        MongoDB(shop.target(), Secrets(admin_url=url)).identity()
    assert "Wrong0Password" not in f"{no.value!r} {no.value.__context__!r}"


def test_the_command_asks_for_the_password(shop: EngineHarness) -> None:
    spec = shop.spec(shop.reading)
    pasted = shop.adapter(tls=Tls(mode="verify-full")).endpoint(spec.level).paste(spec.username, spec.password)
    assert spec.password not in pasted
    assert (
        pasted
        == f'mongosh "mongodb://{spec.username}@127.0.0.1:{shop.server.port}/{shop.app}?authSource={shop.users}&tls=true"'
    )
    told = shop.adapter(connect=Connect(host="::1", port=1, database="a b")).endpoint(spec.level).command
    assert "@[::1]:1/a%20b?" in told


def test_threads_are_not_left_behind(shop: EngineHarness) -> None:
    """Each use has a client of its own, and a client has threads."""
    spec, adapter = shop.spec(shop.reading), shop.adapter()
    before = threading.active_count()
    adapter.create_user(spec)
    with pytest.raises(LoginRefused):
        adapter.login(spec.username, "x", spec.level)
    adapter.drop_user(spec.username, spec.level)
    wait_until(lambda: threading.active_count() <= before)
