"""One command per transition: what its caller must bring. Pure.

State, times and version are not here: the table writes them. ``Ledger.advance`` takes a command and makes its transition.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import ClassVar

from storage.records import Cause, Decision, Json, Receipt
from storage.transitions import Transition


@dataclass(frozen=True, kw_only=True)
class Command:
    """``actor`` is a Slack user id, ``cli:<name>``, or a part of the bot (``bot``, ``clock``, ``policy``, ``directory``, ``lockdown``).

    ``facts`` and ``text`` go into the audit event; ``text`` holds personal data and is stored apart from it.
    """

    transition: ClassVar[Transition]
    actor: str
    facts: Json = field(default_factory=dict)
    text: str | None = None


@dataclass(frozen=True, kw_only=True)
class SubmitRequest(Command):
    """Brought by ``Ledger.submit`` with the draft of the request."""

    transition = Transition.REQUEST


# Decisions.


@dataclass(frozen=True, kw_only=True)
class DecisionCommand(Command):
    """A command that carries one person's decision; None where the policy decides alone."""

    decision: Decision | None = None


@dataclass(frozen=True, kw_only=True)
class ApproveStage(DecisionCommand):
    """An approval after which more approvals are needed."""

    transition = Transition.APPROVE_STAGE
    decision: Decision


@dataclass(frozen=True, kw_only=True)
class ApproveRequest(DecisionCommand):
    """The last approval. ``username`` and ``target`` (a ``adapters.base.Target`` as JSON) are frozen with it."""

    transition = Transition.APPROVE
    username: str
    target: Json


@dataclass(frozen=True, kw_only=True)
class ApplyExtension(DecisionCommand):
    """The last approval of an extension."""

    transition = Transition.APPLY_EXTENSION


@dataclass(frozen=True, kw_only=True)
class ExtendGrant(Command):
    """The cascade of APPLY_EXTENSION: the grant ends ``by`` later."""

    transition = Transition.EXTEND
    by: timedelta


@dataclass(frozen=True, kw_only=True)
class SignOff(DecisionCommand):
    """A reviewer signs off a break-glass grant."""

    transition = Transition.SIGN_OFF
    decision: Decision


@dataclass(frozen=True, kw_only=True)
class Escalate(Command):
    """The approvers of the escalation may decide from now on."""

    transition = Transition.ESCALATE


# Ends of a request or grant: ``cause`` becomes ``ended_because``, ``note`` becomes ``ended_note``.


@dataclass(frozen=True, kw_only=True)
class EndCommand(DecisionCommand):
    """A command that ends something."""

    cause: Cause
    note: str | None = None


@dataclass(frozen=True, kw_only=True)
class DenyRequest(EndCommand):
    """``decision`` is None where the bot denies: nobody could be told of a break-glass request."""

    transition = Transition.DENY
    cause: Cause = Cause.DENIED


@dataclass(frozen=True, kw_only=True)
class CancelRequest(EndCommand):
    """The requester withdraws the request."""

    transition = Transition.CANCEL
    cause: Cause = Cause.CANCELLED


@dataclass(frozen=True, kw_only=True)
class TimeOutRequest(EndCommand):
    """Nobody decided in time, or the grant to be extended has ended."""

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
    """The end begins: by the clock, a person, or the bot."""

    transition = Transition.REVOKE


@dataclass(frozen=True, kw_only=True)
class ConfirmRevocation(Command):
    """The end is complete; ``receipt`` says what proves it."""

    transition = Transition.CONFIRM
    receipt: Receipt


# Provisioning and the life of a grant.


@dataclass(frozen=True, kw_only=True)
class StartGrant(Command):
    """``identity`` is what the server says of itself. Until ``unsettled_until`` a create whose answer was lost may still land.

    ``requester_is_member`` was looked up just before; a failed lookup counts as no.
    """

    transition = Transition.START
    identity: str
    unsettled_until: datetime
    requester_is_member: bool


@dataclass(frozen=True, kw_only=True)
class RetryProvision(Command):
    """The user is created again; ``unsettled_until`` as in ``StartGrant``."""

    transition = Transition.RETRY_PROVISION
    unsettled_until: datetime


@dataclass(frozen=True, kw_only=True)
class ActivateGrant(Command):
    """The user exists and the credentials are delivered."""

    transition = Transition.ACTIVATE


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
    """What a lost claim may have left on the server was put right."""

    transition = Transition.REPAIR
