"""Faults of rights and of live logins: cases 19 to 28, 38."""

from __future__ import annotations

from tests.servers.mongodb import built_in_roles, errors, text
from tests.servers.mongodb.broken.fault import (
    around,
    breaks,
    forgiving,
    nothing,
    privileges_of_the_login,
    replace,
    reply_of,
    right_not_asked,
)
from tests.servers.mongodb.call import Call, Reply, Run
from tests.servers.mongodb.commands import connecting, roles, users
from tests.servers.mongodb.connection import Connection
from tests.servers.mongodb.rights import Resource, RoleName
from tests.servers.mongodb.users import Accounts, UserName


@breaks(19)
def live_logins_are_not_looked_at() -> None:
    privileges_of_the_login()


@breaks(19)
def dropping_a_user_closes_his_sockets() -> None:
    def close(call: Call, reply: Reply) -> None:
        gone = UserName(call.value, call.db)
        for connection in call.member.connections.values():
            if connection.user == gone:
                connection.writer.transport.abort()

    reply_of("dropUser", close)


@breaks(20)
def users_are_known_by_name() -> None:
    right = Connection.refresh

    def refresh(connection: Connection) -> None:
        known = connection.member.known(connection.user) if connection.user else None
        if known is not None:
            connection.user_id = known[0].id
        right(connection)

    replace(Connection, "refresh", refresh)


def _anybody_may_come_in(owner: object, name: str) -> None:
    """While this runs."""
    right, may_come = getattr(owner, name), Accounts.may_come

    def run(*given: object) -> object:
        replace(Accounts, "may_come", lambda *_: True)
        try:
            return right(*given)
        finally:
            replace(Accounts, "may_come", may_come)

    replace(owner, name, run)


@breaks(21)
def restrictions_count_at_login_only() -> None:
    _anybody_may_come_in(Connection, "refresh")


@breaks(21)
def restrictions_do_not_count_at_login() -> None:
    _anybody_may_come_in(connecting, "_continue")


@breaks(23)
def roles_are_read_at_login_only() -> None:
    privileges_of_the_login()


@breaks(23)
def unknown_role_is_taken() -> None:
    forgiving("revokeRolesFromUser", 31)


@breaks(23)
def role_that_is_not_held_cannot_be_taken() -> None:
    async def complain(call: Call, run: Run) -> Reply:
        held = call.deployment.accounts.users[UserName(call.value, call.db)].roles
        for role in users.read_roles(call.body["roles"], call.db):
            if role not in held:
                raise errors.NO_ROLE.failure(role=role)
        return await run(call)

    around("revokeRolesFromUser", complain)


@breaks(24)
def passwords_are_shown() -> None:
    text.SECRET_FIELDS.clear()


@breaks(24)
def readers_insert() -> None:
    built_in_roles.READ |= {"insert"}


@breaks(24)
def anybody_makes_users() -> None:
    right_not_asked("createUser")


@breaks(25)
def writers_drop_databases() -> None:
    built_in_roles.READ_WRITE |= {"dropDatabase"}


@breaks(25)
def writers_make_no_indexes() -> None:
    built_in_roles.READ_WRITE -= {"createIndex"}


@breaks(25)
def everybody_sets_his_own_password() -> None:
    right_not_asked("changePassword")


@breaks(26)
def anybody_grants() -> None:
    replace(users, "need_granting", nothing)


@breaks(26)
def granting_is_asked_for_where_the_user_lives() -> None:
    def need(call: Call, given: list[RoleName], action: str = "grantRole") -> None:
        call.need(Resource(call.db), action)

    replace(users, "need_granting", need)


@breaks(27)
def replacing_roles_needs_no_more_than_a_password() -> None:
    replace(users, "_need_updating", lambda call, name, given: call.need(Resource(call.db), "changePassword"))


@breaks(28)
def restricting_needs_no_right() -> None:
    right_not_asked("setAuthenticationRestriction")


@breaks(38)
def dropped_role_stays_with_its_users() -> None:
    def forget(call: Call, gone: list[RoleName]) -> None:
        for name in gone:
            del call.deployment.accounts.roles[name]

    replace(roles, "forget", forget)


@breaks(38)
def dropped_role_stays_with_its_logins() -> None:
    privileges_of_the_login()


@breaks(38)
def role_is_made_twice() -> None:
    forgiving("createRole", 51002)


@breaks(38)
def role_is_dropped_twice() -> None:
    forgiving("dropRole", 31)
