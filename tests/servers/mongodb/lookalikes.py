"""Servers that speak the protocol and are not MongoDB, or do not let users be made: what an adapter has to recognise and refuse."""

from __future__ import annotations

from collections.abc import Callable

from tests.servers.mongodb import errors
from tests.servers.mongodb.broken.fault import around, replace, reply_of
from tests.servers.mongodb.call import COMMANDS, Call, Reply, Run, command
from tests.servers.mongodb.rights import CLUSTER

USER_COMMANDS = (
    "createUser",
    "updateUser",
    "dropUser",
    "dropAllUsersFromDatabase",
    "grantRolesToUser",
    "revokeRolesFromUser",
    "createRole",
    "updateRole",
    "dropRole",
)


def ferretdb() -> None:
    """FerretDB 2: whoever is logged in may do everything, roles or not; there is no killOp and there are no roles to make."""
    for name in [one for one in COMMANDS if one == "killOp" or "Role" in one]:
        del COMMANDS[name]
    package = {"version": "v2.1.0", "package": "docker"}
    reply_of("buildInfo", lambda call, reply: reply.update(version="7.0.77", ferretdb=package))
    COMMANDS["buildinfo"] = COMMANDS["buildInfo"]
    replace(Call, "may", lambda call, *asked: True)


def atlas() -> None:
    """Atlas: users are made by its Admin API alone."""

    async def refuse(call: Call, run: Run) -> Reply:
        raise errors.ATLAS.failure(name=call.command.name)

    for name in USER_COMMANDS:
        around(name, refuse)

    @command("atlasVersion", is_admin_only=True)
    async def atlas_version(call: Call) -> Reply:
        call.need(CLUSTER)
        return {"atlasVersion": "20260801.0.0.0", "gitVersion": "unknown"}


LOOKALIKES: dict[str, Callable[[], None]] = {"ferretdb": ferretdb, "atlas": atlas}
