"""One command per transition: what its caller must provide. Pure.

A command has no state, time or version: ``lifecycle.TRANSITIONS`` defines them. ``Ledger.advance`` takes a command and makes its
transition.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import ClassVar

from storage.records import Cause, Decision, Json, Receipt
from storage.transitions import Transition


@dataclass(frozen=True, kw_only=True)
class Command:
    """The actor of a transition, and its part of the audit event.

    ``actor`` is a Slack user id, ``cli:<name>``, or a part of the bot (``bot``, ``clock``, ``policy``, ``directory``, ``lockdown``).
    ``facts`` and ``text`` go into the audit event; ``text`` holds personal data and is stored apart from it.
    ``configuration`` is the digest of the configuration that the command was authorized under; None where none was needed.
    """

    transition: ClassVar[Transition]
    actor: str
    facts: Json = field(default_factory=dict)
    text: str | None = None
    configuration: str | None = None


@dataclass(frozen=True, kw_only=True)
class SubmitRequest(Command):
    """A new request. ``Ledger.submit`` makes this command itself, from the draft of the request."""

    transition = Transition.REQUEST


# Decisions.


@dataclass(frozen=True, kw_only=True)
class DecisionCommand(Command):
    """A command with one person's decision. ``decision`` is None if the policy decides alone."""

    decision: Decision | None = None


@dataclass(frozen=True, kw_only=True)
class ApproveStage(DecisionCommand):
    """An approval after which more approvals are needed."""

    transition = Transition.APPROVE_STAGE
    decision: Decision


@dataclass(frozen=True, kw_only=True)
class ApproveRequest(DecisionCommand):
    """The last approval. It freezes ``username`` and ``target`` (an ``adapters.base.Target`` as JSON)."""

    transition = Transition.APPROVE
    username: str
    target: Json


@dataclass(frozen=True, kw_only=True)
class ApplyExtension(DecisionCommand):
    """The last approval of an extension."""

    transition = Transition.APPLY_EXTENSION


@dataclass(frozen=True, kw_only=True)
class ExtendGrant(Command):
    """The cascade of APPLY_EXTENSION on the grant: it ends ``by`` later."""

    transition = Transition.EXTEND
    by: timedelta


@dataclass(frozen=True, kw_only=True)
class SignOff(DecisionCommand):
    """A reviewer signs off a break-glass grant."""

    transition = Transition.SIGN_OFF
    decision: Decision


@dataclass(frozen=True, kw_only=True)
class Escalate(Command):
    """From now on, the people of the escalation may decide as well."""

    transition = Transition.ESCALATE


# Ends of a request or grant: ``cause`` becomes ``ended_because``, ``note`` becomes ``ended_note``.


@dataclass(frozen=True, kw_only=True)
class EndCommand(DecisionCommand):
    """A command that ends something."""

    cause: Cause
    note: str | None = None


@dataclass(frozen=True, kw_only=True)
class DenyRequest(EndCommand):
    """``decision`` is None if the bot denies: nobody could be notified of a break-glass request."""

    transition = Transition.DENY
    cause: Cause = Cause.DENIED


@dataclass(frozen=True, kw_only=True)
class CancelRequest(EndCommand):
    """The requester withdraws the request."""

    transition = Transition.CANCEL
    cause: Cause = Cause.CANCELLED


@dataclass(frozen=True, kw_only=True)
class TimeOutRequest(EndCommand):
    """The time to decide is over, or the grant to be extended has ended."""

    transition = Transition.TIME_OUT
    cause: Cause = Cause.LAPSED


@dataclass(frozen=True, kw_only=True)
class OutdateRequest(EndCommand):
    """The policy changed, or the requester left the workspace."""

    transition = Transition.OUTDATE
    cause: Cause = Cause.OUTDATED


@dataclass(frozen=True, kw_only=True)
class FailGrant(EndCommand):
    """Provisioning cannot succeed."""

    transition = Transition.FAIL
    cause: Cause = Cause.FAILED


@dataclass(frozen=True, kw_only=True)
class RevokeGrant(EndCommand):
    """The end of a grant begins. The clock, a person or the bot ends it."""

    transition = Transition.REVOKE


@dataclass(frozen=True, kw_only=True)
class ConfirmRevocation(Command):
    """The end is complete. ``receipt`` says what proves it."""

    transition = Transition.CONFIRM
    receipt: Receipt


# Provisioning and the life of a grant.


@dataclass(frozen=True, kw_only=True)
class StartGrant(Command):
    """``identity`` is the server's own id, ``level_state`` the state of the level as JSON text. Until ``unsettled_until``, a create whose answer was lost may still arrive.

    ``requester_is_member`` was looked up just before. A failed lookup counts as False.
    """

    transition = Transition.START
    identity: str
    level_state: str | None = None
    unsettled_until: datetime
    requester_is_member: bool


@dataclass(frozen=True, kw_only=True)
class RetryProvision(Command):
    """The user is created again. ``unsettled_until`` is as in ``StartGrant``."""

    transition = Transition.RETRY_PROVISION
    unsettled_until: datetime


@dataclass(frozen=True, kw_only=True)
class ActivateGrant(Command):
    """The user exists and the credentials are delivered. ``unsettled_until``: until then, an earlier create whose answer was lost may still arrive."""

    transition = Transition.ACTIVATE

    unsettled_until: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class RenewPassword(Command):
    """A new password was set and put into the credential message."""

    transition = Transition.RENEW_PASSWORD


@dataclass(frozen=True, kw_only=True)
class ShowPassword(Command):
    """A new password was set and is about to be shown once."""

    transition = Transition.SHOW_PASSWORD


@dataclass(frozen=True, kw_only=True)
class Repair(Command):
    """The server was brought in line with the request after a lost claim."""

    transition = Transition.REPAIR
