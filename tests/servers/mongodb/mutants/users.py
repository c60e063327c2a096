"""Mutants of the commands on users: cases 9 to 18, 40."""

from __future__ import annotations

import dataclasses
import uuid

from tests.servers.mongodb import connection, errors
from tests.servers.mongodb.call import COMMANDS, Call, Reply, Run
from tests.servers.mongodb.commands import users
from tests.servers.mongodb.mutants.mutant import accepts, around, breaks, nothing, other_code, replace, reply_of
from tests.servers.mongodb.users import Accounts, UserName


@breaks(9)
def unknown_fields_pass() -> None:
    COMMANDS["createUser"] = dataclasses.replace(COMMANDS["createUser"], is_lax=True)


@breaks(9)
def user_without_password_is_created() -> None:
    accepts("createUser", 2)


@breaks(9)
def roles_are_optional() -> None:
    COMMANDS["createUser"] = dataclasses.replace(COMMANDS["createUser"], required=())


@breaks(9)
def types_are_ignored() -> None:
    any_type = dict.fromkeys(COMMANDS["createUser"].fields, "")
    COMMANDS["createUser"] = dataclasses.replace(COMMANDS["createUser"], fields=any_type)


@breaks(11)
def second_user_replaces_the_first() -> None:
    async def replaced(call: Call, run: Run) -> Reply:
        call.deployment.accounts.users.pop(UserName(call.value, call.db), None)
        return await run(call)

    around("createUser", replaced)


@breaks(11)
def second_user_is_no_error() -> None:
    accepts("createUser", 51003)


@breaks(12)
def unknown_roles_pass() -> None:
    replace(Accounts, "need_roles", nothing)


@breaks(12)
def user_is_created_before_the_roles_are_checked() -> None:
    async def first(call: Call, run: Run) -> Reply:
        try:
            return await run(call)
        except errors.Failure:
            call.body["roles"] = []
            await run(call)
            raise

    around("createUser", first)


@breaks(13)
def credentials_are_shown() -> None:
    reply_of("usersInfo", lambda call, reply: [one.update(credentials={}) for one in reply["users"]])


@breaks(13)
def users_have_no_mechanisms() -> None:
    reply_of("usersInfo", lambda call, reply: [one.pop("mechanisms") for one in reply["users"]])


@breaks(14)
def missing_user_is_an_error() -> None:
    def complain(call: Call, reply: Reply) -> None:
        if isinstance(call.value, dict) and not reply["users"]:
            raise errors.NO_USER_TO_UPDATE.failure(user=call.value)

    reply_of("usersInfo", complain)


@breaks(14)
def users_are_unordered() -> None:
    reply_of("usersInfo", lambda call, reply: reply["users"].reverse())


@breaks(14)
def database_of_the_user_is_optional() -> None:
    accepts("usersInfo", 2, {"users": []})


@breaks(15)
def filter_is_ignored() -> None:
    replace(users, "matches", lambda document, query: True)


@breaks(16)
def empty_update_is_no_error() -> None:
    accepts("updateUser", 2)


@breaks(16)
def update_of_a_missing_user_is_no_error() -> None:
    accepts("updateUser", 11)


@breaks(16)
def missing_user_is_quoted() -> None:
    other_code("updateUser", 11, errors.Failure(11, "User 'x@y' not found"))


@breaks(17)
def new_password_is_a_new_user() -> None:
    def renew(call: Call, reply: Reply) -> None:
        call.deployment.accounts.users[UserName(call.value, call.db)].id = uuid.uuid4()

    reply_of("updateUser", renew)


@breaks(17)
def new_password_is_not_stored() -> None:
    async def forget(call: Call, run: Run) -> Reply:
        del call.body["pwd"]
        return await run(call) if "customData" in call.body else {}

    around("updateUser", forget)


@breaks(18)
def second_drop_is_no_error() -> None:
    accepts("dropUser", 11)


@breaks(18)
def dropped_user_stays() -> None:
    async def stay(call: Call, run: Run) -> Reply:
        return {}

    around("dropUser", stay)


@breaks(40)
def unconfirmed_writes_look_confirmed() -> None:
    replace(connection.Connection, "_faulty", staticmethod(lambda reply, fail_point: reply))


@breaks(40)
def unconfirmed_users_are_not_created() -> None:
    async def lose(call: Call, run: Run) -> Reply:
        return {} if "writeConcern" in call.body else await run(call)

    around("createUser", lose)


@breaks(13)
def user_id_is_missing() -> None:
    reply_of("usersInfo", lambda call, reply: [one.pop("userId") for one in reply["users"]])
