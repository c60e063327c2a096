"""Cases 1 to 8: the handshake and the login."""

from __future__ import annotations

from datetime import datetime

from tests.contract.mongodb_wire.harness import APP, READ, USERS, WireHarness, case, expect_refused
from tests.contract.mongodb_wire.raw import ScramClient

HELLO = [
    "isWritablePrimary",
    "maxBsonObjectSize",
    "maxMessageSizeBytes",
    "maxWriteBatchSize",
    "localTime",
    "logicalSessionTimeoutMinutes",
    "connectionId",
    "minWireVersion",
    "maxWireVersion",
    "readOnly",
    "ok",
]


@case(1)
def hello_has_its_fields_in_order(harness: WireHarness) -> None:
    reply = harness.stranger().admin.command("hello")
    assert [name for name in reply if name != "topologyVersion"] == HELLO
    assert reply["ok"] == 1.0
    assert isinstance(reply["ok"], float)
    assert isinstance(reply["localTime"], datetime)
    limits = (reply["maxBsonObjectSize"], reply["maxMessageSizeBytes"], reply["maxWriteBatchSize"])
    assert limits == (16777216, 48000000, 100000)


@case(2)
def hello_has_no_mechanisms_of_an_unknown_user(harness: WireHarness) -> None:
    stranger, user = harness.stranger(), harness.user()
    assert "saslSupportedMechs" not in stranger.admin.command("hello", saslSupportedMechs="db.nobody")
    known = stranger.admin.command("hello", saslSupportedMechs=f"{USERS}.{user.name}")
    assert known["saslSupportedMechs"] == ["SCRAM-SHA-256"]
    with expect_refused(2, "UserName must contain a '.' separated database.user pair"):
        stranger.admin.command("hello", saslSupportedMechs="nodot")


def _start(scram: ScramClient) -> dict[str, object]:
    return {
        "saslStart": 1,
        "mechanism": "SCRAM-SHA-256",
        "payload": scram.first,
        "options": {"skipEmptyExchange": True},
    }


@case(3)
def hello_begins_a_login(harness: WireHarness) -> None:
    user, stranger = harness.user(), harness.stranger()
    scram = ScramClient(*user)
    start = {**_start(scram), "db": USERS}
    reply = stranger.admin.command("hello", speculativeAuthenticate=start)
    begun = reply.get("speculativeAuthenticate", {})
    assert (begun.get("conversationId"), begun.get("done")) == (1, False)
    done = stranger[USERS].command("saslContinue", 1, conversationId=1, payload=scram.final(begun["payload"]))
    assert (done["conversationId"], done["done"], done["payload"]) == (1, True, scram.verifier)
    assert stranger[APP].things.find_one() is not None


@case(5)
def invalid_proof_ends_the_conversation(harness: WireHarness) -> None:
    user, stranger = harness.user(), harness.stranger()
    stranger[USERS].command(_start(ScramClient(*user)))
    with expect_refused(18, "Authentication failed."):
        stranger[USERS].command("saslContinue", 1, conversationId=1, payload=b"invalid")
    with expect_refused(17, "No SASL session state found"):
        stranger[USERS].command("saslContinue", 1, conversationId=1, payload=b"invalid")


@case(6)
def unknown_user_fails_at_the_start(harness: WireHarness) -> None:
    user, stranger = harness.user(), harness.stranger()
    with expect_refused(18, "Authentication failed."):
        stranger[USERS].command(_start(ScramClient("nobody", "x")))
    with expect_refused(18, "Authentication failed."):
        stranger[APP].command(_start(ScramClient(*user)))
    with expect_refused(334, "Received authentication for mechanism SCRAM-MD4 which is not enabled"):
        stranger[USERS].command("saslStart", 1, mechanism="SCRAM-MD4", payload=b"n,,n=x,r=y", options={})


@case(7)
def find_needs_a_login(harness: WireHarness) -> None:
    with expect_refused(13, "Command find requires authentication"):
        harness.stranger()[APP].things.find_one()
    with expect_refused(13, "Command find requires authentication"):
        harness.raw().command(APP, find="things")


@case(8)
def connection_status_names_the_user(harness: WireHarness) -> None:
    without_login = harness.stranger().admin.command("connectionStatus")["authInfo"]
    assert without_login["authenticatedUsers"] == []
    assert without_login["authenticatedUserRoles"] == []
    user = harness.user()
    found = harness.client(user).admin.command("connectionStatus", showPrivileges=True)["authInfo"]
    assert found["authenticatedUsers"] == [user.document]
    assert found["authenticatedUserRoles"] == [READ]
    resource = {"db": APP, "collection": ""}
    privileges = found.get("authenticatedUserPrivileges", [])
    assert [one for one in privileges if one["resource"] == resource and "find" in one["actions"]]
