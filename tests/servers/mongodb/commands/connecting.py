"""Commands of the handshake and of the login."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tests.servers.mongodb import errors, scram
from tests.servers.mongodb.call import Call, Reply, command
from tests.servers.mongodb.connection import Connection
from tests.servers.mongodb.rights import merged
from tests.servers.mongodb.users import User, UserName

VERSION = "7.0.8"
WIRE_VERSION = 21


@command("hello", needs_login=False, is_lax=True)
async def hello(call: Call) -> Reply:
    return _hello(call, "isWritablePrimary")


@command("ismaster", needs_login=False, is_lax=True)
async def is_master(call: Call) -> Reply:
    """The driver's first message."""
    return _hello(call, "ismaster")


def _hello(call: Call, primary_field: str) -> Reply:
    call.connection.client = call.get("client", call.connection.client)
    return {
        **({"helloOk": True} if call.get("helloOk") else {}),
        **_place_in_set(call, primary_field),
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


def _place_in_set(call: Call, primary_field: str) -> Reply:
    member, deployment = call.member, call.deployment
    if deployment.is_routed:
        return {primary_field: True, "msg": "isdbgrid"}
    if not deployment.is_set:
        return {primary_field: True}
    return {
        "hosts": [one.address for one in deployment.members],
        "setName": deployment.set_name,
        "setVersion": 1,
        primary_field: member.is_primary,
        "secondary": not member.is_primary,
        "primary": deployment.members[0].address,
        "me": member.address,
        "lastWrite": {"lastWriteDate": datetime.now(UTC)},
    }


def _mechanisms(call: Call) -> Reply:
    """Those of the named user; the field is absent for an unknown user."""
    if "saslSupportedMechs" not in call.body:
        return {}
    db, dot, name = call.body["saslSupportedMechs"].partition(".")
    if not dot:
        raise errors.NO_DOT.failure()
    known = call.member.known(UserName(name, db))
    return {} if known is None else {"saslSupportedMechs": [scram.MECHANISM]}


def _speculation(call: Call) -> Reply:
    """A login that begins in the hello; the field is absent for a login that fails."""
    asked = call.get("speculativeAuthenticate")
    if asked is None:
        return {}
    try:
        return {"speculativeAuthenticate": _start(call.connection, str(asked.get("db", "admin")), asked)}
    except errors.Failure as failure:
        call.connection.log("ACCESS", "Speculative authentication failed", error=failure.text)
        return {}


@command("saslStart", "mechanism!:string payload! options!:object autoAuthorize", needs_login=False)
async def sasl_start(call: Call) -> Reply:
    try:
        return _start(call.connection, call.db, call.body)
    except errors.Failure as failure:
        call.connection.log("ACCESS", "Authentication failed", error=failure.text, db=call.db)
        raise


def _start(connection: Connection, db: str, asked: dict[str, Any]) -> Reply:
    connection.conversation = None
    mechanism = asked["mechanism"]
    if mechanism != scram.MECHANISM:
        raise errors.NO_SUCH_MECHANISM.failure(mechanism=mechanism)
    if not asked["options"].get("skipEmptyExchange"):
        raise errors.NOT_MODELLED.failure(what="a login without skipEmptyExchange")
    conversation = scram.Conversation(db)
    conversation.read_first(bytes(asked["payload"]))
    stored = _user(connection, conversation).credentials
    connection.conversation = conversation
    return {"conversationId": 1, "done": False, "payload": conversation.first(stored)}


def _user(connection: Connection, conversation: scram.Conversation) -> User:
    known = connection.member.known(UserName(conversation.user, conversation.db))
    if known is None:
        raise errors.LOGIN_FAILED.failure()
    return known[0]


@command("saslContinue", "conversationId! payload!", needs_login=False)
async def sasl_continue(call: Call) -> Reply:
    connection, conversation = call.connection, call.connection.conversation
    if conversation is None:
        raise errors.NO_CONVERSATION.failure()
    connection.conversation = None
    try:
        user = _user(connection, conversation)
        answer = conversation.final(bytes(call.body["payload"]), user.credentials)
    except errors.Failure as failure:
        connection.log("ACCESS", "Authentication failed", user=conversation.user, error=failure.text, code=20249)
        raise
    connection.log_in(user)
    connection.log("ACCESS", "Successfully authenticated", user=user.name.name, db=user.name.db)
    return {"conversationId": 1, "done": True, "payload": answer}


@command("connectionStatus", "showPrivileges:bool", needs_login=False)
async def connection_status(call: Call) -> Reply:
    user = call.connection.user
    known = None if user is None else call.member.known(user)
    roles = [] if known is None else call.deployment.accounts.inherited(known[0].roles)
    info: Reply = {
        "authenticatedUsers": [] if user is None else [user.document()],
        "authenticatedUserRoles": [role.document() for role in roles],
    }
    if call.get("showPrivileges"):
        info["authenticatedUserPrivileges"] = [p.document() for p in merged(call.connection.privileges)]
    return {"authInfo": info}


@command("ping", needs_login=False)
async def ping(call: Call) -> Reply:
    return {}


@command("buildInfo", needs_login=False)
async def build_info(call: Call) -> Reply:
    return {
        "version": VERSION,
        "gitVersion": "stand-in",
        "modules": [],
        "versionArray": [*map(int, VERSION.split(".")), 0],
        "bits": 64,
        "debug": False,
        "maxBsonObjectSize": 16777216,
        "storageEngines": ["wiredTiger"],
    }
