"""policy.yml: who may have what. The whole schema; ``LATER`` names the keys whose behaviour comes later and that are refused until then."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainValidator

from bot.databases import Duration, Strict, as_text

PERSON = re.compile(r"[UW][A-Z0-9]{2,}", re.ASCII)
GROUP = re.compile(r"S[A-Z0-9]{2,}|@[a-z0-9][a-z0-9._-]*", re.ASCII)
CHANNEL = re.compile(r"[CG][A-Z0-9]{2,}", re.ASCII)
EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
PATTERN = re.compile(r"[a-z0-9_*?\[\]!-]+", re.ASCII)
ANYONE = "anyone"


def _who(value: str) -> str:
    if not (PERSON.fullmatch(value) or GROUP.fullmatch(value) or EMAIL.fullmatch(value)):
        raise ValueError("people are Slack ids (U…, W…) or e-mail addresses, groups S… ids or @handles")
    return value


def _asker(value: str) -> str:
    return value if value == ANYONE else _who(value)


def _channel(value: str) -> str:
    if not CHANNEL.fullmatch(value):
        raise ValueError("a channel is named by its Slack id (C…); in Slack: channel details, at the bottom")
    return value


def _wanted(value: object) -> str | dict[str, str]:
    """Both forms in one place, so that a mistake is told once. No labels at all would mean every database."""
    if isinstance(value, str) and PATTERN.fullmatch(value):
        return value
    if isinstance(value, dict) and value and not any(isinstance(v, dict | list | None) for v in value.values()):
        return {str(label): str(as_text(v)) for label, v in value.items()}
    raise ValueError("databases are meant by a name, a pattern such as orders-*, or labels such as {env: prod}")


def _one_line(value: str) -> str:
    if not value.isprintable() or not value.strip():
        raise ValueError("a name is one line of text that can be printed")
    return value


Who = Annotated[str, AfterValidator(_who)]
Asker = Annotated[str, AfterValidator(_asker)]
Channel = Annotated[str, AfterValidator(_channel)]
Wanted = Annotated[str | dict[str, str], PlainValidator(_wanted)]
Count = Annotated[int, Field(ge=1, strict=True)]


class Hours(Strict):
    days: str | list[str]
    start: str = Field(alias="from")
    to: str
    tz: str


class StageEntry(Strict):
    approvers: list[Who] = Field(alias="from", min_length=1)
    count: Count = 1


class Escalate(Strict):
    after: Duration
    to: list[Who] = Field(min_length=1)


class Automatic(Strict):
    per_person_per_day: Count


class Review(Strict):
    approvers: list[Who] = Field(alias="from", min_length=1)
    within: Duration


class Limits(Strict):
    live_per_person: Count | None = None
    live_per_database: Count | None = None
    waiting_per_person: Count | None = None


class Shared(Strict):
    """What may stand in ``defaults`` and in each rule."""

    channel: Channel | None = None
    duration: Duration | None = None
    max_duration: Duration | None = None
    max_total: Duration | None = None
    min_reason: Annotated[int, Field(ge=1, le=1000, strict=True)] | None = None
    request_ttl: Duration | None = None
    provision_within: Duration | None = None
    delivery: Literal["dm", "reveal"] | None = None
    claim_within: Duration | None = None
    remind_after: Duration | None = None


class RuleEntry(Shared):
    name: Annotated[str, AfterValidator(_one_line)] = Field(min_length=1, max_length=100)
    requesters: list[Asker] = Field(min_length=1)
    databases: list[Wanted] = Field(min_length=1)
    levels: list[str] = Field(min_length=1)
    approvals: list[StageEntry] | None = None
    ticket: str | None = None
    hours: Hours | None = None
    deciding_hours: Hours | None = None
    escalate: Escalate | None = None
    automatic: Automatic | None = None
    notify: list[str] | None = None
    otherwise: Literal["next"] | None = None
    refuse: str | None = None
    break_glass: bool | None = None
    review: Review | None = None


class PolicyFile(Strict):
    admins: list[Who] = []
    auditors: list[Who] = []
    audit_channel: Channel | None = None
    alert_channel: Channel | None = None
    ticket_url: str | None = None
    limits: Limits | None = None
    defaults: Shared = Shared()
    rules: list[RuleEntry]
    tests: list[dict[str, Any]] | None = None
    groups_in_tests: dict[str, list[str]] | None = None


LATER = {
    "policy": ("auditors", "ticket_url", "limits", "tests", "groups_in_tests"),
    "defaults": ("max_total", "claim_within", "remind_after"),
    "rule": (
        "max_total", "claim_within", "remind_after", "ticket", "hours", "deciding_hours", "escalate",
        "automatic", "notify", "otherwise", "refuse", "break_glass", "review",
    ),
}  # fmt: skip
"""Known, checked, and refused until their behaviour is there: a promise of the policy is never silently ignored."""
