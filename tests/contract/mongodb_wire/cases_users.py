"""Cases 9 to 18: how users are created, read, changed and dropped."""

from __future__ import annotations

from bson.binary import UUID_SUBTYPE

from tests.contract.mongodb_wire.harness import APP, READ, READ_WRITE, USERS, WireHarness, case, expect_refused


@case(9)
def create_user_checks_its_fields(harness: WireHarness) -> None:
    users, name = harness.root[USERS], harness.name()
    with expect_refused(2, "Must provide a 'pwd' field for all user documents"):
        users.command("createUser", name, roles=[])
    with expect_refused(40414, "BSON field 'createUser.roles' is missing but a required field"):
        users.command("createUser", name, pwd="x")
    with expect_refused(14, "BSON field 'createUser.pwd' is the wrong type 'bool', expected type 'string'"):
        users.command("createUser", name, pwd=True, roles=[])
    with expect_refused(40415, "BSON field 'createUser.unknown' is an unknown field."):
        users.command("createUser", name, pwd="x", roles=[], unknown=1)


@case(11)
def user_is_created_once(harness: WireHarness) -> None:
    user = harness.user()
    with expect_refused(51003, f'User "{user}" already exists'):
        harness.root[USERS].command("createUser", user.name, pwd="another", roles=[])
    assert harness.client(user)[APP].things.find_one() is not None


@case(12)
def unknown_role_creates_no_user(harness: WireHarness) -> None:
    name = harness.name()
    with expect_refused(31, "Could not find role: nosuch@admin"):
        harness.root[USERS].command("createUser", name, pwd="x", roles=[READ, {"role": "nosuch", "db": "admin"}])
    assert harness.root[USERS].command("usersInfo", name)["users"] == []


@case(16)
def update_user_needs_a_change(harness: WireHarness) -> None:
    user = harness.user()
    with expect_refused(2, "Must specify at least one field to update in updateUser"):
        harness.root[USERS].command("updateUser", user.name)
    with expect_refused(11, f"User nobody@{USERS} not found"):
        harness.root[USERS].command("updateUser", "nobody", pwd="x")


@case(17)
def new_password_keeps_open_logins(harness: WireHarness) -> None:
    user = harness.user()
    open_login = harness.client(user)
    before, connection = harness.info(user)["userId"], open_login.admin.command("hello")["connectionId"]
    harness.bot[USERS].command("updateUser", user.name, pwd="AnotherSecret0", mechanisms=["SCRAM-SHA-256"])
    assert open_login[APP].things.find_one() is not None
    assert open_login.admin.command("hello")["connectionId"] == connection
    with expect_refused(18, "Authentication failed."):
        harness.client(user)[APP].things.find_one()
    assert harness.client(user._replace(password="AnotherSecret0"))[APP].things.find_one() is not None
    assert harness.info(user)["userId"] == before


@case(18)
def user_is_dropped_once(harness: WireHarness) -> None:
    user = harness.user()
    assert harness.bot[USERS].command("dropUser", user.name)["ok"] == 1.0
    with expect_refused(11, f"User '{user}' not found"):
        harness.bot[USERS].command("dropUser", user.name)
    assert harness.bot[USERS].command("usersInfo", user.name)["users"] == []


@case(13)
def users_info_has_its_fields_in_order(harness: WireHarness) -> None:
    user = harness.user()
    found = harness.info(user)
    assert list(found) == ["_id", "userId", "user", "db", "roles", "mechanisms"]
    assert found["_id"] == f"{USERS}.{user.name}"
    assert found["userId"].subtype == UUID_SUBTYPE
    assert (found["user"], found["db"]) == tuple(user.document.values())
    assert found["roles"] == [READ]
    assert found["mechanisms"] == ["SCRAM-SHA-256"]


@case(14)
def users_info_leaves_out_a_missing_user(harness: WireHarness) -> None:
    users = harness.root[USERS]
    created = [harness.user(), harness.user()]
    listed = [found["user"] for found in users.command("usersInfo", 1)["users"]]
    assert listed == sorted(listed)
    assert {user.name for user in created} <= set(listed)
    assert [one["user"] for one in users.command("usersInfo", created[0].document)["users"]] == [created[0].name]
    assert users.command("usersInfo", {"user": "nobody", "db": USERS})["users"] == []
    with expect_refused(2, "UserName must contain a field named: db"):
        users.command("usersInfo", {"user": created[0].name})


@case(15)
def users_info_filters(harness: WireHarness) -> None:
    users, mark = harness.root[USERS], harness.name()
    marked = harness.user(customData={"dbaccess": {"ledger": mark}})
    writer = harness.user(READ_WRITE, customData={"dbaccess": {"ledger": "another"}})
    found = users.command("usersInfo", 1, filter={"customData.dbaccess.ledger": mark})["users"]
    assert [one["user"] for one in found] == [marked.name]
    assert found[0]["customData"] == {"dbaccess": {"ledger": mark}}
    found = users.command("usersInfo", 1, filter={"roles.role": "readWrite"})["users"]
    assert writer.name in [one["user"] for one in found]
    assert marked.name not in [one["user"] for one in found]
