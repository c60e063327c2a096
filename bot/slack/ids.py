"""Identifiers of all actions, blocks and forms. They are stored in Slack messages, so their values must not change.

A button's value is ``42.<key>`` and nothing more.
"""

from __future__ import annotations

APPROVE = "approve"
DENY = "deny"
REVOKE = "revoke"
DONE = "done"
EXTEND = "extend"
SIGN_OFF = "sign_off"
CANCEL = "cancel"
SHOW_PASSWORD = "show_password"  # noqa: S105 - the name of a button
NEW_PASSWORD = "new_password"  # noqa: S105 - the name of a button
REQUEST_AGAIN = "ask_again"

REQUEST_FORM = "ask_form"
DENY_FORM = "deny_form"
EXTEND_FORM = "extend_form"

DATABASE = "database"
LEVEL = "level"
DURATION = "duration"
WHY = "why"
TICKET = "ticket"
VALUE = "value"
