"""The columns that each transition writes, besides ``state`` and ``version``. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeAlias

from storage.commands import (
    ActivateGrant,
    ApplyExtension,
    ApproveRequest,
    ConfirmRevocation,
    EndCommand,
    ExtendGrant,
    RetryProvision,
    StartGrant,
)
from storage.records import Cause, Json, Request
from storage.transitions import moved_end

Columns: TypeAlias = Mapping[str, Any]


def server_of(target: Json) -> str:
    """The server of a frozen target: engine and reference of the admin URL. All its databases share it; no secret is read."""
    return f"{target['engine']} {target['admin_url']}"


def approval(before: Request, command: ApproveRequest, now: datetime) -> Columns:
    """The columns that the last approval freezes."""
    shorter = command.decision.duration if command.decision else None
    return {
        "username": command.username,
        "target": dict(command.target),
        "server": server_of(command.target),
        "approved_at": now,
        "duration": shorter or before.terms.duration,
        "start_before": now + before.terms.provision_within,
    }


def applied_extension(before: Request, command: ApplyExtension, now: datetime) -> Columns:
    """An applied extension is over at once. Its grant goes on."""
    shorter = command.decision.duration if command.decision else None
    return {
        "approved_at": now,
        "duration": shorter or before.terms.duration,
        "ended_because": Cause.APPLIED,
        "ended_by": command.actor,
        "ended_at": now,
    }


def moved_expiry(before: Request, command: ExtendGrant, _now: datetime) -> Columns:
    return {"expires_at": moved_end(before, command.by)}


def start(before: Request, command: StartGrant, now: datetime) -> Columns:
    """The expiry is written once, here."""
    return {
        "identity": command.identity,
        "level_state": command.level_state,
        "unsettled_until": command.unsettled_until,
        "started_at": now,
        "expires_at": now + before.effective_duration,
    }


def unsettled(_before: Request, command: RetryProvision, _now: datetime) -> Columns:
    return {"unsettled_until": command.unsettled_until}


def activation(_before: Request, command: ActivateGrant, now: datetime) -> Columns:
    return {"activated_at": now, "unsettled_until": command.unsettled_until}


def claim(before: Request, _command: object, now: datetime) -> Columns:
    """Only the first time counts."""
    return {"claimed_at": before.claimed_at or now}


def review(_before: Request, _command: object, now: datetime) -> Columns:
    return {"reviewed_at": now}


def cause(_before: Request, command: EndCommand, _now: datetime) -> Columns:
    """The reason for the end, and the person or part of the bot that ended it."""
    return {"ended_because": command.cause, "ended_by": command.actor, "ended_note": command.note}


def end(_before: Request, _command: object, now: datetime) -> Columns:
    return {"ended_at": now}


def receipt(_before: Request, command: ConfirmRevocation, _now: datetime) -> Columns:
    return {"receipt": command.receipt}
