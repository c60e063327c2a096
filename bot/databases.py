"""The schema of databases.yml: databases and their levels. Turns an entry into an adapter's target and level."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from adapters.base import Connect, Level, PrivilegeGrant, Rejected, Target, Tls
from bot.durations import parse_duration

REFERENCE = re.compile(r"env:[A-Za-z_][A-Za-z0-9_]*|file:/\S+", re.ASCII)
DATABASE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,39}", re.ASCII)
LEVEL_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,23}", re.ASCII)
SETTING_NAME = re.compile(r"[a-z_][a-z0-9_.]*", re.ASCII)
DATABASE_NAME_HINT = "a database's name is [a-z0-9][a-z0-9_-]*, up to 40 characters"
HOST = re.compile(r"[A-Za-z0-9._:%-]{1,253}", re.ASCII)
NAME_MAX_BYTES = 63


def _duration(value: object) -> timedelta:
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str):
        raise ValueError("a duration looks like 30m, 2h or 1h30m")  # noqa: TRY004 - pydantic reports ValueError
    return parse_duration(value)


def _reference(value: object) -> str:
    """Check a reference. The value may be a secret in the wrong place, so no message shows it."""
    if not isinstance(value, str) or not REFERENCE.fullmatch(value):
        raise ValueError("a reference to a secret is env:NAME or file:/path; this file holds no secrets")
    return value


def _identifier(value: str) -> str:
    if not value or len(value.encode()) > NAME_MAX_BYTES or any(ord(c) < ord(" ") or c == "\x7f" for c in value):
        raise ValueError("a name in a database has 1 to 63 bytes and no control characters")
    return value


def _matching(pattern: re.Pattern[str], right: str) -> AfterValidator:
    def check(value: str) -> str:
        if not pattern.fullmatch(value):
            raise ValueError(right)
        return value

    return AfterValidator(check)


def as_text(value: object) -> object:
    return str(value).lower() if isinstance(value, bool) else str(value) if isinstance(value, int | float) else value


DURATION_SCHEMA = WithJsonSchema({"type": "string", "pattern": "^([0-9]+[dhms])+$"})
Duration = Annotated[timedelta, BeforeValidator(_duration), DURATION_SCHEMA]
REFERENCE_SCHEMA = WithJsonSchema({"type": "string", "pattern": f"^({REFERENCE.pattern})$"})
Reference = Annotated[str, BeforeValidator(_reference), REFERENCE_SCHEMA]
Identifier = Annotated[str, AfterValidator(_identifier)]
Text = Annotated[str, BeforeValidator(as_text), WithJsonSchema({"type": ["string", "number", "boolean"]})]
DatabaseName = Annotated[str, _matching(DATABASE_NAME, DATABASE_NAME_HINT)]
LevelName = Annotated[str, _matching(LEVEL_NAME, "a level's name is [a-z0-9][a-z0-9_-]*, up to 24 characters")]
SettingName = Annotated[str, _matching(SETTING_NAME, "a setting's name is [a-z_][a-z0-9_.]*")]
TlsMode = Literal["disable", "prefer", "require", "verify-ca", "verify-full"]


class StrictModel(BaseModel):
    """Unknown keys are errors. Values are frozen, and no error message shows them."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class GrantEntry(StrictModel):
    on: list[Identifier] = Field(min_length=1)
    privileges: list[Identifier] = Field(min_length=1)


class LevelEntry(StrictModel):
    description: str = ""
    roles: list[Identifier] = []
    grants: list[GrantEntry] = []
    max_duration: Duration | None = None
    database: Identifier | None = None
    set_role: Annotated[bool, Field(strict=True)] = False

    @model_validator(mode="after")
    def _gives_something(self) -> LevelEntry:
        if not self.roles and not self.grants:
            raise ValueError("a level needs roles or grants, or it gives nothing")
        return self


class TlsEntry(StrictModel):
    mode: TlsMode = "verify-full"
    ca: str | None = None


