"""How many members are to have a write before it is answered, and what is said when they have not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.servers.mongodb import errors

if TYPE_CHECKING:
    from tests.servers.mongodb.call import Call

FIELDS = ("w", "j", "wtimeout", "fsync", "provenance")


def check(given: Any, *, is_replicated: bool) -> None:
    """As it is read, before anything is done."""
    if not isinstance(given, dict):
        raise errors.WRONG_TYPE.failure(command="writeConcern", field="", found="?", expected="object")
    for name in given:
        if name not in FIELDS:
            raise errors.UNKNOWN_FIELD.failure(command="writeConcern", field=name)
    wanted = given.get("w", 1)
    if isinstance(wanted, str) and wanted != "majority":
        raise errors.NOT_KNOWN_HERE.failure(what=f"the write concern {wanted}")
    if not is_replicated and not isinstance(wanted, str) and wanted > 1:
        raise errors.NOT_REPLICATED.failure()


async def missed(call: Call) -> dict[str, Any] | None:
    """The error that goes with a reply whose write is on too few members. Without wtimeout this waits for ever.

    A real primary that sees no majority also steps down after some seconds; this one stays.
    """
    given = call.get("writeConcern")
    if given is None or not call.deployment.is_set:
        return None
    members = call.deployment.members
    wanted = given.get("w", "majority")
    needed = len(members) // 2 + 1 if wanted == "majority" else wanted
    limit = given.get("wtimeout", 0) / 1000

    def are_enough() -> bool:
        return sum(member.is_open for member in members) >= needed

    if needed > len(members):
        return {"code": 100, "codeName": errors.name_of(100), "errmsg": "Not enough data-bearing nodes"}
    if await call.operation.wait(are_enough, limit or None):
        return None
    told = {"wtimeout": True, "writeConcern": dict(given)}
    text = "waiting for replication timed out"
    return {"code": 64, "codeName": errors.name_of(64), "errmsg": text, "errInfo": told}
