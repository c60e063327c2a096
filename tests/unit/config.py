"""A valid pair of files for tests that need a configuration, and builders of configurations, requests and decisions."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bot.databases import DatabaseEntry
from bot.policy.config import Config
from bot.policy.loader import ConfigError, load
from bot.policy.model import PolicyFile
from bot.policy.rules import compile_rules
from bot.policy.source import Problem
from storage.records import Decision, Request, RequestKind, State, Terms, Verdict

NOON = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)

DATABASES = """
databases:
  orders-prod:
    engine: postgresql
    description: Orders, production
    labels: {env: prod, team: payments}
    admin_url: env:ORDERS_ADMIN_URL
    levels:
      readonly: {description: Read everything, roles: [orders_reader]}
"""

POLICY = """
admins: [U01ADMIN]
audit_channel: C01AUDIT
alert_channel: C01ALERTS
defaults: {channel: C01DBACCESS}
rules:
  - name: readers
    requesters: [U01ASKER]
    databases: [orders-prod]
    levels: [readonly]
    approvals: [{from: [U01LEAD, U02LEAD]}]
"""


def write_config(folder: Path, *, databases: str | bytes = DATABASES, policy: str | bytes = POLICY) -> Path:
    """Write both files into the folder."""
    for name, content in (("databases.yml", databases), ("policy.yml", policy)):
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def load_config(folder: Path, *, databases: str | bytes = DATABASES, policy: str | bytes = POLICY) -> Config:
    return load(write_config(folder, databases=databases, policy=policy))


def problems_of(
    folder: Path, *, databases: str | bytes = DATABASES, policy: str | bytes = POLICY
) -> tuple[Problem, ...]:
    """All errors and warnings, as ``policy check`` lists them."""
    try:
        return load_config(folder, databases=databases, policy=policy).warnings
    except ConfigError as error:
        return error.problems


def config_of(databases: Mapping[str, Any], policy: Mapping[str, Any]) -> Config:
    """A configuration without files, through the same models."""
    entries = {name: DatabaseEntry.model_validate(entry) for name, entry in databases.items()}
    found = PolicyFile.model_validate(policy)
    return Config(policy=found, databases=entries, rules=compile_rules(found, entries), digest="0" * 12, warnings=())


def database(*levels: str, **keys: Any) -> dict[str, Any]:
    """An entry with these levels. Each level has one role."""
    return {
        "engine": "postgresql",
        "admin_url": "env:ADMIN_URL",
        "levels": {level: {"roles": [f"{level}_role"]} for level in levels},
        **keys,
    }


def rule(name: str, **keys: Any) -> dict[str, Any]:
    """A rule by which anyone may request everything and U01LEAD or U02LEAD decide, with ``keys`` changed."""
    return {
        "name": name,
        "requesters": ["anyone"],
        "databases": ["*"],
        "levels": ["*"],
        "channel": "C01DBACCESS",
        "approvals": [{"from": ["U01LEAD", "U02LEAD"], "count": 1}],
        **keys,
    }


def waiting_request(terms: Terms, *, person_id: str, database: str, **keys: Any) -> Request:
    """The request that waits after it was made on these terms."""
    return Request(
        **{
            "id": 42,
            "key": "k7q2" * 4,
            "kind": RequestKind.ACCESS,
            "state": State.PENDING,
            "version": 1,
            "team_id": "T01",
            "requester_id": person_id,
            "requester_name": "asker",
            "database": database,
            "level": str(terms.level["name"]),
            "reason": "a fitting reason",
            "ticket": None,
            "parent_id": None,
            "terms": terms,
            "requested_at": NOON,
            "lapses_at": NOON + terms.request_ttl,
            **keys,
        }
    )


def decision(person_id: str, *, stage: int = 0, verdict: Verdict = Verdict.APPROVE) -> Decision:
    return Decision(request_id=42, person_id=person_id, person_name="lead", verdict=verdict, stage=stage, at=NOON)
