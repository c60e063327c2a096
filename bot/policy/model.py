"""The schema of policy.yml: who may have which access. Each validator's message says what a correct value looks like."""

from __future__ import annotations

import re
from datetime import datetime, time, timedelta
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

import re2
from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, WithJsonSchema

from bot.databases import DURATION_SCHEMA, Duration, StrictModel, as_text
from bot.durations import parse_duration, parse_moment

PERSON = re.compile(r"[UW][A-Z0-9]{2,}", re.ASCII)
GROUP = re.compile(r"S[A-Z0-9]{2,}|@[a-z0-9][a-z0-9._-]*", re.ASCII)
CHANNEL = re.compile(r"[CG][A-Z0-9]{2,}", re.ASCII)
EMAIL = re.compile(r"[A-Za-z0-9._%+'-]+@[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+", re.ASCII)
PATTERN = re.compile(r"[a-z0-9_*?\[\]!-]+", re.ASCII)
ANYONE = "anyone"
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
RETENTION_SHORTEST, RETENTION_LONGEST = timedelta(days=7), timedelta(days=3660)
END_OF_DAY = "24:00"
CLOCK = re.compile(r"([01]\d|2[0-3]):[0-5]\d")
TICKET_PLACEHOLDER = "{ticket}"


def _person_or_group(value: str) -> str:
    if not (PERSON.fullmatch(value) or GROUP.fullmatch(value) or EMAIL.fullmatch(value)):
        raise ValueError("people are Slack ids (U…, W…) or e-mail addresses, groups S… ids or @handles")
    return value


def _requester(value: str) -> str:
    return value if value == ANYONE else _person_or_group(value)


def _channel(value: str) -> str:
    if not CHANNEL.fullmatch(value):
        raise ValueError("a channel is named by its Slack id (C…); in Slack: channel details, at the bottom")
    return value


def _database_selector(value: object) -> str | dict[str, str]:
    """Accept both forms in one validator, so that a mistake is reported once. An empty set of labels would select every database."""
    if isinstance(value, str) and PATTERN.fullmatch(value):
        return value
    if isinstance(value, dict) and value and not any(isinstance(v, dict | list | None) for v in value.values()):
        return {str(label): str(as_text(v)) for label, v in value.items()}
    raise ValueError("databases are selected by a name, a pattern such as orders-*, or labels such as {env: prod}")


def _notify_target(value: str) -> str:
    return value if CHANNEL.fullmatch(value) else _person_or_group(value)


def _days(value: object) -> tuple[int, ...]:
    """``mon-fri``, ``sat``, ``fri-mon`` (over the weekend), or a list of these → weekdays; Monday is 0."""
    parts = value if isinstance(value, list) else [value]
    found: set[int] = set()
    for part in parts:
        first, _, last = str(part).strip().lower().partition("-")
        if first not in DAYS or (last or first) not in DAYS:
            raise ValueError("days look like mon-fri, sat, or a list of such: mon tue wed thu fri sat sun")
        begin, span = DAYS.index(first), (DAYS.index(last or first) - DAYS.index(first)) % 7
        found.update((begin + n) % 7 for n in range(span + 1))
    if not found:
        raise ValueError("at least one day is needed, such as mon-fri")
    return tuple(sorted(found))


def _clock(value: object) -> time | None:
    """``08:00`` → a time of day; ``24:00`` → None, the end of the day."""
    if value == END_OF_DAY:
        return None
    if not isinstance(value, str) or not CLOCK.fullmatch(value):
        raise ValueError('a time of day looks like "08:00", in quotes')
    return time.fromisoformat(value)


def _start_of_hours(value: object) -> time:
    found = _clock(value)
    if found is None:
        raise ValueError('24:00 can only end a window; write "00:00"')
    return found


def _zone(value: object) -> str:
    try:
        ZoneInfo(str(value))
    except (ValueError, OSError, KeyError):
        raise ValueError("a time zone looks like Europe/Berlin or UTC") from None
    return str(value)


def _ticket_pattern(value: str) -> str:
    """Check a ticket pattern. RE2 matches in time linear to the length of the reason, so no reason can block the bot."""
    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(value, options)
    except re2.error:
        raise ValueError("a regular expression in RE2's syntax is needed, such as [A-Z]+-[0-9]+") from None
    if re2.search(value, ""):
        raise ValueError("it matches empty text, so every reason would do; write one such as [A-Z]+-[0-9]+")
    return value


def _ticket_url(value: str) -> str:
    if not value.startswith("https://") or TICKET_PLACEHOLDER not in value:
        raise ValueError("it looks like https://tickets.example.com/{ticket}")
    return value


def _retention(value: object) -> timedelta:
    if isinstance(value, timedelta):
        return value
    try:
        return parse_duration(str(value), shortest=RETENTION_SHORTEST, longest=RETENTION_LONGEST)
    except ValueError:
        raise ValueError("how long ended requests are kept, from 7d to 3660d, such as 400d") from None


def _moment(value: object) -> datetime:
    return parse_moment(str(value), needs_zone=True)


def _one_line(value: str) -> str:
    if not value.isprintable() or not value.strip():
        raise ValueError("a name is one line of text that can be printed")
    return value


def _pattern_schema(*patterns: re.Pattern[str]) -> WithJsonSchema:
    """JSON Schema for editors: the patterns a text may match."""
    return WithJsonSchema({"type": "string", "pattern": f"^({'|'.join(p.pattern for p in patterns)})$"})


