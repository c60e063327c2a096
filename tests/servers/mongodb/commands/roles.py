"""createRole, dropRole, rolesInfo and the rest."""

from __future__ import annotations

from typing import Any

from tests.servers.mongodb import errors, rights
from tests.servers.mongodb.call import Call, Reply, command
from tests.servers.mongodb.commands.users import need_granting, read_roles
from tests.servers.mongodb.rights import EVERYWHERE, Privilege, Resource, RoleName
from tests.servers.mongodb.users import Role, read_restrictions


def _name(call: Call) -> RoleName:
    return RoleName(call.value_of_type("string"), call.db)


def _need_privileges(call: Call, privileges: list[Privilege], action: str = "grantRole") -> None:
    """On the database of each; the cluster and what spans databases belong to admin."""
    for privilege in privileges:
        call.need(Resource(privilege.resource.db or "admin"), action)


def _check_reach(name: RoleName, privileges: list[Privilege], roles: list[RoleName]) -> None:
    """Only roles of admin may speak of other databases."""
    if name.db == "admin":
        return
    if any(role.db != name.db for role in roles):
        raise errors.FOREIGN_ROLE.failure(db=name.db)
    if any(privilege.resource.db != name.db for privilege in privileges):
        raise errors.FOREIGN_PRIVILEGE.failure(db=name.db)


@command(
    "createRole",
    "privileges!:array roles!:array authenticationRestrictions:array",
    takes_write_concern=True,
    is_write=True,
)
async def create_role(call: Call) -> Reply:
    name = _name(call)
    privileges = [rights.read_privilege(one) for one in call.body["privileges"]]
    roles = read_roles(call.body["roles"], call.db)
    call.need(Resource(call.db), "createRole")
    need_granting(call, roles)
    _need_privileges(call, privileges)
    if "authenticationRestrictions" in call.body:
        call.need(Resource(call.db), "setAuthenticationRestriction")
    if not name.name:
        raise errors.ROLE_NEEDS_NAME.failure()
    if rights.is_built_in(name):
        raise errors.BUILT_IN_NAME.failure()
    _check_reach(name, privileges, roles)
    restrictions = read_restrictions(call.get("authenticationRestrictions", []))
    accounts = call.deployment.accounts
    _need_inherited(call, name, roles)
    if name in accounts.roles:
        raise errors.ROLE_EXISTS.failure(role=name)
    accounts.roles[name] = Role(name, rights.merged(privileges), roles, restrictions)
    accounts.save()
    return {}


def _need_inherited(call: Call, name: RoleName, roles: list[RoleName]) -> None:
    for role in roles:
        if not call.deployment.accounts.has_role(role):
            raise errors.NO_ROLE_TO_GRANT.failure(to=name, role=role)


def _own_role(call: Call) -> Role:
    name = _name(call)
    if rights.is_built_in(name):
        raise errors.BUILT_IN.failure(role=name)
    found = call.deployment.accounts.roles.get(name)
    if found is None:
        raise errors.NO_ROLE.failure(role=name)
    return found


@command(
    "updateRole",
    "privileges:array roles:array authenticationRestrictions:array",
    takes_write_concern=True,
    is_write=True,
)
async def update_role(call: Call) -> Reply:
    privileges = [rights.read_privilege(one) for one in call.get("privileges", [])]
    roles = read_roles(call.get("roles", []), call.db)
    call.need(EVERYWHERE, "revokeRole")
    need_granting(call, roles)
    _need_privileges(call, privileges)
    role = _own_role(call)
    _check_reach(role.name, privileges, roles)
    _need_inherited(call, role.name, roles)
    if "privileges" in call.body:
        role.privileges = rights.merged(privileges)
    if "roles" in call.body:
        role.roles = roles
    if "authenticationRestrictions" in call.body:
        call.need(Resource(call.db), "setAuthenticationRestriction")
        role.restrictions = read_restrictions(call.body["authenticationRestrictions"])
    call.deployment.accounts.save()
    return {}


@command("grantPrivilegesToRole", "privileges!:array", takes_write_concern=True, is_write=True)
async def grant_privileges(call: Call) -> Reply:
    privileges = [rights.read_privilege(one) for one in call.body["privileges"]]
    _need_privileges(call, privileges)
    if not privileges:
        raise errors.NO_PRIVILEGES_GIVEN.failure()
    role = _own_role(call)
    _check_reach(role.name, privileges, [])
    role.privileges = rights.merged([*role.privileges, *privileges])
    call.deployment.accounts.save()
    return {}


