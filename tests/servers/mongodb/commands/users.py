"""createUser, updateUser, dropUser, usersInfo and the rest."""

from __future__ import annotations

from typing import Any

from tests.servers.mongodb import errors, scram
from tests.servers.mongodb.call import Call, Reply, command
from tests.servers.mongodb.documents import matches
from tests.servers.mongodb.rights import CLUSTER, EVERYWHERE, Resource, RoleName
from tests.servers.mongodb.scram import SHA1, SHA256
from tests.servers.mongodb.users import User, UserName, read_restrictions

PARTS = "pwd:string customData:object mechanisms:array authenticationRestrictions:array digestPassword:bool"


def read_roles(given: list[Any], db: str) -> list[RoleName]:
    """A string means a role of this database."""
    found = []
    for one in given:
        if isinstance(one, str):
            found.append(RoleName(one, db))
        elif isinstance(one, dict) and set(one) == {"role", "db"}:
            found.append(RoleName(one["role"], one["db"]))
        else:
            raise errors.Failure(2, "Role names must be either strings or objects with role and db")
    return list(dict.fromkeys(found))


def need_granting(call: Call, roles: list[RoleName], action: str = "grantRole") -> None:
    for role in roles:
        call.need(Resource(role.db), action)


def _mechanisms(given: list[str] | None) -> list[str]:
    if given is None:
        return [SHA1, SHA256]
    if not given:
        raise errors.NO_MECHANISM.failure()
    for one in given:
        if one not in (SHA1, SHA256):
            raise errors.UNKNOWN_MECHANISM.failure(mechanism=one)
    return given


def _credentials(call: Call, name: str, mechanisms: list[str]) -> scram.Credentials:
    is_digest = call.get("digestPassword", True) is False
    if is_digest and SHA256 in mechanisms:
        raise errors.DIGESTED.failure()
    return scram.credentials(mechanisms, name, call.body["pwd"], is_digest=is_digest)


@command("createUser", f"roles!:array {PARTS}", takes_write_concern=True, is_write=True)
async def create_user(call: Call) -> Reply:
    user = UserName(call.value_of_type("string"), call.db)
    roles = read_roles(call.body["roles"], call.db)
    call.need(Resource(call.db), "createUser")
    need_granting(call, roles)
    if "authenticationRestrictions" in call.body:
        call.need(Resource(call.db), "setAuthenticationRestriction")
    _check_new_user(call, user)
    mechanisms = _mechanisms(call.get("mechanisms"))
    restrictions = read_restrictions(call.get("authenticationRestrictions", []))
    credentials = {} if call.db == "$external" else _credentials(call, user.name, mechanisms)
    accounts = call.deployment.accounts
    accounts.need_roles(roles)
    if user in accounts.users:
        raise errors.USER_EXISTS.failure(user=user)
    accounts.users[user] = User(
        name=user,
        credentials=credentials,
        roles=roles,
        custom_data=call.get("customData"),
        restrictions=restrictions,
    )
    accounts.save()
    return {}


def _check_new_user(call: Call, user: UserName) -> None:
    if not user.name:
        raise errors.NO_NAME.failure()
    if call.db == "local":
        raise errors.LOCAL_DATABASE.failure()
    if ("pwd" in call.body) == (call.db == "$external"):
        raise errors.NO_PASSWORD.failure()


@command("updateUser", f"roles:array {PARTS}", takes_write_concern=True, is_write=True)
async def update_user(call: Call) -> Reply:
    name = UserName(call.value_of_type("string"), call.db)
    given = [part for part in ("roles", *(p.split(":")[0] for p in PARTS.split())) if part in call.body]
    roles = read_roles(call.get("roles", []), call.db)
    _need_updating(call, name, roles)
    if not given:
        raise errors.NOTHING_TO_UPDATE.failure()
    accounts = call.deployment.accounts
    restrictions = read_restrictions(call.get("authenticationRestrictions", []))
    accounts.need_roles(roles)
    user = accounts.users.get(name)
    if user is None:
        raise errors.NO_USER_TO_UPDATE.failure(user=name)
    _set_credentials(call, user)
    if "roles" in given:
        user.roles = roles
    if "customData" in given:
        user.custom_data = call.body["customData"]
    if "authenticationRestrictions" in given:
        user.restrictions = restrictions
    accounts.save()
    return {}


def _need_updating(call: Call, name: UserName, roles: list[RoleName]) -> None:
    own = Resource(call.db)
    is_self = call.connection.user == name
    touches_password = "pwd" in call.body or "mechanisms" in call.body
    if touches_password and not (is_self and call.may(own, "changeOwnPassword")):
        call.need(own, "changePassword")
    if "customData" in call.body and not (is_self and call.may(own, "changeOwnCustomData")):
        call.need(own, "changeCustomData")
    if "roles" in call.body:
        call.need(EVERYWHERE, "revokeRole")
        need_granting(call, roles)
    if "authenticationRestrictions" in call.body:
        call.need(own, "setAuthenticationRestriction")