SCALARS = {"type": ["string", "number", "boolean"]}
SELECTOR_SCHEMA = {
    "anyOf": [
        {"type": "string", "pattern": f"^{PATTERN.pattern}$"},
        {"type": "object", "minProperties": 1, "additionalProperties": SCALARS},
    ]
}
DAY_SCHEMA = {"type": "string", "pattern": f"^({'|'.join(DAYS)})(-({'|'.join(DAYS)}))?$"}
DAYS_SCHEMA = WithJsonSchema({"anyOf": [DAY_SCHEMA, {"type": "array", "minItems": 1, "items": DAY_SCHEMA}]})
END_CLOCK = re.compile(f"{CLOCK.pattern}|{END_OF_DAY}")

PersonOrGroup = Annotated[str, AfterValidator(_person_or_group), _pattern_schema(PERSON, GROUP, EMAIL)]
Requester = Annotated[str, AfterValidator(_requester), _pattern_schema(re.compile(ANYONE), PERSON, GROUP, EMAIL)]
Channel = Annotated[str, AfterValidator(_channel), _pattern_schema(CHANNEL)]
DatabaseSelector = Annotated[str | dict[str, str], PlainValidator(_database_selector), WithJsonSchema(SELECTOR_SCHEMA)]
Count = Annotated[int, Field(ge=1, strict=True)]
NotifyTarget = Annotated[str, AfterValidator(_notify_target), _pattern_schema(CHANNEL, PERSON, GROUP, EMAIL)]
Moment = Annotated[datetime, BeforeValidator(_moment), WithJsonSchema({"type": "string"})]


class HoursEntry(StrictModel):
    """A window of local time on some days. If ``to`` is before ``from``, the window runs past midnight and belongs to the day it begins on."""

    days: Annotated[tuple[int, ...], BeforeValidator(_days), DAYS_SCHEMA]
    start: Annotated[time, BeforeValidator(_start_of_hours), _pattern_schema(CLOCK)] = Field(alias="from")
    to: Annotated[time | None, BeforeValidator(_clock), _pattern_schema(END_CLOCK)]
    tz: Annotated[str, BeforeValidator(_zone)]

    def cover(self, at: datetime) -> bool:
        """Return whether the moment is in the window, by the local wall clock with daylight saving: a repeated hour counts twice."""
        local = at.astimezone(ZoneInfo(self.tz))
        now, today, yesterday = local.time(), local.weekday() in self.days, (local.weekday() - 1) % 7 in self.days
        if self.to is None:
            return today and now >= self.start
        if self.start < self.to:
            return today and self.start <= now < self.to
        return (today and now >= self.start) or (yesterday and now < self.to)

    def __str__(self) -> str:
        days = ", ".join(DAYS[number] for number in self.days)
        to = self.to.strftime("%H:%M") if self.to else END_OF_DAY
        return f"{days} {self.start.strftime('%H:%M')}-{to} {self.tz}"


class StageEntry(StrictModel):
    approvers: list[PersonOrGroup] = Field(alias="from", min_length=1)
    count: Count = 1


class EscalationEntry(StrictModel):
    after: Duration
    to: list[PersonOrGroup] = Field(min_length=1)


class AutomaticEntry(StrictModel):
    per_person_per_day: Count


class ReviewEntry(StrictModel):
    approvers: list[PersonOrGroup] = Field(alias="from", min_length=1)
    within: Duration


class LimitsEntry(StrictModel):
    live_per_person: Count | None = None
    live_per_database: Count | None = None
    waiting_per_person: Count | None = None


class DefaultsEntry(StrictModel):
    """The keys that ``defaults`` and each rule may set."""

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


class RuleEntry(DefaultsEntry):
    name: Annotated[str, AfterValidator(_one_line)] = Field(min_length=1, max_length=100)
    requesters: list[Requester] = Field(min_length=1)
    databases: list[DatabaseSelector] = Field(min_length=1)
    levels: list[str] = Field(min_length=1)
    approvals: list[StageEntry] | None = None
    ticket: Annotated[str, AfterValidator(_ticket_pattern)] | None = None
    hours: HoursEntry | None = None
    deciding_hours: HoursEntry | None = None
    escalate: EscalationEntry | None = None
    automatic: AutomaticEntry | None = None
    notify: list[NotifyTarget] | None = None
    otherwise: Literal["next"] | None = None
    refuse: Annotated[str, AfterValidator(_one_line)] | None = None
    break_glass: Annotated[bool, Field(strict=True)] | None = None
    review: ReviewEntry | None = None


class TestEntry(StrictModel):
    """One of the file's own tests: a request line, and the expected outcome."""

    __test__ = False  # pytest must not collect it

    ask: str
    at: Moment | None = None
    approve: list[PersonOrGroup] = []
    break_glass: Annotated[bool, Field(strict=True)] = False
    expect: Literal["refused", "waiting", "granted"]
    rule: str | None = None


class PolicyFile(StrictModel):
    admins: list[PersonOrGroup] = []
    auditors: list[PersonOrGroup] = []
    audit_channel: Channel | None = None
    alert_channel: Channel | None = None
    ticket_url: Annotated[str, AfterValidator(_ticket_url)] | None = None
    retention: Annotated[timedelta, BeforeValidator(_retention), DURATION_SCHEMA] | None = None
    limits: LimitsEntry = LimitsEntry()
    defaults: DefaultsEntry = DefaultsEntry()
    rules: list[RuleEntry]
    tests: list[TestEntry] = []
    groups_in_tests: dict[str, list[PersonOrGroup]] = {}
