"""Everything the stand-in refuses, in one table: code, name and text as the real server has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

NAMES = {
    2: "BadValue",
    8000: "AtlasError",
    4: "NoSuchKey",
    9: "FailedToParse",
    11: "UserNotFound",
    12: "UnsupportedFormat",
    13: "Unauthorized",
    14: "TypeMismatch",
    17: "ProtocolError",
    18: "AuthenticationFailed",
    20: "IllegalOperation",
    26: "NamespaceNotFound",
    31: "RoleNotFound",
    43: "CursorNotFound",
    48: "NamespaceExists",
    49: "InvalidRoleModification",
    50: "MaxTimeMSExpired",
    59: "CommandNotFound",
    64: "WriteConcernFailed",
    70: "ShardNotFound",
    72: "InvalidOptions",
    73: "InvalidNamespace",
    76: "NoReplicationEnabled",
    85: "IndexOptionsConflict",
    91: "ShutdownInProgress",
    100: "UnsatisfiableWriteConcern",
    94: "NotYetInitialized",
    125: "CommandFailed",
    225: "TransactionTooOld",
    251: "NoSuchTransaction",
    263: "OperationNotSupportedInTransaction",
    279: "ClientDisconnect",
    323: "APIStrictError",
    334: "MechanismUnavailable",
    10107: "NotWritablePrimary",
    11000: "DuplicateKey",
    11601: "Interrupted",
    13435: "NotPrimaryNoSecondaryOk",
    51002: "Location51002",
    51003: "Location51003",
}


def name_of(code: int) -> str:
    return NAMES.get(code, f"Location{code}")


class Failure(Exception):
    """A command that is refused."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text

    def reply(self) -> dict[str, Any]:
        return {"ok": 0.0, "errmsg": self.text, "code": self.code, "codeName": name_of(self.code)}


@dataclass(frozen=True)
class Refusal:
    """One row of the table."""

    code: int
    text: str

    def failure(self, **parts: object) -> Failure:
        """What to raise, with the parts of its text filled in."""
        return Failure(self.code, self.text.format(**parts))


# Of any command.
NO_SUCH_COMMAND = Refusal(59, "no such command: '{name}'")
UNKNOWN_FIELD = Refusal(40415, "BSON field '{command}.{field}' is an unknown field.")
MISSING_FIELD = Refusal(40414, "BSON field '{command}.{field}' is missing but a required field")
WRONG_TYPE = Refusal(14, "BSON field '{command}.{field}' is the wrong type '{found}', expected type '{expected}'")
NEEDS_LOGIN = Refusal(13, "Command {name} requires authentication")
NOT_AUTHORIZED = Refusal(13, "not authorized on {db} to execute command {command}")
ADMIN_ONLY = Refusal(13, "{name} may only be run against the admin database.")
NO_WRITE_CONCERN = Refusal(72, "Command {name} does not support writeConcern")
NO_DB_IN_QUERY = Refusal(40621, "$db is not allowed in OP_QUERY requests")
NO_DB_IN_MESSAGE = Refusal(40571, "OP_MSG requests require a $db argument")
INVALID_DATABASE = Refusal(73, "Invalid database name: '{db}'")
NOT_PRIMARY = Refusal(10107, "not primary")
NOT_PRIMARY_NO_SECONDARY_OK = Refusal(13435, "not primary and secondaryOk=false")
INTERRUPTED = Refusal(11601, "operation was interrupted")
TOO_LONG = Refusal(50, "operation exceeded time limit")
DISCONNECTED = Refusal(279, "client has disconnected")
NOT_KNOWN_HERE = Refusal(2, "the stand-in does not know {what}")

ATLAS = Refusal(8000, "{name} is not allowed in this atlas tier")

NOT_REPLICATED = Refusal(2, "cannot use 'w' > 1 when a host is not replicated")
API_STRICT = Refusal(323, "Provided apiStrict:true, but the command {name} is not in API Version 1")

