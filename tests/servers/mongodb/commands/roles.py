"""Commands on roles."""

from __future__ import annotations

from typing import Any

from tests.servers.mongodb import errors
from tests.servers.mongodb.built_in_roles import is_built_in, read_privilege
from tests.servers.mongodb.call import Call, Reply, command
from tests.servers.mongodb.commands.users import need_granting, read_roles
from tests.servers.mongodb.rights import Privilege, Resource, RoleName, merged
from tests.servers.mongodb.users import Role


def _name(call: Call) -> RoleName:
    return RoleName(call.value_of_type("string"), call.db)


def _need_privileges(call: Call, privileges: list[Privilege], action: str = "grantRole") -> None:
    """On the database of each; the cluster and resources of all databases belong to admin."""
    for privilege in privileges:
        call.need(Resource(privilege.resource.db or "admin"), action)


def _check_reach(name: RoleName, privileges: list[Privilege], roles: list[RoleName]) -> None:
    """Only roles of admin may reach other databases."""
    if name.db == "admin":
        return
    if any(role.db != name.db for role in roles):
        raise errors.FOREIGN_ROLE.failure(db=name.db)
    if any(privilege.resource.db != name.db for privilege in privileges):
        raise errors.FOREIGN_PRIVILEGE.failure(db=name.db)


def _existing(call: Call) -> Role:
    found = call.deployment.accounts.roles.get(_name(call))
    if found is None:
        raise errors.NO_ROLE.failure(role=_name(call))
    return found


@command("createRole", "privileges!:array roles!:array", takes_write_concern=True, is_write=True)
async def create_role(call: Call) -> Reply:
    name, accounts = _name(call), call.deployment.accounts
    privileges = [read_privilege(one) for one in call.body["privileges"]]
    roles = read_roles(call.body["roles"], call.db)
    call.need(Resource(call.db), "createRole")
    need_granting(call, roles)
    _need_privileges(call, privileges)
    if is_built_in(name):
        raise errors.NOT_MODELLED.failure(what=f"a role with the built-in name {name}")
    _check_reach(name, privileges, roles)
    accounts.need_roles(roles)
    if name in accounts.roles:
        raise errors.ROLE_EXISTS.failure(role=name)
    accounts.roles[name] = Role(name, merged(privileges), roles)
    accounts.save()
    return {}


def _changed_role(call: Call, action: str) -> tuple[Role, list[Privilege]]:
    privileges = [read_privilege(one) for one in call.body["privileges"]]
    _need_privileges(call, privileges, action)
    if not privileges:
        raise errors.NO_PRIVILEGES_GIVEN.failure()
    return _existing(call), privileges


@command("grantPrivilegesToRole", "privileges!:array", takes_write_concern=True, is_write=True)
async def grant_privileges(call: Call) -> Reply:
    role, privileges = _changed_role(call, "grantRole")
    _check_reach(role.name, privileges, [])
    role.privileges = merged([*role.privileges, *privileges])
    call.deployment.accounts.save()
    return {}


@command("revokePrivilegesFromRole", "privileges!:array", takes_write_concern=True, is_write=True)
async def revoke_privileges(call: Call) -> Reply:
    role, privileges = _changed_role(call, "revokeRole")
    taken = {privilege.resource: privilege.actions for privilege in privileges}
    left = [Privilege(p.resource, p.actions - taken.get(p.resource, frozenset())) for p in role.privileges]
    role.privileges = [privilege for privilege in left if privilege.actions]
    call.deployment.accounts.save()
    return {}


@command("dropRole", takes_write_concern=True, is_write=True)
async def drop_role(call: Call) -> Reply:
    call.need(Resource(call.db), "dropRole")
    forget(call, _existing(call).name)
    return {}


def forget(call: Call, dropped: RoleName) -> None:
    """Takes the role from all its holders, then drops it."""
    accounts = call.deployment.accounts
    for holder in (*accounts.users.values(), *accounts.roles.values()):
        holder.roles = [role for role in holder.roles if role != dropped]
    del accounts.roles[dropped]
    accounts.save()


@command("rolesInfo", "showPrivileges:bool", is_read=True)
async def roles_info(call: Call) -> Reply:
    """One role, or with 1 all user-defined roles of the database."""
    accounts = call.deployment.accounts
    if call.value == 1:
        call.need(Resource(call.db), "viewRole")
        names = sorted(name for name in accounts.roles if name.db == call.db)
    else:
        names = read_roles([call.value], call.db)
        for name in names:
            call.need(Resource(name.db), "viewRole")
    return {"roles": [_shown(call, accounts.roles[name]) for name in names if name in accounts.roles]}


def _shown(call: Call, role: Role) -> dict[str, Any]:
    accounts = call.deployment.accounts
    found: dict[str, Any] = {
        "_id": f"{role.name.db}.{role.name.name}",
        **role.name.document(),
        "roles": [held.document() for held in role.roles],
        "inheritedRoles": [held.document() for held in accounts.inherited(role.roles)],
        "isBuiltin": False,
    }
    if call.get("showPrivileges"):
        found["privileges"] = [p.document() for p in role.privileges]
        found["inheritedPrivileges"] = [p.document() for p in accounts.privileges([role.name])]
    return found
