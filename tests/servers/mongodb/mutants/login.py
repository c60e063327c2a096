"""Mutants of the handshake and of the login: cases 1 to 8, 39."""

from __future__ import annotations

from typing import Any

from tests.servers.mongodb import errors, member, scram
from tests.servers.mongodb.call import Call, Reply, Run
from tests.servers.mongodb.commands import connecting
from tests.servers.mongodb.connection import Connection
from tests.servers.mongodb.mutants.mutant import accepts, around, breaks, other_code, replace, reply_of
from tests.servers.mongodb.users import UserName


@breaks(1)
def hello_lacks_read_only() -> None:
    reply_of("hello", lambda call, reply: reply.pop("readOnly"))


@breaks(1)
def hello_is_in_another_order() -> None:
    reply_of("hello", lambda call, reply: reply.update(isWritablePrimary=reply.pop("isWritablePrimary")))


@breaks(2)
def unknown_users_have_mechanisms() -> None:
    replace(connecting, "_mechanisms", lambda call: {"saslSupportedMechs": [scram.MECHANISM]})


@breaks(2)
def user_without_database_is_accepted() -> None:
    accepts("hello", 2)


@breaks(3)
def no_login_begins_in_hello() -> None:
    replace(connecting, "_speculation", lambda call: {})


@breaks(5)
def conversation_outlives_a_bad_proof() -> None:
    async def keep(call: Call, run: Run) -> Reply:
        conversation = call.connection.conversation
        try:
            return await run(call)
        finally:
            call.connection.conversation = conversation

    around("saslContinue", keep)


@breaks(5)
def any_proof_is_accepted() -> None:
    right = scram.Conversation.final

    def final(conversation: scram.Conversation, payload: bytes, stored: scram.Credentials) -> bytes:
        try:
            return right(conversation, payload, stored)
        except errors.Failure:
            return b"v="

    replace(scram.Conversation, "final", final)


@breaks(6)
def unknown_user_has_its_own_code() -> None:
    other_code("saslStart", 18, errors.NO_USER_TO_UPDATE.failure(user="x"))


@breaks(6)
def database_of_the_user_is_ignored() -> None:
    def find(connection: Connection, conversation: scram.Conversation) -> Any:
        users = connection.member.deployment.accounts.users
        found = [user for name, user in users.items() if name.name == conversation.user]
        if not found:
            raise errors.LOGIN_FAILED.failure()
        return found[0]

    replace(connecting, "_user", find)


@breaks(6)
def unknown_mechanism_is_a_failed_login() -> None:
    other_code("saslStart", 334, errors.LOGIN_FAILED.failure())


@breaks(7)
def only_commands_with_sessions_need_a_login() -> None:
    right = Call.check_login

    def check_login(call: Call) -> None:
        if "lsid" in call.body:
            right(call)

    replace(Call, "check_login", check_login)


@breaks(7)
def clients_without_login_read() -> None:
    right = Call.may
    replace(Call, "check_login", lambda call: None)
    replace(Call, "may", lambda call, *asked: call.connection.user is None or right(call, *asked))


@breaks(8)
def connection_status_lacks_roles() -> None:
    reply_of("connectionStatus", lambda call, reply: reply["authInfo"].update(authenticatedUserRoles=[]))


@breaks(8)
def connection_status_lacks_privileges() -> None:
    reply_of("connectionStatus", lambda call, reply: reply["authInfo"].pop("authenticatedUserPrivileges", None))


@breaks(8)
def connection_status_names_another_database() -> None:
    def change(call: Call, reply: Reply) -> None:
        users = reply["authInfo"]["authenticatedUsers"]
        reply["authInfo"]["authenticatedUsers"] = [UserName(one["user"], "admin").document() for one in users]

    reply_of("connectionStatus", change)


@breaks(39)
def login_is_needed_without_authorization() -> None:
    right = member.Deployment.__init__

    def init(self: member.Deployment, *given: Any, **how: Any) -> None:
        right(self, *given, **{**how, "is_auth_on": True})

    replace(member.Deployment, "__init__", init)
