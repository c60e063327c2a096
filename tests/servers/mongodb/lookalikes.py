"""Other servers than a MongoDB 7.0: its older and newer releases, and those that only look like it or let no users be made."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from tests.servers.mongodb import errors
from tests.servers.mongodb.broken.fault import around, replace, reply_of
from tests.servers.mongodb.call import COMMANDS, Call, Reply, Run, command
from tests.servers.mongodb.commands import connecting, current_op
from tests.servers.mongodb.connection import Connection
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


def older() -> None:
    """4.4: small letters where a login is asked for, and a wire version that drivers still take."""
    replace(errors, "NEEDS_LOGIN", errors.Refusal(13, "command {name} requires authentication"))
    replace(connecting, "WIRE_VERSION", 9)
    reply_of("buildInfo", lambda call, reply: reply.update(version="4.4.29", versionArray=[4, 4, 29, 0]))
    COMMANDS["buildinfo"] = COMMANDS["buildInfo"]


def newer() -> None:
    """8.2: buildInfo only after a login, idle connections no longer tell whose they are, some codes have other names."""
    replace(connecting, "WIRE_VERSION", 27)
    errors.NAMES.update({40414: "IDLFailedToParse", 40415: "IDLUnknownField"})
    reply_of("buildInfo", lambda call, reply: reply.update(version="8.2.0", versionArray=[8, 2, 0, 0]))
    COMMANDS["buildInfo"] = dataclasses.replace(COMMANDS["buildInfo"], needs_login=True)
    COMMANDS["buildinfo"] = dataclasses.replace(COMMANDS["buildInfo"], name="buildinfo")
    right = current_op._connection

    def connection(call: Call, one: Connection, *, is_active: bool) -> Reply:
        row = right(call, one, is_active=is_active)
        row.pop("effectiveUsers", None)
        return row

    replace(current_op, "_connection", connection)


def limitless() -> None:
    """One that calls itself MongoDB, keeps users and roles, and lets everybody who is logged in do everything."""
    replace(Call, "may", lambda call, *asked: True)


LOOKALIKES: dict[str, Callable[[], None]] = {
    "ferretdb": ferretdb,
    "limitless": limitless,
    "atlas": atlas,
    "4.4": older,
    "8.2": newer,
}
