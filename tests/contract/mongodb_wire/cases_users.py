"""Cases 9 to 18 and 22: making, reading, changing and dropping users."""

from __future__ import annotations

import base64

from bson.binary import UUID_SUBTYPE

from tests.contract.mongodb_wire.cases import case
from tests.contract.mongodb_wire.harness import APP, READ, USERS, EngineHarness, expect_refused


@case(9)
def create_user_checks_its_fields(harness: EngineHarness) -> None:
    users, name = harness.root[USERS], harness.name()
    with expect_refused(2, "Must provide a 'pwd' field for all user documents"):
        users.command("createUser", name, roles=[])
    with expect_refused(40414, "BSON field 'createUser.roles' is missing but a required field"):
        users.command("createUser", name, pwd="x")
    with expect_refused(14, "BSON field 'createUser.pwd' is the wrong type 'bool', expected type 'string'"):
        users.command("createUser", name, pwd=True, roles=[])
    with expect_refused(40415, "BSON field 'createUser.unknown' is an unknown field."):
        users.command("createUser", name, pwd="x", roles=[], unknown=1)


@case(10)
def create_user_checks_its_values(harness: EngineHarness) -> None:
    users, name = harness.root[USERS], harness.name()
    with expect_refused(2, "User document needs 'user' field to be non-empty"):
        users.command("createUser", "", pwd="x", roles=[])
    with expect_refused(50687, "U_STRING_NOT_TERMINATED_WARNING"):
        users.command("createUser", name, pwd="", roles=[])
    with expect_refused(2, "mechanisms field must not be empty"):
        users.command("createUser", name, pwd="x", roles=[], mechanisms=[])
    with expect_refused(2, "Unknown auth mechanism 'BAD'"):
        users.command("createUser", name, pwd="x", roles=[], mechanisms=["BAD"])
    assert users.command("usersInfo", name)["users"] == []


@case(11)
def user_is_made_once(harness: EngineHarness) -> None:
    user = harness.user()
    with expect_refused(51003, f'User "{user}" already exists'):
        harness.root[USERS].command("createUser", user.name, pwd="another", roles=[])
    assert harness.client(user)[APP].things.find_one() is not None


@case(12)
def unknown_role_makes_no_user(harness: EngineHarness) -> None:
    name = harness.name()
    with expect_refused(31, "Could not find role: nosuch@admin"):
        harness.root[USERS].command("createUser", name, pwd="x", roles=[READ, {"role": "nosuch", "db": "admin"}])
    assert harness.root[USERS].command("usersInfo", name)["users"] == []


@case(13)
def users_info_has_its_fields_in_order(harness: EngineHarness) -> None:
    user = harness.user()
    found = harness.info(user, showCredentials=True)
    assert list(found) == ["_id", "userId", "user", "db", "credentials", "roles", "mechanisms"]
    assert found["_id"] == f"{USERS}.{user.name}"
    assert found["userId"].subtype == UUID_SUBTYPE
    assert (found["user"], found["db"]) == tuple(user.document.values())
    assert found["roles"] == [READ]
    assert found["mechanisms"] == ["SCRAM-SHA-256"]
    stored = found["credentials"]["SCRAM-SHA-256"]
    assert list(stored) == ["iterationCount", "salt", "storedKey", "serverKey"]
    assert stored["iterationCount"] == 15000
    assert [len(base64.b64decode(stored[part])) for part in ("salt", "storedKey", "serverKey")] == [28, 32, 32]
    assert "credentials" not in harness.info(user)


@case(14)
def users_info_leaves_out_who_is_missing(harness: EngineHarness) -> None:
    users = harness.root[USERS]
    made = [harness.user(), harness.user()]
    everybody = [found["user"] for found in users.command("usersInfo", 1)["users"]]
    assert everybody == sorted(everybody)
    assert {user.name for user in made} <= set(everybody)
    asked = [made[1].name, "nobody", made[0].name]
    found = users.command("usersInfo", asked)["users"]
    assert [one["user"] for one in found] == sorted(user.name for user in made)
    with expect_refused(2, "must be a nonempty array"):
        users.command("usersInfo", [])
    with expect_refused(2, "UserName must be either a string or an object"):
        users.command("usersInfo", True)
    with expect_refused(2, "UserName must contain a field named: db"):
        users.command("usersInfo", {"user": made[0].name})


@case(15)
def users_info_filters_by_custom_data(harness: EngineHarness) -> None:
    users = harness.root[USERS]
    with expect_refused(20, "Privilege or restriction details require exact-match usersInfo queries"):
        users.command("usersInfo", 1, showPrivileges=True)
    mark = harness.name()
    marked = harness.user(customData={"dbaccess": {"ledger": mark}})
    harness.user(customData={"dbaccess": {"ledger": "another"}})
    found = users.command("usersInfo", 1, filter={"customData.dbaccess.ledger": mark})["users"]
    assert [one["user"] for one in found] == [marked.name]
    assert found[0]["customData"] == {"dbaccess": {"ledger": mark}}


@case(16)
def update_user_needs_something_to_do(harness: EngineHarness) -> None:
    user = harness.user()
    with expect_refused(2, "Must specify at least one field to update in updateUser"):
        harness.root[USERS].command("updateUser", user.name)
    with expect_refused(11, f"User nobody@{USERS} not found"):
        harness.root[USERS].command("updateUser", "nobody", pwd="x")


@case(17)
def new_password_leaves_open_logins_alone(harness: EngineHarness) -> None:
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
def user_is_dropped_once(harness: EngineHarness) -> None:
    user = harness.user()
    assert harness.bot[USERS].command("dropUser", user.name)["ok"] == 1.0
    with expect_refused(11, f"User '{user}' not found"):
        harness.bot[USERS].command("dropUser", user.name)
    assert harness.bot[USERS].command("usersInfo", user.name)["users"] == []


@case(22)
def restrictions_are_well_formed(harness: EngineHarness) -> None:
    user = harness.user(authenticationRestrictions=[])
    assert not harness.info(user, showAuthenticationRestrictions=True).get("authenticationRestrictions")
    assert harness.client(user)[APP].things.find_one() is not None
    with expect_refused(None):
        harness.root[USERS].command("updateUser", user.name, authenticationRestrictions=None)
    wrong = [{"clientSource": ["127.0.0.1"], "unknown": ["127.0.0.1"]}]
    with expect_refused(None):
        harness.root[USERS].command("updateUser", user.name, authenticationRestrictions=wrong)
    with expect_refused(None):
        harness.root[USERS].command("createUser", harness.name(), pwd="x", roles=[], authenticationRestrictions=wrong)
