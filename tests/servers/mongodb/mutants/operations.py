"""Mutants of the commands that end sessions, operations and cursors: cases 29 to 36."""

from __future__ import annotations

import dataclasses
from typing import Any

from tests.servers.mongodb import errors
from tests.servers.mongodb.call import COMMANDS, Call, Reply, Run
from tests.servers.mongodb.commands import operations
from tests.servers.mongodb.mutants.mutant import accepts, around, breaks, ignores_right, nothing, replace, reply_of
from tests.servers.mongodb.operations import Operation, Operations
from tests.servers.mongodb.users import UserName


@breaks(29)
def running_operations_are_not_killed() -> None:
    replace(Operations, "kill", nothing)


@breaks(29)
def operations_of_all_users_are_killed() -> None:
    right = Operations.kill_sessions
    replace(Operations, "kill_sessions", lambda all_of, meant, but: right(all_of, lambda session: True, but=but))


@breaks(30)
def cursors_outlive_their_sessions() -> None:
    right = Operations.kill_sessions

    def kill_sessions(all_of: Operations, *meant: Any, **how: Any) -> None:
        cursors = dict(all_of.cursors)
        right(all_of, *meant, **how)
        all_of.cursors = cursors

    replace(Operations, "kill_sessions", kill_sessions)


@breaks(30)
def kill_of_sessions_logs_out() -> None:
    def log_out(call: Call, reply: Reply) -> None:
        meant = [UserName(one["user"], one["db"]) for one in call.value]
        for connection in call.member.connections.values():
            if connection.user in meant:
                connection.log_out()

    reply_of("killAllSessions", log_out)


@breaks(31)
def sessions_of_dropped_users_are_not_found() -> None:
    async def check(call: Call, run: Run) -> Reply:
        existing = call.deployment.accounts.users
        meant = [one for one in call.value if "db" not in one or UserName(one["user"], one["db"]) in existing]
        call.body["killAllSessions"] = meant
        return await run(call) if meant else {}

    around("killAllSessions", check)


@breaks(31)
def kill_of_an_unknown_user_is_an_error() -> None:
    async def check(call: Call, run: Run) -> Reply:
        for one in call.value:
            if one["user"] == "nobody":
                raise errors.NO_USER_TO_UPDATE.failure(user="nobody")
        return await run(call)

    around("killAllSessions", check)


@breaks(31)
def database_is_optional() -> None:
    accepts("killAllSessions", 40414)


@breaks(34)
def kill_of_sessions_reaches_operations_without_one() -> None:
    right = Operations.kill_sessions

    def kill_sessions(all_of: Operations, *meant: Any, **how: Any) -> None:
        right(all_of, *meant, **how)
        for operation in all_of.running.values():
            if operation.session is None:
                all_of.kill(operation)

    replace(Operations, "kill_sessions", kill_sessions)


@breaks(34)
def kill_op_does_nothing() -> None:
    async def say(call: Call, run: Run) -> Reply:
        return {"info": "attempting to kill op"}

    around("killOp", say)


@breaks(35)
def kill_op_runs_on_any_database() -> None:
    COMMANDS["killOp"] = dataclasses.replace(COMMANDS["killOp"], is_admin_only=False)


@breaks(35)
def op_is_optional() -> None:
    accepts("killOp", 4)


@breaks(35)
def op_may_be_a_string() -> None:
    accepts("killOp", 14)


@breaks(35)
def unknown_op_is_an_error() -> None:
    async def check(call: Call, run: Run) -> Reply:
        if call.get("op") == 123456 and call.db == "admin":
            raise errors.NO_OP.failure()
        return await run(call)

    around("killOp", check)


@breaks(36)
def everybody_sees_all_operations() -> None:
    ignores_right("inprog")


@breaks(36)
def owners_of_sessions_are_not_shown() -> None:
    right = operations._running

    def running(call: Call, operation: Operation) -> dict[str, Any]:
        row = right(call, operation)
        return {**row, **({"lsid": {**row["lsid"], "uid": b""}} if "lsid" in row else {})}

    replace(operations, "_running", running)
