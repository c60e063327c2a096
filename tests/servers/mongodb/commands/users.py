"""Commands on users."""

from __future__ import annotations

from typing import Any

from tests.servers.mongodb import errors, scram
from tests.servers.mongodb.call import Call, Reply, command
from tests.servers.mongodb.documents import matches
from tests.servers.mongodb.rights import CLUSTER, Resource, RoleName
from tests.servers.mongodb.users import User, UserName

PARTS = "pwd:string customData:object mechanisms:array"


def read_roles(given: list[Any], db: str) -> list[RoleName]:
    """A string names a role of this database."""
    found = []
    for one in given:
        if isinstance(one, str):
            found.append(RoleName(one, db))
        elif isinstance(one, dict) and set(one) == {"role", "db"}:
            found.append(RoleName(one["role"], one["db"]))
        else:
            raise errors.NOT_A_ROLE_NAME.failure()
    return list(dict.fromkeys(found))


def need_granting(call: Call, roles: list[RoleName]) -> None:
    """grantRole is needed on the database of each role."""
    for role in roles:
        call.need(Resource(role.db), "grantRole")


def _credentials(call: Call) -> scram.Credentials:
    """The real server stores SCRAM-SHA-1 as well where no mechanisms are given."""
    if call.get("mechanisms", [scram.MECHANISM]) != [scram.MECHANISM]:
        raise errors.NOT_MODELLED.failure(what=f"the mechanisms {call.body['mechanisms']}")
    return scram.credentials(call.body["pwd"])


@command("createUser", f"roles!:array {PARTS}", takes_write_concern=True, is_write=True)
async def create_user(call: Call) -> Reply:
    name, accounts = UserName(call.value_of_type("string"), call.db), call.deployment.accounts
    roles = read_roles(call.body["roles"], call.db)
    call.need(Resource(call.db), "createUser")
    need_granting(call, roles)
    if "pwd" not in call.body:
        raise errors.NO_PASSWORD.failure()
    credentials = _credentials(call)
    accounts.need_roles(roles)
    if name in accounts.users:
        raise errors.USER_EXISTS.failure(user=name)
    accounts.users[name] = User(name, credentials, roles, custom_data=call.get("customData"))
    accounts.save()
    return {}


@command("updateUser", PARTS, takes_write_concern=True, is_write=True)
async def update_user(call: Call) -> Reply:
    """``roles`` is not modelled: the adapter never sends it."""
    name, accounts = UserName(call.value_of_type("string"), call.db), call.deployment.accounts
    if "pwd" in call.body:
        call.need(Resource(call.db), "changePassword")
    if "customData" in call.body:
        call.need(Resource(call.db), "changeCustomData")
    if "pwd" not in call.body and "customData" not in call.body:
        raise errors.NOTHING_TO_UPDATE.failure()
    user = accounts.users.get(name)
    if user is None:
        raise errors.NO_USER_TO_UPDATE.failure(user=name)
    if "pwd" in call.body:
        user.credentials = _credentials(call)
    user.custom_data = call.get("customData", user.custom_data)
    accounts.save()
    return {}


@command("dropUser", takes_write_concern=True, is_write=True)
async def drop_user(call: Call) -> Reply:
    name, accounts = UserName(call.value_of_type("string"), call.db), call.deployment.accounts
    call.need(Resource(call.db), "dropUser")
    if name not in accounts.users:
        raise errors.NO_USER_TO_DROP.failure(user=name)
    del accounts.users[name]
    accounts.save()
    return {}


@command("usersInfo", "filter:object", is_read=True)
async def users_info(call: Call) -> Reply:
    """One user, with 1 all users of the database, with ``forAllDBs`` all users."""
    users = call.deployment.accounts.users
    if call.value == 1 and not isinstance(call.value, bool):
        call.need(Resource(call.db), "viewUser")
        found = [users[name] for name in sorted(users) if name.db == call.db]
    elif call.value == {"forAllDBs": True}:
        call.need(CLUSTER, "viewUser")
        found = [users[name] for name in sorted(users)]
    else:
        asked = _name(call.value, call.db)
        if asked != call.connection.user:
            call.need(Resource(asked.db), "viewUser")
        found = [users[asked]] if asked in users else []
    shown = [user.document() for user in found]
    return {"users": [one for one in shown if matches(one, call.get("filter", {}))]}


def _name(value: Any, db: str) -> UserName:
    if isinstance(value, str):
        return UserName(value, db)
    if not isinstance(value, dict):
        raise errors.NOT_A_USER_NAME.failure()
    for part in ("user", "db"):
        if part not in value:
            raise errors.USER_NAME_LACKS.failure(field=part)
    return UserName(value["user"], value["db"])
