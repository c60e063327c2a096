"""The table of all refusals: code, name and text as the real server has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

NAMES = {
    2: "BadValue",
    4: "NoSuchKey",
    9: "FailedToParse",
    11: "UserNotFound",
    13: "Unauthorized",
    14: "TypeMismatch",
    17: "ProtocolError",
    18: "AuthenticationFailed",
    31: "RoleNotFound",
    43: "CursorNotFound",
    49: "InvalidRoleModification",
    59: "CommandNotFound",
    64: "WriteConcernFailed",
    70: "ShardNotFound",
    72: "InvalidOptions",
    73: "InvalidNamespace",
    279: "ClientDisconnect",
    334: "MechanismUnavailable",
    10107: "NotWritablePrimary",
    11601: "Interrupted",
    13435: "NotPrimaryNoSecondaryOk",
}


class Failure(Exception):
    """A command that is refused."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text

    def reply(self) -> dict[str, Any]:
        name = NAMES.get(self.code, f"Location{self.code}")
        return {"ok": 0.0, "errmsg": self.text, "code": self.code, "codeName": name}


@dataclass(frozen=True)
class Refusal:
    """One row of the table."""

    code: int
    text: str

    def failure(self, **parts: object) -> Failure:
        """The exception to raise, with the parts of its text filled in."""
        return Failure(self.code, self.text.format(**parts))


# Any command.
NO_SUCH_COMMAND = Refusal(59, "no such command: '{name}'")
UNKNOWN_FIELD = Refusal(40415, "BSON field '{command}.{field}' is an unknown field.")
MISSING_FIELD = Refusal(40414, "BSON field '{command}.{field}' is missing but a required field")
WRONG_TYPE = Refusal(14, "BSON field '{command}.{field}' is the wrong type '{found}', expected type '{expected}'")
NEEDS_LOGIN = Refusal(13, "Command {name} requires authentication")
NOT_AUTHORIZED = Refusal(13, "not authorized on {db} to execute command {command}")
ADMIN_ONLY = Refusal(13, "{name} may only be run against the admin database.")
NO_WRITE_CONCERN = Refusal(72, "Command {name} does not support writeConcern")
NO_DB_IN_MESSAGE = Refusal(40571, "OP_MSG requests require a $db argument")
INVALID_DATABASE = Refusal(73, "Invalid database name: '{db}'")
INVALID_NAMESPACE = Refusal(73, "Invalid namespace specified '{ns}'")
NOT_PRIMARY = Refusal(10107, "not primary")
NOT_PRIMARY_NO_SECONDARY_OK = Refusal(13435, "not primary and secondaryOk=false")
INTERRUPTED = Refusal(11601, "operation was interrupted")
DISCONNECTED = Refusal(279, "client has disconnected")
NOT_MODELLED = Refusal(2, "the stand-in does not know {what}")

# Login.
LOGIN_FAILED = Refusal(18, "Authentication failed.")
NO_CONVERSATION = Refusal(17, "No SASL session state found")
NO_SUCH_MECHANISM = Refusal(334, "Received authentication for mechanism {mechanism} which is not enabled")
NO_DOT = Refusal(2, "UserName must contain a '.' separated database.user pair")

# Users.
USER_EXISTS = Refusal(51003, 'User "{user}" already exists')
NO_USER_TO_UPDATE = Refusal(11, "User {user} not found")
NO_USER_TO_DROP = Refusal(11, "User '{user}' not found")
NO_PASSWORD = Refusal(
    2,
    "Must provide a 'pwd' field for all user documents, except those with '$external' as the user's source db",
)
NOTHING_TO_UPDATE = Refusal(2, "Must specify at least one field to update in updateUser")
NOT_A_USER_NAME = Refusal(2, "UserName must be either a string or an object")
USER_NAME_LACKS = Refusal(2, "UserName must contain a field named: {field}")
NOT_A_ROLE_NAME = Refusal(2, "Role names must be either strings or objects with role and db")

# Roles.
NO_ROLE = Refusal(31, "Could not find role: {role}")
NO_ROLES = Refusal(31, "Could not find roles: {role}")
ROLE_EXISTS = Refusal(51002, 'Role "{role}" already exists')
UNKNOWN_ACTION = Refusal(2, "Unknown action type in privilege set: '{action}'")
BAD_PRIVILEGE = Refusal(2, "Failed to parse privilege: {what}")
FOREIGN_ROLE = Refusal(49, "Roles on the '{db}' database cannot be granted roles from other databases")
FOREIGN_PRIVILEGE = Refusal(
    49, "Roles on the '{db}' database cannot be granted privileges that target other databases or the cluster"
)
NO_PRIVILEGES_GIVEN = Refusal(2, "Must specify a non-empty list of privileges")

# Operations and cursors.
NO_CURSOR = Refusal(43, "cursor id {id} not found")
NO_CURSOR_OPTION = Refusal(9, "The 'cursor' option is required, except for aggregate with the explain argument")
UNKNOWN_STAGE = Refusal(40324, "Unrecognized pipeline stage name: '{stage}'")
UNKNOWN_CURRENT_OP = Refusal(9, "Unrecognized option '{field}' in $currentOp stage.")
CURRENT_OP_PLACE = Refusal(73, "$currentOp must be run against the 'admin' database with {{aggregate: 1}}")
NO_OP = Refusal(4, 'Missing expected field "op"')
OP_TYPE = Refusal(14, 'Expected field "op" to have numeric type, but found {found}')
OP_FORM = Refusal(28625, 'The op argument to killOp must be of the format shardid:opid but found "{op}"')
NO_SHARD = Refusal(70, "Shard {shard} not found")
