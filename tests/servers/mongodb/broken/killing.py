"""Faults of ending sessions, operations and cursors: cases 29 to 37."""

from __future__ import annotations

import dataclasses
from typing import Any

from tests.servers.mongodb import errors
from tests.servers.mongodb.broken.fault import (
    around,
    breaks,
    forgiving,
    nothing,
    replace,
    reply_of,
    right_not_asked,
)
from tests.servers.mongodb.call import COMMANDS, Call, Reply, Run
from tests.servers.mongodb.commands import current_op, killing
from tests.servers.mongodb.operations import Operation, SessionId, Work
from tests.servers.mongodb.users import UserName


@breaks(29)
def running_operations_are_not_killed() -> None:
    replace(Work, "kill", nothing)


@breaks(29)
def everybodys_operations_are_killed() -> None:
    right = Work.kill_sessions
    replace(Work, "kill_sessions", lambda work, meant, but: right(work, lambda session: True, but=but))


@breaks(30)
def cursors_outlive_their_sessions() -> None:
    right = Work.kill_sessions

    def kill_sessions(work: Work, *meant: Any, **how: Any) -> None:
        cursors = dict(work.cursors)
        right(work, *meant, **how)
        work.cursors = cursors

    replace(Work, "kill_sessions", kill_sessions)


@breaks(30)
def killing_sessions_logs_out() -> None:
    def log_out(call: Call, reply: Reply) -> None:
        meant = [UserName(one["user"], one["db"]) for one in call.value]
        for connection in call.member.connections.values():
            if connection.user in meant:
                connection.log_out()

    reply_of("killAllSessions", log_out)


@breaks(31)
def sessions_of_dropped_users_are_not_found() -> None:
    async def look(call: Call, run: Run) -> Reply:
        there = call.deployment.accounts.users
        meant = [one for one in call.value if "db" not in one or UserName(one["user"], one["db"]) in there]
        call.body["killAllSessions"] = meant
        return await run(call) if meant else {}

    around("killAllSessions", look)


@breaks(31)
def unknown_users_have_no_sessions_to_kill() -> None:
    async def look(call: Call, run: Run) -> Reply:
        for one in call.value:
            if one["user"] == "nobody":
                raise errors.NO_USER_TO_UPDATE.failure(user="nobody")
        return await run(call)

    around("killAllSessions", look)


@breaks(31)
def database_may_be_missing() -> None:
    forgiving("killAllSessions", 40414)


@breaks(32)
def patterns_select_by_user() -> None:
    def is_meant(session: SessionId, pattern: dict[str, Any]) -> bool:
        return session.uid in {UserName(one["user"], one["db"]).uid for one in pattern["users"]}

    replace(killing, "_is_meant", is_meant)


@breaks(32)
def anybody_acts_in_anothers_name() -> None:
    right = Call.may
    replace(Call, "may", lambda call, asked, *actions: actions == ("impersonate",) or right(call, asked, *actions))


@breaks(33)
def patterns_select_everybody() -> None:
    replace(killing, "_is_meant", lambda session, pattern: True)


@breaks(33)
def any_uid_will_do() -> None:
    forgiving("killAllSessionsByPattern", 12)


@breaks(34)
def killing_sessions_reaches_what_has_none() -> None:
    right = Work.kill_sessions

    def kill_sessions(work: Work, *meant: Any, **how: Any) -> None:
        right(work, *meant, **how)
        for operation in work.operations.values():
            if operation.session is None:
                work.kill(operation)

    replace(Work, "kill_sessions", kill_sessions)


@breaks(34)
def kill_op_does_nothing() -> None:
    async def say(call: Call, run: Run) -> Reply:
        return {"info": "attempting to kill op"}

    around("killOp", say)


@breaks(35)
def kill_op_works_anywhere() -> None:
    COMMANDS["killOp"] = dataclasses.replace(COMMANDS["killOp"], is_admin_only=False)


@breaks(35)
def op_may_be_missing() -> None:
    forgiving("killOp", 4)


@breaks(35)
def op_may_be_a_word() -> None:
    forgiving("killOp", 14)


@breaks(35)
def unknown_op_is_refused() -> None:
    async def look(call: Call, run: Run) -> Reply:
        if call.get("op") == 123456 and call.db == "admin":
            raise errors.NO_OP.failure()
        return await run(call)

    around("killOp", look)


@breaks(36)
def everybody_sees_everybodys_operations() -> None:
    right_not_asked("inprog")


@breaks(36)
def owners_of_sessions_are_not_shown() -> None:
    right = current_op._running

    def running(call: Call, operation: Operation) -> dict[str, Any]:
        row = right(call, operation)
        return {**row, **({"lsid": {**row["lsid"], "uid": b""}} if "lsid" in row else {})}

    replace(current_op, "_running", running)


@breaks(37)
def cursors_are_everybodys() -> None:
    async def take(call: Call, run: Run) -> Reply:
        call.member.work.cursor(call.value).owner = call.connection.user
        return await run(call)

    around("getMore", take)
