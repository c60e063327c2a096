"""The handshake and logging in."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from bson.objectid import ObjectId

from tests.servers.mongodb import errors, rights
from tests.servers.mongodb.call import Call, Reply, command
from tests.servers.mongodb.connection import Connection
from tests.servers.mongodb.scram import HASHES, Conversation
from tests.servers.mongodb.users import User, UserName

WIRE_VERSION = 21
"""7.0's."""
ELECTION = ObjectId("7fffffff0000000000000001")


@command("hello", needs_login=False, is_lax=True)
async def hello(call: Call) -> Reply:
    return _hello(call, "isWritablePrimary")


@command("isMaster", aliases=("ismaster",), needs_login=False, is_lax=True)
async def is_master(call: Call) -> Reply:
    return _hello(call, "ismaster")


def _hello(call: Call, word: str) -> Reply:
    _remember_client(call)
    return {
        **({"helloOk": True} if call.get("helloOk") else {}),
        **_place_in_set(call, word),
        "maxBsonObjectSize": 16777216,
        "maxMessageSizeBytes": 48000000,
        "maxWriteBatchSize": 100000,
        "localTime": datetime.now(UTC),
        "logicalSessionTimeoutMinutes": 30,
        "connectionId": call.connection.id,
        "minWireVersion": 0,
        "maxWireVersion": WIRE_VERSION,
        "readOnly": False,
        **_mechanisms(call),
        **_speculation(call),
    }


def _remember_client(call: Call) -> None:
    if "client" in call.body:
        if call.connection.client:
            raise errors.SECOND_CLIENT.failure()
        call.connection.client = call.body["client"]


def _place_in_set(call: Call, word: str) -> Reply:
    member, deployment = call.member, call.deployment
    if deployment.is_routed:
        return {word: True, "msg": "isdbgrid"}
    if not deployment.is_set:
        return {word: True}
    return {
        "hosts": [one.address for one in deployment.members],
        "setName": deployment.set_name,
        "setVersion": 1,
        word: member.is_primary,
        "secondary": not member.is_primary,
        "primary": deployment.members[0].address,
        "me": member.address,
        **({"electionId": ELECTION} if member.is_primary else {}),
        "lastWrite": {"lastWriteDate": datetime.now(UTC)},
    }


def _mechanisms(call: Call) -> Reply:
    """Of the user who is named; absent for one who is not there."""
    if "saslSupportedMechs" not in call.body:
        return {}
    db, dot, name = call.body["saslSupportedMechs"].partition(".")
    if not dot:
        raise errors.NO_DOT.failure()
    known = call.member.known(UserName(name, db))
    return {} if known is None else {"saslSupportedMechs": list(known[0].credentials)}


def _speculation(call: Call) -> Reply:
    """A login begun in the hello; one that fails is not spoken of."""
    asked = call.get("speculativeAuthenticate")
    if not isinstance(asked, dict) or "saslStart" not in asked:
        return {}
    try:
        return {"speculativeAuthenticate": _start(call.connection, str(asked.get("db", "admin")), asked)}
    except errors.Failure as failure:
        call.connection.conversation = None
        call.connection.log("ACCESS", "Speculative authentication failed", error=failure.text)
        return {}


@command("saslStart", "mechanism!:string payload! options:object autoAuthorize db:string", needs_login=False)
async def sasl_start(call: Call) -> Reply:
    try:
        return _start(call.connection, call.db, call.body)
    except errors.Failure as failure:
        call.connection.conversation = None
        call.connection.log("ACCESS", "Authentication failed", error=failure.text, db=call.db)
        raise


def _start(connection: Connection, db: str, asked: dict[str, Any]) -> Reply:
    mechanism = asked.get("mechanism", "")
    if mechanism not in HASHES:
        raise errors.NO_SUCH_MECHANISM.failure(mechanism=mechanism)
    options = asked.get("options", {})
    conversation = Conversation(mechanism, db, skips_empty_exchange=bool(options.get("skipEmptyExchange")))
    conversation.read_first(bytes(asked["payload"]))
    stored = _user(connection, conversation).credentials.get(mechanism)
    if stored is None:
        raise errors.LOGIN_FAILED.failure()
    connection.conversation = conversation
    return {"conversationId": 1, "done": False, "payload": conversation.first(stored)}


def _user(connection: Connection, conversation: Conversation) -> User:
    known = connection.member.known(UserName(conversation.user, conversation.db))
    if known is None:
        raise errors.LOGIN_FAILED.failure()
    return known[0]


@command("saslContinue", "conversationId! payload!", needs_login=False)
async def sasl_continue(call: Call) -> Reply:
    connection, conversation = call.connection, call.connection.conversation
    if conversation is None:
        raise errors.NO_CONVERSATION.failure()
    if call.body["conversationId"] != 1:
        raise errors.OTHER_CONVERSATION.failure()
    try:
        return _continue(connection, conversation, bytes(_as_bytes(call.body["payload"])))
    except errors.Failure as failure:
        connection.conversation = None
        connection.log("ACCESS", "Authentication failed", user=conversation.user, error=failure.text, code=20249)
        raise


def _as_bytes(payload: Any) -> bytes:
    return payload.encode() if isinstance(payload, str) else payload


def _continue(connection: Connection, conversation: Conversation, payload: bytes) -> Reply:
    answer = b""
    if not conversation.is_proven:
        user = _user(connection, conversation)
        answer = conversation.final(payload, user.credentials[conversation.mechanism])
        if not conversation.skips_empty_exchange:
            return {"conversationId": 1, "done": False, "payload": answer}
    user = _user(connection, conversation)
    accounts = connection.member.deployment.accounts
    if not accounts.may_come(user, connection.client_address, connection.server_address):
        raise errors.LOGIN_FAILED.failure()
    connection.conversation = None
    connection.log_in(user)
    connection.log("ACCESS", "Successfully authenticated", user=user.name.name, db=user.name.db)
    return {"conversationId": 1, "done": True, "payload": answer}


@command("logout", needs_login=False)
async def logout(call: Call) -> Reply:
    if call.connection.user is not None and call.connection.user.db == call.db:
        call.connection.log_out()
    return {}


@command("connectionStatus", "showPrivileges:bool", needs_login=False)
async def connection_status(call: Call) -> Reply:
    accounts, user = call.deployment.accounts, call.connection.user
    known = None if user is None else call.member.known(user)
    roles = [] if known is None else accounts.inherited(known[0].roles)
    info: Reply = {
        "authenticatedUsers": [] if user is None else [user.document()],
        "authenticatedUserRoles": [role.document() for role in roles],
    }
    if call.get("showPrivileges"):
        privileges = [] if user is None else rights.merged(call.connection.privileges)
        info["authenticatedUserPrivileges"] = [p.document() for p in privileges]
    return {"authInfo": info}


@command("ping", needs_login=False)
async def ping(call: Call) -> Reply:
    return {}
