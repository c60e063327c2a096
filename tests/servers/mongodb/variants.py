"""Servers other than MongoDB 7.0: an older and a newer release, and servers that only look like MongoDB."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from tests.servers.mongodb import errors
from tests.servers.mongodb.call import COMMANDS, Call, Reply
from tests.servers.mongodb.commands import connecting, operations
from tests.servers.mongodb.connection import Connection
from tests.servers.mongodb.mutants.mutant import replace, reply_of


def older() -> None:
    """6.0: only the versions that the server reports. The adapter must not depend on more."""
    replace(connecting, "VERSION", "6.0.20")
    replace(connecting, "WIRE_VERSION", 17)


def newer() -> None:
    """8.2: buildInfo needs a login, rows of idle connections name no user, some codes have other names."""
    replace(connecting, "VERSION", "8.2.0")
    replace(connecting, "WIRE_VERSION", 27)
    errors.NAMES.update({40414: "IDLFailedToParse", 40415: "IDLUnknownField"})
    COMMANDS["buildInfo"] = dataclasses.replace(COMMANDS["buildInfo"], needs_login=True)
    right = operations._connection

    def connection(call: Call, one: Connection, *, is_active: bool) -> Reply:
        row = right(call, one, is_active=is_active)
        row.pop("effectiveUsers", None)
        return row

    replace(operations, "_connection", connection)


def unenforced() -> None:
    """A server that calls itself MongoDB, stores users and roles, and lets every user do everything."""
    replace(Call, "may", lambda call, *asked: True)


def ferretdb() -> None:
    """FerretDB 2, as the adapter recognises it."""
    unenforced()
    package = {"version": "v2.1.0", "package": "docker"}
    reply_of("buildInfo", lambda call, reply: reply.update(version="7.0.77", ferretdb=package))


VARIANTS: dict[str, Callable[[], None]] = {
    "6.0": older,
    "8.2": newer,
    "unenforced": unenforced,
    "ferretdb": ferretdb,
}
