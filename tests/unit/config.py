"""A good pair of files for tests that need a configuration, and what a pair gets told."""

from __future__ import annotations

from pathlib import Path

from bot.policy.load import Config, ConfigError, load
from bot.policy.source import Problem

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


def written(folder: Path, *, databases: str | bytes = DATABASES, policy: str | bytes = POLICY) -> Path:
    """The folder, with both files in it."""
    for name, content in (("databases.yml", databases), ("policy.yml", policy)):
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def loaded(folder: Path, *, databases: str | bytes = DATABASES, policy: str | bytes = POLICY) -> Config:
    return load(written(folder, databases=databases, policy=policy))


def told(folder: Path, *, databases: str | bytes = DATABASES, policy: str | bytes = POLICY) -> tuple[Problem, ...]:
    """All errors and warnings, as ``policy check`` would list them."""
    try:
        return loaded(folder, databases=databases, policy=policy).warnings
    except ConfigError as mistakes:
        return mistakes.problems
