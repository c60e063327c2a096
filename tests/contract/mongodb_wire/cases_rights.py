"""Cases 19 to 26, 38, 41: rights of open logins, rights to create users, and roles."""

from __future__ import annotations

from tests.contract.mongodb_wire.harness import APP, OTHER, READ, READ_WRITE, USERS, WireHarness, case, expect_refused


@case(19)
def dropped_user_keeps_a_powerless_socket(harness: WireHarness) -> None:
    user = harness.user()
    login = harness.client(user)
    connection = login.admin.command("hello")["connectionId"]
    assert login[APP].things.find_one() is not None
    harness.bot[USERS].command("dropUser", user.name)
    with expect_refused(13, "Command find requires authentication"):
        login[APP].things.find_one()
    assert login.admin.command("ping")["ok"] == 1.0
    assert login.admin.command("hello")["connectionId"] == connection


@case(20)
def user_created_again_is_another_user(harness: WireHarness) -> None:
    user = harness.user()
    login = harness.client(user)
    assert login[APP].things.find_one() is not None
    harness.root[USERS].command("dropUser", user.name)
    harness.root[USERS].command("createUser", user.name, pwd=user.password, roles=[READ])
    with expect_refused(13, "Command find requires authentication"):
        login[APP].things.find_one()
    assert harness.client(user)[APP].things.find_one() is not None


@case(24)
def reader_only_reads(harness: WireHarness) -> None:
    login = harness.client(harness.user(READ))
    assert login[APP].things.find_one() is not None
    with expect_refused(13, f"not authorized on {APP} to execute command {{ insert: "):
        login[APP].things.insert_one({})
    with expect_refused(13, f"not authorized on {USERS} to execute command {{ createUser: ", 'pwd: "xxx"'):
        login[USERS].command("createUser", "friend", pwd="FriendsSecret", roles=[])


@case(26)
def role_needs_the_right_to_grant_it(harness: WireHarness) -> None:
    name = harness.name()
    with expect_refused(13, f"not authorized on {USERS}"):
        harness.bot[USERS].command("createUser", name, pwd="x", roles=[{"role": "read", "db": OTHER}])
    assert harness.root[USERS].command("usersInfo", name)["users"] == []
    harness.bot[USERS].command("createUser", name, pwd="x", roles=[READ])


@case(38)
def dropped_role_is_taken_from_its_users(harness: WireHarness) -> None:
    role = harness.name()
    privileges = [{"resource": {"db": APP, "collection": "things"}, "actions": ["find"]}]
    harness.root[APP].command("createRole", role, privileges=privileges, roles=[])
    with expect_refused(51002, f'Role "{role}@{APP}" already exists'):
        harness.root[APP].command("createRole", role, privileges=privileges, roles=[])
    user = harness.user({"role": role, "db": APP})
    login = harness.client(user)
    assert login[APP].things.find_one() is not None
    assert harness.bot[APP].command("dropRole", role)["ok"] == 1.0
    assert harness.info(user)["roles"] == []
    with expect_refused(13, f"not authorized on {APP}"):
        login[APP].things.find_one()
    with expect_refused(31, f"Could not find role: {role}@{APP}"):
        harness.bot[APP].command("dropRole", role)


@case(25)
def writer_only_writes(harness: WireHarness) -> None:
    user = harness.user(READ_WRITE)
    login = harness.client(user)
    login[APP][harness.name()].insert_one({})
    with expect_refused(13, f"not authorized on {USERS}"):
        login[USERS].command("updateUser", user.name, pwd="another")


@case(41)
def roles_info_shows_inherited_privileges(harness: WireHarness) -> None:
    """A role can hold more than its own privileges show."""
    role = harness.name()
    harness.root[APP].command("createRole", role, privileges=[], roles=["dbOwner"])
    (found,) = harness.root[APP].command("rolesInfo", {"role": role, "db": APP}, showPrivileges=True)["roles"]
    assert found["privileges"] == []
    assert found["roles"] == [{"role": "dbOwner", "db": APP}]
    assert {"role": "dbOwner", "db": APP} in found["inheritedRoles"]
    assert any("createUser" in one["actions"] for one in found["inheritedPrivileges"])
    assert harness.root[APP].command("rolesInfo", {"role": "nosuch", "db": APP})["roles"] == []