# Logging in.
LOGIN_FAILED = Refusal(18, "Authentication failed.")
NO_CONVERSATION = Refusal(17, "No SASL session state found")
OTHER_CONVERSATION = Refusal(17, "sasl: Mismatched conversation id")
NO_SUCH_MECHANISM = Refusal(334, "Received authentication for mechanism {mechanism} which is not enabled")
SECOND_LOGIN = Refusal(
    5626701, "Each client connection may only be authenticated once. Previously authenticated as: {user}"
)
NO_DOT = Refusal(2, "UserName must contain a '.' separated database.user pair")
SECOND_CLIENT = Refusal(186, "The client metadata document may only be sent in the first hello")

# Users.
USER_EXISTS = Refusal(51003, 'User "{user}" already exists')
NO_USER_TO_UPDATE = Refusal(11, "User {user} not found")
NO_USER_TO_DROP = Refusal(11, "User '{user}' not found")
NO_USER_TO_GRANT = Refusal(11, 'Could not find user "{name}" for db "{db}"')
NO_PASSWORD = Refusal(
    2,
    "Must provide a 'pwd' field for all user documents, except those with '$external' as the user's source db",
)
NO_NAME = Refusal(2, "User document needs 'user' field to be non-empty")
NO_MECHANISM = Refusal(2, "mechanisms field must not be empty")
UNKNOWN_MECHANISM = Refusal(2, "Unknown auth mechanism '{mechanism}'")
MECHANISM_NOT_STORED = Refusal(2, "mechanisms field must be a subset of previously set mechanisms")
DIGESTED = Refusal(2, "Use of SCRAM-SHA-256 requires undigested passwords")
LOCAL_DATABASE = Refusal(2, "Cannot create users in the local database")
NOTHING_TO_UPDATE = Refusal(2, "Must specify at least one field to update in updateUser")
EMPTY_PASSWORD = Refusal(50687, "Error preflighting UTF-8 conversion: U_STRING_NOT_TERMINATED_WARNING")
PROHIBITED_PASSWORD = Refusal(50692, "Error preflighting normalization: U_STRINGPREP_PROHIBITED_ERROR")
BAD_RESTRICTION = Refusal(2, "authenticationRestrictions: {what}")
NULL_RESTRICTIONS = Refusal(14, "authenticationRestrictions field must be an array")
NOT_A_USER_NAME = Refusal(2, "UserName must be either a string or an object")
USER_NAME_LACKS = Refusal(2, "UserName must contain a field named: {field}")
NO_USERS_ASKED = Refusal(2, "$and/$or/$nor must be a nonempty array")
NOT_EXACT = Refusal(20, "Privilege or restriction details require exact-match usersInfo queries.")

# Roles.
NO_ROLE = Refusal(31, "Could not find role: {role}")
NO_ROLES = Refusal(31, "Could not find roles: {role}")
NO_ROLE_TO_GRANT = Refusal(31, "Cannot grant roles to '{to}': Could not find role: {role}")
ROLE_EXISTS = Refusal(51002, 'Role "{role}" already exists')
ROLE_NEEDS_NAME = Refusal(2, "Role name must be non-empty")
BUILT_IN = Refusal(2, "{role} is a built-in role and cannot be modified")
BUILT_IN_NAME = Refusal(2, "Cannot create roles with the same name as a built-in role")
UNKNOWN_ACTION = Refusal(2, "Unknown action type in privilege set: '{action}'")
BAD_PRIVILEGE = Refusal(2, "Failed to parse privilege: {what}")
FOREIGN_ROLE = Refusal(49, "Roles on the '{db}' database cannot be granted roles from other databases")
FOREIGN_PRIVILEGE = Refusal(
    49, "Roles on the '{db}' database cannot be granted privileges that target other databases or the cluster"
)
NO_ROLES_GIVEN = Refusal(2, '"{command}" command requires a non-empty "roles" array')
NO_PRIVILEGES_GIVEN = Refusal(2, "Must specify a non-empty list of privileges")
ROLES_NULL = Refusal(10065, "invalid parameter: expected an object (roles)")

