"""Mutants of rights and of open logins: cases 19 to 26, 38, 41."""

from __future__ import annotations

from tests.servers.mongodb import built_in_roles, text
from tests.servers.mongodb.call import Call, Reply
from tests.servers.mongodb.commands import roles, users
from tests.servers.mongodb.connection import Connection
from tests.servers.mongodb.mutants.mutant import accepts, breaks, ignores_right, nothing, replace, reply_of
from tests.servers.mongodb.rights import Resource, RoleName
from tests.servers.mongodb.users import UserName


def _refresh_only_at_login() -> None:
    right = Connection.refresh

    def refresh(connection: Connection) -> None:
        if connection.user is None or not connection.privileges:
            right(connection)

    replace(Connection, "refresh", refresh)


@breaks(19)
def dropped_user_keeps_its_login() -> None:
    _refresh_only_at_login()


@breaks(19)
def drop_closes_sockets() -> None:
    def close(call: Call, reply: Reply) -> None:
        gone = UserName(call.value, call.db)
        for connection in call.member.connections.values():
            if connection.user == gone:
                connection.writer.transport.abort()

    reply_of("dropUser", close)


@breaks(20)
def users_are_identified_by_name() -> None:
    right = Connection.refresh

    def refresh(connection: Connection) -> None:
        known = connection.member.known(connection.user) if connection.user else None
        if known is not None:
            connection.user_id = known[0].id
        right(connection)

    replace(Connection, "refresh", refresh)


@breaks(24)
def errors_show_passwords() -> None:
    text.SECRET_FIELDS.clear()


@breaks(24)
def readers_insert() -> None:
    built_in_roles.OF_A_DATABASE["read"] |= {"insert"}


@breaks(24)
def everybody_creates_users() -> None:
    ignores_right("createUser")


@breaks(25)
def writers_do_not_insert() -> None:
    built_in_roles.OF_A_DATABASE["readWrite"] -= {"insert"}


@breaks(25)
def everybody_sets_passwords() -> None:
    ignores_right("changePassword")


@breaks(26)
def everybody_grants_roles() -> None:
    replace(users, "need_granting", nothing)


@breaks(26)
def granting_needs_the_right_on_the_users_database() -> None:
    def need(call: Call, given: list[RoleName]) -> None:
        call.need(Resource(call.db), "grantRole")

    replace(users, "need_granting", need)


@breaks(38)
def dropped_role_stays_with_its_users() -> None:
    def forget(call: Call, dropped: RoleName) -> None:
        call.deployment.accounts.roles[dropped].privileges = []

    replace(roles, "forget", forget)


@breaks(38)
def dropped_role_stays_with_open_logins() -> None:
    _refresh_only_at_login()


@breaks(38)
def second_role_is_no_error() -> None:
    accepts("createRole", 51002)


@breaks(38)
def second_drop_of_a_role_is_no_error() -> None:
    accepts("dropRole", 31)


@breaks(41)
def roles_info_lacks_inherited_privileges() -> None:
    def own_only(call: Call, reply: Reply) -> None:
        for one in reply["roles"]:
            one["inheritedPrivileges"] = one.get("privileges", [])

    reply_of("rolesInfo", own_only)


@breaks(41)
def roles_info_lacks_inherited_roles() -> None:
    def forget(call: Call, reply: Reply) -> None:
        for one in reply["roles"]:
            one["inheritedRoles"] = []

    reply_of("rolesInfo", forget)
