"""What ends sessions, operations and cursors, and what shows them."""

from __future__ import annotations

import uuid
from typing import Any

from tests.servers.mongodb import errors
from tests.servers.mongodb.call import Call, Reply, command, part
from tests.servers.mongodb.commands.current_op import current_op_rows
from tests.servers.mongodb.documents import matches
from tests.servers.mongodb.operations import SHARD, SessionId
from tests.servers.mongodb.rights import CLUSTER
from tests.servers.mongodb.text import type_name
from tests.servers.mongodb.users import UserName

UID_BYTES = 32


@command("killAllSessions")
async def kill_all_sessions(call: Call) -> Reply:
    """Of these users on this member; an empty list means everybody's."""
    given = call.value_of_type("array")
    users = [part("KillAllSessionsCmd", one, ("user", "db"), ("user", "db")) for one in given]
    call.need(CLUSTER, "killAnySession")
    owners = {UserName(user["user"], user["db"]).uid for user in users}
    call.member.work.kill_sessions(lambda session: not users or session.uid in owners, but=call.operation)
    return {}


@command("killAllSessionsByPattern")
async def kill_all_sessions_by_pattern(call: Call) -> Reply:
    """A pattern selects by lsid or uid alone; users and roles only say in whose name it is done."""
    given = call.value_of_type("array")
    patterns = [part("KillAllSessionsByPattern", one, ("lsid", "uid", "users", "roles")) for one in given]
    call.need(CLUSTER, "killAnySession")
    names_somebody = any("users" in pattern or "roles" in pattern for pattern in patterns)
    if names_somebody and not call.may(CLUSTER, "impersonate"):
        raise errors.NO_IMPERSONATING.failure()
    for pattern in patterns:
        if "uid" in pattern and len(pattern["uid"]) != UID_BYTES:
            raise errors.UID_LENGTH.failure()
    call.member.work.kill_sessions(
        lambda session: not patterns or any(_is_meant(session, one) for one in patterns), but=call.operation
    )
    return {}


def _is_meant(session: SessionId, pattern: dict[str, Any]) -> bool:
    if "lsid" in pattern:
        return session == SessionId(pattern["lsid"]["id"], pattern["lsid"]["uid"])
    if "uid" in pattern:
        return bool(session.uid == pattern["uid"])
    return True


def _sessions(call: Call) -> set[SessionId]:
    given = [part("KillSessionsCmd", one, ("id", "uid"), ("id",)) for one in call.value_of_type("array")]
    for one in given:
        if not isinstance(one["id"], uuid.UUID):
            raise errors.WRONG_TYPE.failure(command="id", field="id", found=type_name(one["id"]), expected="binData")
    return {SessionId(one["id"], one.get("uid", call.connection.uid)) for one in given}


@command("killSessions")
async def kill_sessions(call: Call) -> Reply:
    """One's own."""
    meant = _sessions(call)
    if any(session.uid != call.connection.uid for session in meant):
        call.need(CLUSTER, "killAnySession")
    call.member.work.kill_sessions(lambda session: session in meant, but=call.operation)
    return {}


@command("endSessions")
async def end_sessions(call: Call) -> Reply:
    call.member.work.end_sessions(_sessions(call))
    return {}


@command("killOp", "op", is_admin_only=True)
async def kill_op(call: Call) -> Reply:
    """Always a success once it is allowed, whether there is such an operation or not."""
    given = call.get("op")
    if not _is_own(call, given):
        call.need(CLUSTER, "killop")
    if call.deployment.is_routed:
        return _kill_of_shard(call, given)
    if "op" not in call.body:
        raise errors.NO_OP.failure()
    if not _is_number(given):
        raise errors.OP_TYPE.failure(found=type_name(given))
    if not -(1 << 31) <= given < 1 << 31:
        raise errors.OP_RANGE.failure(op=given)
    _kill(call, int(given))
    return {"info": "attempting to kill op"}


def _is_number(given: Any) -> bool:
    return isinstance(given, (int, float)) and not isinstance(given, bool)


def _is_own(call: Call, given: Any) -> bool:
    operation = call.member.work.operations.get(int(given)) if _is_number(given) else None
    me = call.connection.user
    return operation is not None and me is not None and operation.users == [me]


def _kill(call: Call, number: int) -> None:
    operation = call.member.work.operations.get(number)
    if operation is not None:
        call.member.work.kill(operation)


def _kill_of_shard(call: Call, given: Any) -> Reply:
    """Routers name an operation ``shard:number``; a bare number is one of the router itself, which has none here."""
    if "op" not in call.body:
        raise errors.NO_OP_FOR_ROUTER.failure()
    if _is_number(given):
        return {}
    if not isinstance(given, str):
        raise errors.OP_TYPE_OF_ROUTER.failure(found=type_name(given))
    shard, _, number = given.partition(":")
    if not shard or not number:
        raise errors.OP_FORM.failure(op=given)
    if shard != SHARD or not number.isdigit():
        raise errors.NO_SHARD.failure(shard=shard)
    _kill(call, int(number))
    return {"shard": shard, "shardid": int(number)}


@command("currentOp", is_admin_only=True, is_lax=True)
async def current_op(call: Call) -> Reply:
    """The same in one document."""
    everybody = not call.get("$ownOps", False)
    saved = dict(call.body)
    given = {"allUsers": everybody, "idleConnections": bool(call.get("$all", False))}
    own = ("currentOp", "$all", "$ownOps", "$db", "lsid", "comment", "$clusterTime", "$readPreference", "maxTimeMS")
    query = {key: value for key, value in saved.items() if key not in own}
    call.request.body["currentOp"] = 1
    return {"inprog": [row for row in current_op_rows(call, given) if matches(row, query)]}


@command("invalidateUserCache", is_admin_only=True)
async def invalidate_user_cache(call: Call) -> Reply:
    call.need(CLUSTER, "invalidateUserCache")
    call.member.forget_users()
    return {}


def _transaction(call: Call) -> tuple[SessionId, int]:
    session, number = call.session, call.get("txnNumber")
    if session is None or number is None:
        raise errors.NOT_IN_TRANSACTION.failure(name=call.command.name)
    return session, number


@command("commitTransaction", is_admin_only=True, takes_write_concern=True, is_write=True)
async def commit_transaction(call: Call) -> Reply:
    session, number = _transaction(call)
    call.member.work.commit(session, number)
    return {}


@command("abortTransaction", is_admin_only=True, takes_write_concern=True, is_write=True)
async def abort_transaction(call: Call) -> Reply:
    session, number = _transaction(call)
    call.member.work.transaction(session, number, starts=False)
    call.member.work.abort(session)
    return {}
