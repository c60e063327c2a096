"""``dbaccess policy``: output and exit status, without a token. ``replay`` runs on a ledger with past requests."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import yaml
from typer.testing import CliRunner

from bot.cli import app
from bot.policy.schema import schema
from tests.access.environment import ADA, LEAD, SECOND, AccessEnvironment
from tests.unit.config import DATABASES, POLICY, write_config

TESTED = (
    POLICY
    + """
tests:
  - {ask: U01ASKER orders-prod readonly 2h, expect: waiting, rule: readers}
  - {ask: U01ASKER orders-prod readonly 2h, approve: [U01LEAD], expect: granted}
  - {ask: U01LEAD orders-prod readonly 2h, expect: refused}
"""
)
run = CliRunner()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("SLACK_BOT_TOKEN", "SLACK_APP_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DBACCESS_CONFIG", str(tmp_path))
    return write_config(tmp_path, policy=TESTED)


def test_policy_test_passes(folder: Path) -> None:
    out = folder / "junit.xml"
    done = run.invoke(app, ["policy", "test", "--junit", str(out)])
    assert (done.exit_code, done.output.splitlines()[-1]) == (0, "3 tests, 0 failed.")
    suite = ET.parse(out).getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("3", "0")


def test_failed_policy_test_says_why(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("other") / "policy.yml"
    other.write_text(TESTED.replace("requesters: [U01ASKER]", "requesters: [U02OTHER]"))
    out = folder / "junit.xml"
    done = run.invoke(app, ["policy", "test", str(other), "--junit", str(out)])
    assert done.exit_code == 1
    assert "FAIL  U01ASKER orders-prod readonly 2h → waiting" in done.output
    assert "expected waiting by “readers”, got refused" in done.output
    assert "Rule “readers” is about orders-prod, but not for this person." in done.output
    assert len(ET.parse(out).getroot().findall(".//failure")) == 2
    answers = json.loads(run.invoke(app, ["policy", "test", str(other), "--json"]).output)
    assert [(one["outcome"], one["passed"]) for one in answers] == [
        ("refused", False),
        ("refused", False),
        ("refused", True),
    ]


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["U01ASKER", "orders-prod", "readonly", "2h"], 0),
        (["U01ASKER", "orders-prod", "readonly", "9h"], 1),
        (["U09WHO", "orders-prod"], 1),
        (["U01ASKER", "orders-prod", "readonly", "2hours"], 2),
        (["U01ASKER", "orders-prod", "--at", "noon"], 2),
        (["U01ASKER", "orders-prod", "--break-glass"], 1),
    ],
)
@pytest.mark.usefixtures("folder")
def test_explain_exit_status(words: list[str], status: int) -> None:
    assert run.invoke(app, ["policy", "explain", *words]).exit_code == status


@pytest.mark.usefixtures("folder")
def test_schema_prints_the_schema() -> None:
    assert json.loads(run.invoke(app, ["policy", "schema"]).output) == schema("policy")
    assert json.loads(run.invoke(app, ["policy", "schema", "databases"]).output) == schema("databases")


# Replay.


async def make_requests(environment: AccessEnvironment) -> None:
    """Make three requests: one is granted and live, two wait, one of them by another person."""
    await environment.open()
    await environment.granted()
    await environment.ask(reason="another one, later")
    await environment.ask(who=LEAD, reason="of somebody else")
    await environment.close()


@pytest.fixture
def past(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AccessEnvironment:
    store = f"sqlite+aiosqlite:///{tmp_path / 'ledger.db'}"
    monkeypatch.setenv("SHOP_ADMIN_URL", "postgresql://admin:not-a-secret@db.test/shop")
    monkeypatch.setenv("DBACCESS_CONFIG", str(tmp_path))
    monkeypatch.setenv("DBACCESS_STORE_URL", store)
    environment = AccessEnvironment(folder=tmp_path, store=store)
    asyncio.run(make_requests(environment))
    return environment


def replayed(environment: AccessEnvironment, *, since: int = 3650, **keys: Any) -> list[dict[str, Any]]:
    rule = {k: v for k, v in {**environment.policy["rules"][0], **keys}.items() if v is not None}
    file = environment.folder / "proposed.yml"
    file.write_text(yaml.safe_dump({**environment.policy, "rules": [rule]}))
    done = run.invoke(app, ["policy", "replay", str(file), "--since", str(since), "--json"])
    assert done.exit_code == 0, done.output
    return list(json.loads(done.output))


def test_replay_of_the_same_policy_changes_nothing(past: AccessEnvironment) -> None:
    assert [one["now"] for one in replayed(past)] == ["as before"] * 3


@pytest.mark.parametrize(
    ("keys", "now", "would_end"),
    [
        ({"requesters": [LEAD]}, "refused", True),
        ({"max_duration": "30m"}, "refused", True),
        ({"approvals": []}, "approved without anyone", False),
        ({"approvals": [{"from": [SECOND, "U0NEW"]}]}, "waits for someone else", False),
        ({"approvals": [{"from": ["S0UNKNOWN"]}]}, "not known without Slack", False),
        ({"requesters": ["S0UNKNOWN"]}, "not known without Slack", False),
    ],
)
def test_replay_shows_the_answer_of_another_policy(
    past: AccessEnvironment, keys: dict[str, Any], now: str, would_end: bool
) -> None:
    first = next(one for one in replayed(past, **keys) if one["requester"] == ADA)
    assert (first["now"], first["would_end"]) == (now, would_end)


def test_replay_shows_that_nobody_can_approve(past: AccessEnvironment) -> None:
    (mine,) = (o for o in replayed(past, approvals=[{"from": [LEAD, SECOND], "count": 2}]) if o["requester"] == LEAD)
    assert mine["now"] == "nobody can approve"


def test_replay_names_live_grants_to_revoke(past: AccessEnvironment) -> None:
    file = past.folder / "proposed.yml"
    file.write_text(yaml.safe_dump({**past.policy, "rules": [{**past.policy["rules"][0], "max_duration": "30m"}]}))
    done = run.invoke(app, ["policy", "replay", str(file), "--since", "3650"])
    assert "3 requests of 3650 days, 3 answered otherwise." in done.output
    assert "to end them: dbaccess revoke 1" in done.output


def test_replay_of_an_invalid_file_fails(past: AccessEnvironment) -> None:
    file = past.folder / "proposed.yml"
    file.write_text("rules: 3\n")
    assert run.invoke(app, ["policy", "replay", str(file)]).exit_code == 1
    assert DATABASES