def _set_credentials(call: Call, user: User) -> None:
    """A new password for the mechanisms named, or for those that were there; without a password they only become fewer."""
    if "pwd" in call.body:
        mechanisms = _mechanisms(call.get("mechanisms"))
        user.credentials = _credentials(call, user.name.name, mechanisms)
    elif "mechanisms" in call.body:
        mechanisms = _mechanisms(call.body["mechanisms"])
        if not set(mechanisms) <= set(user.credentials):
            raise errors.MECHANISM_NOT_STORED.failure()
        user.credentials = {m: user.credentials[m] for m in user.credentials if m in mechanisms}


@command("dropUser", takes_write_concern=True, is_write=True)
async def drop_user(call: Call) -> Reply:
    name = UserName(call.value_of_type("string"), call.db)
    call.need(Resource(call.db), "dropUser")
    accounts = call.deployment.accounts
    if name not in accounts.users:
        raise errors.NO_USER_TO_DROP.failure(user=name)
    del accounts.users[name]
    accounts.save()
    return {}


@command("dropAllUsersFromDatabase", takes_write_concern=True, is_write=True)
async def drop_all_users(call: Call) -> Reply:
    call.need(Resource(call.db), "dropUser")
    accounts = call.deployment.accounts
    gone = [name for name in accounts.users if name.db == call.db]
    for name in gone:
        del accounts.users[name]
    accounts.save()
    return {"n": len(gone)}


@command("grantRolesToUser", "roles!:array", takes_write_concern=True, is_write=True)
async def grant_roles_to_user(call: Call) -> Reply:
    user, roles = _roles_of_user(call, "grantRole")
    user.roles = list(dict.fromkeys([*user.roles, *roles]))
    call.deployment.accounts.save()
    return {}


@command("revokeRolesFromUser", "roles!:array", takes_write_concern=True, is_write=True)
async def revoke_roles_from_user(call: Call) -> Reply:
    user, roles = _roles_of_user(call, "revokeRole")
    user.roles = [role for role in user.roles if role not in roles]
    call.deployment.accounts.save()
    return {}


def _roles_of_user(call: Call, action: str) -> tuple[User, list[RoleName]]:
    name = UserName(call.value_of_type("string"), call.db)
    roles = read_roles(call.body["roles"], call.db)
    need_granting(call, roles, action)
    if not roles:
        raise errors.NO_ROLES_GIVEN.failure(command=call.command.name)
    accounts = call.deployment.accounts
    if name not in accounts.users:
        raise errors.NO_USER_TO_GRANT.failure(name=name.name, db=name.db)
    accounts.need_roles(roles)
    return accounts.users[name], roles


SHOWN = "showCredentials:bool showPrivileges:bool showAuthenticationRestrictions:bool showCustomData:bool"


@command("usersInfo", f"{SHOWN} filter:object", is_read=True)
async def users_info(call: Call) -> Reply:
    asked = _asked(call)
    _need_viewing(call, asked)
    if asked is None and (call.get("showPrivileges") or call.get("showAuthenticationRestrictions")):
        raise errors.NOT_EXACT.failure()
    accounts = call.deployment.accounts
    names = sorted(accounts.users)
    if asked is not None:
        names = [name for name in names if name in asked]
    elif call.value == 1:
        names = [name for name in names if name.db == call.db]
    found = [_shown(call, accounts.users[name]) for name in names]
    return {"users": [one for one in found if matches(one, call.get("filter", {}))]}


def _asked(call: Call) -> list[UserName] | None:
    """The users named; None for all of this database or of every one."""
    value = call.value
    if isinstance(value, bool):
        raise errors.NOT_A_USER_NAME.failure()
    if value in (1, {"forAllDBs": True}):
        return None
    if isinstance(value, list):
        if not value:
            raise errors.NO_USERS_ASKED.failure()
        return [_name(one, call.db) for one in value]
    return [_name(value, call.db)]


def _name(value: Any, db: str) -> UserName:
    if isinstance(value, str):
        return UserName(value, db)
    if not isinstance(value, dict):
        raise errors.NOT_A_USER_NAME.failure()
    for part in ("user", "db"):
        if part not in value:
            raise errors.USER_NAME_LACKS.failure(field=part)
    return UserName(value["user"], value["db"])


def _need_viewing(call: Call, asked: list[UserName] | None) -> None:
    if asked is None:
        call.need(CLUSTER if call.value != 1 else Resource(call.db), "viewUser")
        return
    for name in asked:
        if name != call.connection.user:
            call.need(Resource(name.db), "viewUser")


def _shown(call: Call, user: User) -> dict[str, Any]:
    accounts = call.deployment.accounts
    found = user.document()
    if not call.get("showCredentials"):
        del found["credentials"]
    if not call.get("showAuthenticationRestrictions"):
        found.pop("authenticationRestrictions", None)
    if not call.get("showCustomData", True):
        found.pop("customData", None)
    if call.get("showPrivileges"):
        found["inheritedRoles"] = [role.document() for role in accounts.inherited(user.roles)]
        found["inheritedPrivileges"] = [p.document() for p in accounts.privileges(user.roles)]
    if call.get("showAuthenticationRestrictions"):
        found["inheritedAuthenticationRestrictions"] = accounts.restrictions_of(user)
    return {**found, "mechanisms": list(user.credentials)}
