"""Faults of the commands about users: cases 9 to 18, 22, 40."""

from __future__ import annotations

import dataclasses
import uuid
from typing import Any

from tests.servers.mongodb import errors, faults, scram
from tests.servers.mongodb.broken.fault import around, breaks, forgiving, nothing, other_code, replace, reply_of
from tests.servers.mongodb.call import COMMANDS, Call, Reply, Run
from tests.servers.mongodb.commands import users
from tests.servers.mongodb.users import Accounts, UserName, read_restrictions


@breaks(9)
def unknown_fields_pass() -> None:
    COMMANDS["createUser"] = dataclasses.replace(COMMANDS["createUser"], is_lax=True)


@breaks(9)
def user_without_password_is_made() -> None:
    forgiving("createUser", 2)


@breaks(9)
def roles_are_optional() -> None:
    COMMANDS["createUser"] = dataclasses.replace(COMMANDS["createUser"], required=())


@breaks(9)
def types_are_not_looked_at() -> None:
    any_type = dict.fromkeys(COMMANDS["createUser"].fields, "")
    COMMANDS["createUser"] = dataclasses.replace(COMMANDS["createUser"], fields=any_type)


@breaks(10)
def empty_password_passes() -> None:
    right = scram.prepared
    replace(scram, "prepared", lambda mechanism, user, password: right(mechanism, user, password or "empty"))


@breaks(10)
def no_mechanism_means_all() -> None:
    right = users._mechanisms
    replace(users, "_mechanisms", lambda given: right(given or None))


@breaks(10)
def unknown_mechanism_passes() -> None:
    right = users._mechanisms
    replace(users, "_mechanisms", lambda given: right(None if given == ["BAD"] else given))


@breaks(10)
def empty_name_passes() -> None:
    replace(users, "_check_new_user", nothing)


@breaks(11)
def user_is_made_over() -> None:
    async def over(call: Call, run: Run) -> Reply:
        call.deployment.accounts.users.pop(UserName(call.value, call.db), None)
        return await run(call)

    around("createUser", over)


@breaks(11)
def second_user_is_not_told() -> None:
    forgiving("createUser", 51003)


@breaks(12)
def unknown_roles_pass() -> None:
    replace(Accounts, "need_roles", nothing)


@breaks(12)
def user_is_made_before_his_roles() -> None:
    async def first(call: Call, run: Run) -> Reply:
        try:
            return await run(call)
        except errors.Failure:
            call.body["roles"] = []
            await run(call)
            raise

    around("createUser", first)


@breaks(13)
def too_few_iterations() -> None:
    scram.ITERATIONS[scram.SHA256] = 10000


@breaks(13)
def credentials_are_always_shown() -> None:
    async def shown(call: Call, run: Run) -> Reply:
        call.body["showCredentials"] = True
        return await run(call)

    around("usersInfo", shown)


@breaks(13)
def users_have_no_mechanisms() -> None:
    reply_of("usersInfo", lambda call, reply: [one.pop("mechanisms") for one in reply["users"]])


@breaks(14)
def missing_users_are_an_error() -> None:
    def complain(call: Call, reply: Reply) -> None:
        if isinstance(call.value, list) and len(reply["users"]) < len(call.value):
            raise errors.NO_USER_TO_UPDATE.failure(user=call.value)

    reply_of("usersInfo", complain)


@breaks(14)
def users_are_unordered() -> None:
    reply_of("usersInfo", lambda call, reply: reply["users"].reverse())


@breaks(14)
def asking_for_nobody_is_fine() -> None:
    forgiving("usersInfo", 2, {"users": []})


@breaks(15)
def filter_is_not_looked_at() -> None:
    replace(users, "matches", lambda document, query: True)


@breaks(15)
def privileges_of_everybody_are_told() -> None:
    forgiving("usersInfo", 20, {"users": []})


@breaks(16)
def updating_nothing_is_fine() -> None:
    forgiving("updateUser", 2)


@breaks(16)
def updating_nobody_is_fine() -> None:
    forgiving("updateUser", 11)


@breaks(17)
def new_password_is_a_new_user() -> None:
    def renew(call: Call, reply: Reply) -> None:
        call.deployment.accounts.users[UserName(call.value, call.db)].id = uuid.uuid4()

    reply_of("updateUser", renew)


@breaks(17)
def new_password_is_not_kept() -> None:
    replace(users, "_set_credentials", nothing)


@breaks(18)
def dropping_twice_is_fine() -> None:
    forgiving("dropUser", 11)


@breaks(18)
def dropped_user_stays() -> None:
    async def stay(call: Call, run: Run) -> Reply:
        return {}

    around("dropUser", stay)


@breaks(22)
def unknown_restrictions_pass() -> None:
    def read(value: Any) -> Any:
        known = ("clientSource", "serverAddress")
        return read_restrictions([{key: one[key] for key in one if key in known} for one in value])

    replace(users, "read_restrictions", read)


@breaks(22)
def null_is_no_restriction() -> None:
    async def ignore(call: Call, run: Run) -> Reply:
        return await run(call) if call.get("authenticationRestrictions", 1) is not None else {}

    any_type = {**COMMANDS["updateUser"].fields, "authenticationRestrictions": ""}
    COMMANDS["updateUser"] = dataclasses.replace(COMMANDS["updateUser"], fields=any_type)
    around("updateUser", ignore)


@breaks(40)
def unconfirmed_writes_are_not_told() -> None:
    right = faults.Faults.of

    def of(self: faults.Faults, name: str) -> faults.Fault | None:
        found = right(self, name)
        if found is not None:
            found.write_concern_error = None
        return found

    replace(faults.Faults, "of", of)


@breaks(40)
def unconfirmed_users_are_not_made() -> None:
    async def lose(call: Call, run: Run) -> Reply:
        return {} if "writeConcern" in call.body else await run(call)

    around("createUser", lose)


@breaks(16)
def users_to_update_are_quoted() -> None:
    other_code("updateUser", 11, errors.Failure(11, "User 'x@y' not found"))
