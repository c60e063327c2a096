"""Cases 19 to 28, 38: what a live login may do when its user is dropped, changed, restricted; who may make whom."""

from __future__ import annotations

from tests.contract.mongodb_wire.cases import case
from tests.contract.mongodb_wire.harness import APP, OTHER, READ, READ_WRITE, USERS, EngineHarness, expect_refused

ELSEWHERE = [{"clientSource": ["192.0.2.0/24"]}]


@case(19)
def dropped_user_keeps_a_powerless_socket(harness: EngineHarness) -> None:
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
def user_made_again_is_another(harness: EngineHarness) -> None:
    user = harness.user()
    login = harness.client(user)
    assert login[APP].things.find_one() is not None
    harness.root[USERS].command("dropUser", user.name)
    harness.root[USERS].command("createUser", user.name, pwd=user.password, roles=[READ])
    with expect_refused(13, "Command find requires authentication"):
        login[APP].things.find_one()
    assert harness.client(user)[APP].things.find_one() is not None


@case(21)
def unmet_restrictions_end_a_login(harness: EngineHarness) -> None:
    user = harness.user()
    login = harness.client(user)
    assert login[APP].things.find_one() is not None
    harness.root[USERS].command("updateUser", user.name, authenticationRestrictions=ELSEWHERE)
    with expect_refused(13, "Command find requires authentication"):
        login[APP].things.find_one()
    with expect_refused(18, "Authentication failed."):
        harness.client(user)[APP].things.find_one()


@case(23)
def role_taken_is_gone_at_the_next_command(harness: EngineHarness) -> None:
    user = harness.user(READ)
    login = harness.client(user)
    assert login[APP].things.find_one() is not None
    harness.bot[USERS].command("revokeRolesFromUser", user.name, roles=[READ])
    with expect_refused(13, f"not authorized on {APP} to execute command {{ find: "):
        login[APP].things.find_one()
    harness.bot[USERS].command("revokeRolesFromUser", user.name, roles=[READ_WRITE])
    with expect_refused(31, f"Could not find role: nosuch@{APP}"):
        harness.bot[USERS].command("revokeRolesFromUser", user.name, roles=[{"role": "nosuch", "db": APP}])


@case(24)
def reader_only_reads(harness: EngineHarness) -> None:
    login = harness.client(harness.user(READ))
    assert login[APP].things.find_one() is not None
    with expect_refused(13, f"not authorized on {APP} to execute command {{ insert: "):
        login[APP].things.insert_one({})
    with expect_refused(13, f"not authorized on {USERS} to execute command {{ createUser: ", 'pwd: "xxx"'):
        login[USERS].command("createUser", "friend", pwd="FriendsSecret", roles=[])


@case(25)
def writer_writes_and_no_more(harness: EngineHarness) -> None:
    user = harness.user(READ_WRITE)
    login, collection = harness.client(user), harness.name()
    login[APP][collection].insert_one({})
    login[APP][collection].create_index("n")
    login[APP].command("drop", collection)
    with expect_refused(13, f"not authorized on {APP}"):
        login.drop_database(APP)
    with expect_refused(13, f"not authorized on {USERS}"):
        login[USERS].command("updateUser", user.name, pwd="another")


@case(26)
def role_is_granted_by_who_may(harness: EngineHarness) -> None:
    name = harness.name()
    with expect_refused(13, f"not authorized on {USERS}"):
        harness.bot[USERS].command("createUser", name, pwd="x", roles=[{"role": "read", "db": OTHER}])
    assert harness.root[USERS].command("usersInfo", name)["users"] == []
    harness.bot[USERS].command("createUser", name, pwd="x", roles=[READ])


@case(27)
def replacing_roles_needs_revoking_everywhere(harness: EngineHarness) -> None:
    user = harness.user(READ)
    with expect_refused(13, f"not authorized on {USERS}"):
        harness.bot[USERS].command("updateUser", user.name, roles=[])
    assert harness.info(user)["roles"] == [READ]


@case(28)
def restricting_needs_its_own_right(harness: EngineHarness) -> None:
    with expect_refused(13, f"not authorized on {USERS}"):
        harness.bot[USERS].command(
            "createUser", harness.name(), pwd="x", roles=[READ], authenticationRestrictions=ELSEWHERE
        )
    harness.bot[USERS].command("createUser", harness.name(), pwd="x", roles=[READ])


@case(38)
def dropped_role_is_taken_from_everybody(harness: EngineHarness) -> None:
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