# Sessions, operations, cursors.
NO_CURSOR = Refusal(43, "cursor id {id} not found")
FOREIGN_CURSOR = Refusal(13, "cursor id {id} was not created by the authenticated user")
OTHER_SESSION = Refusal(
    13, "Cursor session id ({cursor}) is not the same as the operation context's session id ({operation})"
)
CURSOR_STRIPPED = Refusal(13, "not authorized for getMore with cursor id {id}")
NO_IMPERSONATING = Refusal(13, "Not authorized to impersonate in killAllSessionsByPattern")
UID_LENGTH = Refusal(12, "uid must be a 256-bit (32-byte) binary blob")
NO_OP = Refusal(4, 'Missing expected field "op"')
OP_TYPE = Refusal(14, 'Expected field "op" to have numeric type, but found {found}')
NO_OP_FOR_ROUTER = Refusal(50759, 'Did not provide "op" field')
OP_TYPE_OF_ROUTER = Refusal(50760, '"op" field was of unsupported type {found}')
OP_FORM = Refusal(28625, 'The op argument to killOp must be of the format shardid:opid but found "{op}"')
NO_SHARD = Refusal(70, "Shard {shard} not found")
OP_RANGE = Refusal(26823, "invalid op : {op}. Op ID cannot be represented with 32 bits")
UNKNOWN_CURRENT_OP = Refusal(9, "Unrecognized option '{field}' in $currentOp stage.")
CURRENT_OP_TYPE = Refusal(14, "$currentOp options must be specified in an object, but found: {found}")
_BOOLEAN = "The '{field}' parameter of the $currentOp stage must be a boolean value, but found: {found}"
CURRENT_OP_BOOLEAN = Refusal(9, _BOOLEAN)
CURRENT_OP_BOOLEAN_OF_RIGHTS = Refusal(14, _BOOLEAN)
CURRENT_OP_PLACE = Refusal(73, "$currentOp must be run against the 'admin' database with {{aggregate: 1}}")
NOT_IN_TRANSACTION = Refusal(125, "{name} must be run within a transaction")
NO_SUCH_TRANSACTION = Refusal(251, "Transaction with {{ txnNumber: {number} }} has been aborted.")
NO_TRANSACTIONS_HERE = Refusal(20, "Transaction numbers are only allowed on a replica set member or mongos")

# Documents.
DUPLICATE_KEY = Refusal(11000, "E11000 duplicate key error collection: {ns} index: _id_ dup key: {{ _id: {id} }}")
NO_NAMESPACE = Refusal(26, "ns not found")
COLLECTION_EXISTS = Refusal(48, "Collection {ns} already exists.")
UNKNOWN_OPERATOR = Refusal(2, "unknown operator: {operator}")
STAGE_TYPE = Refusal(14, "Each element of the 'pipeline' array must be an object")
STAGE_FIELDS = Refusal(40323, "A pipeline stage specification object must contain exactly one field.")
SORT_ORDER = Refusal(15975, "$sort key ordering must be 1 (for ascending) or -1 (for descending)")
NO_UPDATE = Refusal(9, "Either an update or remove=true must be specified")
UNKNOWN_STAGE = Refusal(40324, "Unrecognized pipeline stage name: '{stage}'")
UNKNOWN_MODIFIER = Refusal(
    9, "Unknown modifier: {operator}. Expected a valid update modifier or pipeline-style update specified as an array"
)
NO_CURSOR_OPTION = Refusal(9, "The 'cursor' option is required, except for aggregate with the explain argument")
NO_PARAMETER = Refusal(72, "no option found to get")
NOT_A_SET = Refusal(76, "not running with --replSet")
