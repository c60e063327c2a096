"""Faults of the handshake and of logging in: cases 1 to 8, 39."""

from __future__ import annotations

from typing import Any

from tests.servers.mongodb import errors, member, scram
from tests.servers.mongodb.broken.fault import around, breaks, forgiving, other_code, replace, reply_of
from tests.servers.mongodb.call import Call, Reply, Run
from tests.servers.mongodb.commands import connecting
from tests.servers.mongodb.connection import Connection
from tests.servers.mongodb.users import UserName


@breaks(1)
def hello_lacks_read_only() -> None:
    reply_of("hello", lambda call, reply: reply.pop("readOnly"))


@breaks(1)
def hello_is_in_another_order() -> None:
    reply_of("hello", lambda call, reply: reply.update(isWritablePrimary=reply.pop("isWritablePrimary")))


@breaks(2)
def unknown_users_have_mechanisms() -> None:
    right = connecting._mechanisms

    def mechanisms(call: Call) -> Reply:
        known = right(call)
        return known or ({"saslSupportedMechs": [scram.SHA256]} if "saslSupportedMechs" in call.body else {})

    replace(connecting, "_mechanisms", mechanisms)


@breaks(2)
def user_without_database_is_looked_for() -> None:
    forgiving("hello", 2)


@breaks(3)
def no_login_begins_in_hello() -> None:
    replace(connecting, "_speculation", lambda call: {})


@breaks(4)
def empty_exchange_is_always_skipped() -> None:
    right = scram.Conversation

    def always(mechanism: str, db: str, *, skips_empty_exchange: bool) -> scram.Conversation:
        return right(mechanism, db, skips_empty_exchange=True)

    replace(connecting, "Conversation", always)


@breaks(4)
def conversation_outlives_the_login() -> None:
    async def keep(call: Call, run: Run) -> Reply:
        conversation = call.connection.conversation
        reply = await run(call)
        call.connection.conversation = conversation
        return reply

    around("saslContinue", keep)


@breaks(5)
def conversation_outlives_a_bad_proof() -> None:
    async def keep(call: Call, run: Run) -> Reply:
        conversation = call.connection.conversation
        try:
            return await run(call)
        except errors.Failure:
            call.connection.conversation = conversation
            raise

    around("saslContinue", keep)


@breaks(5)
def any_proof_will_do() -> None:
    right = scram.Conversation.final

    def final(conversation: scram.Conversation, payload: bytes, stored: dict[str, Any]) -> bytes:
        try:
            return right(conversation, payload, stored)
        except errors.Failure:
            return b"v="

    replace(scram.Conversation, "final", final)


@breaks(6)
def unknown_user_is_named() -> None:
    other_code("saslStart", 18, errors.NO_USER_TO_UPDATE.failure(user="x"))


@breaks(6)
def database_of_the_user_is_not_looked_at() -> None:
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
def login_is_asked_for_with_sessions_only() -> None:
    right = Call.needs_login

    def needs_login(call: Call) -> None:
        if "lsid" in call.body:
            right(call)

    replace(Call, "needs_login", needs_login)


@breaks(7)
def strangers_read() -> None:
    right = Call.may
    replace(Call, "needs_login", lambda call: None)
    replace(Call, "may", lambda call, *asked: call.connection.user is None or right(call, *asked))


@breaks(8)
def connection_status_forgets_roles() -> None:
    reply_of("connectionStatus", lambda call, reply: reply["authInfo"].update(authenticatedUserRoles=[]))


@breaks(8)
def connection_status_names_the_user_alone() -> None:
    def forget(call: Call, reply: Reply) -> None:
        users = reply["authInfo"]["authenticatedUsers"]
        reply["authInfo"]["authenticatedUsers"] = [UserName(one["user"], "admin").document() for one in users]

    reply_of("connectionStatus", forget)


@breaks(39)
def login_is_asked_for_all_the_same() -> None:
    right = member.Deployment.__init__

    def init(self: member.Deployment, *given: Any, **how: Any) -> None:
        right(self, *given, **{**how, "is_auth_on": True})

    replace(member.Deployment, "__init__", init)