@command("revokePrivilegesFromRole", "privileges!:array", takes_write_concern=True, is_write=True)
async def revoke_privileges(call: Call) -> Reply:
    privileges = [rights.read_privilege(one) for one in call.body["privileges"]]
    _need_privileges(call, privileges, "revokeRole")
    if not privileges:
        raise errors.NO_PRIVILEGES_GIVEN.failure()
    role = _own_role(call)
    taken = {privilege.resource: privilege.actions for privilege in privileges}
    left = [Privilege(p.resource, p.actions - taken.get(p.resource, frozenset())) for p in role.privileges]
    role.privileges = [privilege for privilege in left if privilege.actions]
    call.deployment.accounts.save()
    return {}


@command("grantRolesToRole", "roles!:array", takes_write_concern=True, is_write=True)
async def grant_roles(call: Call) -> Reply:
    roles = read_roles(call.body["roles"], call.db)
    need_granting(call, roles)
    role = _own_role(call)
    _check_reach(role.name, [], roles)
    call.deployment.accounts.need_roles(roles)
    role.roles = list(dict.fromkeys([*role.roles, *roles]))
    call.deployment.accounts.save()
    return {}


@command("revokeRolesFromRole", "roles!:array", takes_write_concern=True, is_write=True)
async def revoke_roles(call: Call) -> Reply:
    roles = read_roles(call.body["roles"], call.db)
    need_granting(call, roles, "revokeRole")
    role = _own_role(call)
    call.deployment.accounts.need_roles(roles)
    role.roles = [one for one in role.roles if one not in roles]
    call.deployment.accounts.save()
    return {}


@command("dropRole", takes_write_concern=True, is_write=True)
async def drop_role(call: Call) -> Reply:
    call.need(Resource(call.db), "dropRole")
    role = _own_role(call)
    forget(call, [role.name])
    return {}


@command("dropAllRolesFromDatabase", takes_write_concern=True, is_write=True)
async def drop_all_roles(call: Call) -> Reply:
    call.need(Resource(call.db), "dropRole")
    gone = [name for name in call.deployment.accounts.roles if name.db == call.db]
    forget(call, gone)
    return {"n": len(gone)}


def forget(call: Call, gone: list[RoleName]) -> None:
    """Take these roles from everybody, then drop them."""
    accounts = call.deployment.accounts
    for user in accounts.users.values():
        user.roles = [role for role in user.roles if role not in gone]
    for kept in accounts.roles.values():
        kept.roles = [role for role in kept.roles if role not in gone]
    for name in gone:
        del accounts.roles[name]
    accounts.save()


@command(
    "rolesInfo",
    "showPrivileges:bool showBuiltinRoles:bool showAuthenticationRestrictions:bool",
    is_read=True,
)
async def roles_info(call: Call) -> Reply:
    accounts = call.deployment.accounts
    if call.value == 1 and not isinstance(call.value, bool):
        call.need(Resource(call.db), "viewRole")
        names = sorted(name for name in accounts.roles if name.db == call.db)
        if call.get("showBuiltinRoles"):
            of_admin = rights.OF_ADMIN if call.db == "admin" else ()
            names += [RoleName(name, call.db) for name in (*rights.OF_ANY_DATABASE, *of_admin)]
    else:
        given = call.value if isinstance(call.value, list) else [call.value]
        names = read_roles(given, call.db)
        _need_viewing(call, names)
    return {"roles": [_shown(call, name) for name in names if accounts.has_role(name)]}


def _need_viewing(call: Call, names: list[RoleName]) -> None:
    accounts, user = call.deployment.accounts, call.connection.user
    known = None if user is None else accounts.users.get(user)
    own = [] if known is None else accounts.inherited(known.roles)
    for name in names:
        if name not in own:
            call.need(Resource(name.db), "viewRole")


def _shown(call: Call, name: RoleName) -> dict[str, Any]:
    accounts = call.deployment.accounts
    made = accounts.roles.get(name)
    held = [] if made is None else made.roles
    found: dict[str, Any] = {
        "_id": f"{name.db}.{name.name}",
        "role": name.name,
        "db": name.db,
        "roles": [role.document() for role in held],
        "inheritedRoles": [role.document() for role in accounts.inherited(held)],
        "isBuiltin": made is None,
    }
    if call.get("showPrivileges"):
        own = rights.built_in(name) if made is None else made.privileges
        found["privileges"] = [p.document() for p in own]
        found["inheritedPrivileges"] = [p.document() for p in accounts.privileges([name])]
    if call.get("showAuthenticationRestrictions"):
        found["authenticationRestrictions"] = [] if made is None else made.restrictions
    return found
