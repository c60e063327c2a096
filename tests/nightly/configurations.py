"""The configurations between which the state machine changes."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml

from tests.access.environment import ADA, ADMIN, ALERTS, AUDIT, CARDS, LEAD, SECOND

DATABASES: dict[str, Any] = {
    "databases": {
        "shop": {
            "engine": "postgresql", "admin_url": "env:SHOP_ADMIN_URL",
            "levels": {"readonly": {"roles": ["reader"]}, "write": {"roles": ["writer"]}},
        },
        "stock": {"engine": "mysql", "admin_url": "env:STOCK_ADMIN_URL", "levels": {"readonly": {"roles": ["reader"]}}},
    }
}  # fmt: skip
POLICY: dict[str, Any] = {
    "admins": [ADMIN], "audit_channel": AUDIT, "alert_channel": ALERTS,
    "limits": {"live_per_person": 3, "live_per_database": 4, "waiting_per_person": 3},
    "defaults": {
        "channel": CARDS, "duration": "1h", "max_duration": "2h", "max_total": "3h", "min_reason": 1, "request_ttl": "1h",
        "provision_within": "30m", "remind_after": "20m",
    },
    "rules": [
        {
            "name": "read", "requesters": [LEAD, "S0TEAM"], "databases": ["shop"], "levels": ["readonly"],
            "approvals": [{"from": [LEAD, SECOND], "count": 1}], "escalate": {"after": "30m", "to": [ADMIN]}, "notify": [SECOND],
        },
        {
            "name": "write", "requesters": [ADA, LEAD], "databases": ["shop"], "levels": ["write"], "delivery": "reveal",
            "claim_within": "15m", "approvals": [{"from": [LEAD, SECOND], "count": 1}, {"from": [SECOND, ADMIN], "count": 1}],
        },
        {
            "name": "at once", "requesters": [ADA, SECOND], "databases": ["stock"], "levels": ["readonly"], "approvals": [],
            "automatic": {"per_person_per_day": 3},
        },
        {
            "name": "glass", "break_glass": True, "requesters": [ADA, LEAD], "databases": ["*"], "levels": ["*"],
            "max_duration": "1h", "approvals": [], "review": {"from": [SECOND, ADMIN], "within": "24h"},
        },
    ],
}  # fmt: skip
MAX_TOTAL = timedelta(hours=3)
AUTOMATIC = 3
"""``max_total`` of each rule and the automatic grants of a person in 24 hours, in every configuration."""


@dataclass(frozen=True)
class InForce:
    """What a configuration says about decisions and limits. ``deciders`` by rule: everybody who may decide or sign off in any stage."""

    deciders: dict[str, frozenset[str]]
    live_per_person: int
    live_per_database: int
    waiting_per_person: int


def _without_rule(policy: dict[str, Any], _databases: dict[str, Any]) -> None:
    del policy["rules"][0]


def _other_level(_policy: dict[str, Any], databases: dict[str, Any]) -> None:
    databases["databases"]["shop"]["levels"]["readonly"]["roles"] = ["other_reader"]


def _other_approvers(policy: dict[str, Any], _databases: dict[str, Any]) -> None:
    policy["rules"][0]["approvals"] = [{"from": [SECOND, ADMIN], "count": 1}]
    policy["rules"][3]["review"]["from"] = [ADMIN]


def _two_approvals(policy: dict[str, Any], _databases: dict[str, Any]) -> None:
    policy["rules"][0]["approvals"][0]["count"] = 2


def _limits(policy: dict[str, Any], _databases: dict[str, Any]) -> None:
    policy["limits"] = {"live_per_person": 1, "live_per_database": 1, "waiting_per_person": 1}


def _without_database(_policy: dict[str, Any], databases: dict[str, Any]) -> None:
    del databases["databases"]["stock"]


CHANGES = (None, _without_rule, _other_level, _other_approvers, _two_approvals, _limits, _without_database)
INVALID = len(CHANGES)
"""The number of a configuration with errors: the last valid one stays in force."""


def write(folder: Path, number: int) -> int:
    """Write the configuration with this number. Returns the number."""
    policy, databases = copy.deepcopy(POLICY), copy.deepcopy(DATABASES)
    if number < INVALID and (change := CHANGES[number]) is not None:
        change(policy, databases)
    (folder / "databases.yml").write_text(yaml.safe_dump(databases))
    text = yaml.safe_dump(policy)
    (folder / "policy.yml").write_text(text if number < INVALID else text.replace("approvals", "aprovals"))
    return number


def in_force(number: int) -> InForce:
    """What the valid configuration with this number says."""
    policy, databases = copy.deepcopy(POLICY), copy.deepcopy(DATABASES)
    if (change := CHANGES[number]) is not None:
        change(policy, databases)
    deciders = {
        rule["name"]: frozenset(
            who
            for part in (*rule["approvals"], {"from": rule.get("escalate", {}).get("to", [])}, rule.get("review", {}))
            for who in part.get("from", [])
        )
        for rule in policy["rules"]
    }
    return InForce(deciders=deciders, **policy["limits"])