class ConnectEntry(StrictModel):
    """The address that the requester connects to. ``host`` becomes part of a command that is pasted into a shell, so it is checked."""

    host: Annotated[str, _matching(HOST, "a host is a name or an address, such as orders.db.internal")] | None = None
    port: int | None = Field(default=None, ge=1, le=65535)
    database: Identifier | None = None
    tls: TlsMode | None = None
    note: str | None = None


class DatabaseEntry(StrictModel):
    engine: str
    description: str = ""
    labels: dict[str, Text] = {}
    admin_url: Reference
    admin_role: Identifier | None = None
    ops_schema: Identifier = "dbaccess"
    replicas: list[Reference] = []
    tls: TlsEntry | None = None
    connect: ConnectEntry = ConnectEntry()
    levels: dict[LevelName, LevelEntry] = Field(min_length=1)
    settings: dict[SettingName, Text] = {}


class DatabasesFile(StrictModel):
    databases: dict[DatabaseName, DatabaseEntry]
    defaults: dict[str, dict[str, Any]] = {}


def resolve(reference: str) -> str:
    """The secret behind ``env:NAME`` or ``file:/path``. Raises Rejected, naming the reference and never the value."""
    kind, _, place = reference.partition(":")
    if kind == "env":
        value = os.environ.get(place, "")
        if not value:
            raise Rejected(f"the environment variable {place} is not set", remedy=f"set {place} to the admin URL")
        return value
    try:
        value = Path(place).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Rejected(f"the file {place} cannot be read ({type(error).__name__})") from None
    if not value:
        raise Rejected(f"the file {place} is empty")
    return value


def level(name: str, entry: DatabaseEntry) -> Level:
    """The level as the adapter gets it."""
    found = entry.levels[name]
    return Level(
        name=name,
        description=found.description,
        roles=tuple(found.roles),
        grants=tuple(PrivilegeGrant(on=tuple(g.on), privileges=tuple(g.privileges)) for g in found.grants),
        database=found.database,
        settings=dict(entry.settings),
        set_role=found.set_role,
    )


def level_json(name: str, entry: DatabaseEntry) -> Mapping[str, Any]:
    """The level as it is frozen in a request. ``adapters.base.Level.from_json`` reads it."""
    found = entry.levels[name]
    return {
        "name": name,
        "description": found.description,
        "roles": list(found.roles),
        "grants": [g.model_dump() for g in found.grants],
        "database": found.database,
        "settings": dict(entry.settings),
        "set_role": found.set_role,
    }


def target(name: str, entry: DatabaseEntry, *, prefix: str, ledger: str) -> Target:
    """Everything an adapter needs to find this database again. Secrets stay references."""
    tls = entry.tls or TlsEntry(mode=_default_tls(entry))
    return Target(
        name=name,
        engine=entry.engine,
        admin_url=entry.admin_url,
        prefix=prefix,
        ledger=ledger,
        tls=Tls(mode=tls.mode, ca=tls.ca),
        connect=Connect(**entry.connect.model_dump()),
        admin_role=entry.admin_role,
        ops_schema=entry.ops_schema,
        replicas=tuple(entry.replicas),
    )


def _default_tls(entry: DatabaseEntry) -> TlsMode:
    """``prefer`` on loopback, else ``verify-full``; also ``verify-full`` where the admin URL cannot be read now."""
    try:
        hosts = _hosts_in(resolve(entry.admin_url))
    except (Rejected, ValueError):
        return "verify-full"
    return "prefer" if hosts and all(map(is_loopback, hosts)) else "verify-full"


def _hosts_in(url: str) -> list[str]:
    """Every host that a URL may lead to: in the address, separated by commas, and in its parameters. Empty where a service file decides."""
    parts = urlsplit(url)
    named = parse_qs(parts.query, keep_blank_values=True)
    if "service" in named:
        return []
    places = parts.netloc.rpartition("@")[2].split(",")
    hosts = [urlsplit(f"//{place}").hostname or "" for place in places if place]
    for key in ("host", "hostaddr"):
        hosts += [host for value in named.get(key, ()) for host in value.split(",")]
    return hosts


def is_loopback(host: str) -> bool:
    """Return whether the host is localhost, 127.0.0.0/8, ::1 or a local socket. An empty host is not: the driver chooses it."""
    if host == "localhost" or host.startswith("/"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
