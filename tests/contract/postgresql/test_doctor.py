"""``doctor`` reports each fault of a setup, against a real PostgreSQL and a strict local Slack."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr

from adapters.base import Finding
from bot.doctor import examine
from bot.settings import Settings
from storage.ledger import Ledger
from tests.contract.postgresql.harness import BOT_PASSWORD, EngineHarness, build
from tests.fake_slack.server import FakeSlack, running_fake_slack
from tests.fake_slack.workspace import APP_TOKEN, BOT_TOKEN
from tests.servers.postgresql import PostgresServer


@dataclass
class Practice:
    slack: FakeSlack
    harness: EngineHarness
    folder: Path
    settings: Settings
    databases: dict[str, Any]

    async def findings(self) -> list[Finding]:
        (self.folder / "databases.yml").write_text(yaml.safe_dump({"databases": {"shop": self.databases}}))
        found = [f for section in await examine(self.settings, []) for f in section.findings]
        others = ("on the same server", "other databases of the server")  # databases of other tests
        return [f for f in found if not any(text in f.what for text in others)]

    async def complaints(self) -> list[str]:
        """All findings that are not ok, with their remedies."""
        return [f"{f.what}: {f.remedy}" for f in await self.findings() if not f.is_ok]

    async def expect_complaint(self, text: str) -> Finding:
        """The finding with these words that is not ok."""
        found = await self.findings()
        return next((f for f in found if not f.is_ok and text in f.what), None) or pytest.fail(
            f"{text!r} is not among {[f.what for f in found]}"
        )


@pytest.fixture
async def practice(
    postgresql: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Practice]:
    harness = build(postgresql)
    monkeypatch.setenv("SHOP_ADMIN_URL", postgresql.url(harness.bot, BOT_PASSWORD, harness.database))
    policy = {
        "admins": ["U0ADMIN"], "audit_channel": "C0AUDIT", "defaults": {"channel": "C0CARDS"},
        "rules": [{"name": "shop", "requesters": ["U0ADA"], "databases": ["shop"], "levels": ["*"], "approvals": [{"from": ["U0LEAD", "U0ADMIN"], "count": 1}]}],
    }  # fmt: skip
    (tmp_path / "policy.yml").write_text(yaml.safe_dump(policy))
    store = f"sqlite+aiosqlite:///{tmp_path}/ledger.db"
    ledger = Ledger(store)
    await ledger.open(create=True)
    await ledger.close()
    async with running_fake_slack() as slack:
        for person in ("U0ADA", "U0LEAD", "U0ADMIN"):
            slack.workspace.add_person(person, person.lower())
        slack.workspace.add_channel("C0CARDS", "cards")
        slack.workspace.add_channel("C0AUDIT", "audit")
        settings = Settings(
            slack_bot_token=SecretStr(BOT_TOKEN),
            slack_app_token=SecretStr(APP_TOKEN),
            slack_api_url=f"{slack.url}/api/",
            config=tmp_path,
            store_url=SecretStr(store),
        )
        entry = {
            "engine": "postgresql",
            "admin_url": "env:SHOP_ADMIN_URL",
            "admin_role": harness.owner,
            "levels": {"readonly": {"roles": ["shop_reader"]}},
        }
        yield Practice(slack, harness, tmp_path, settings, entry)


async def test_doctor_finds_nothing_wrong(practice: Practice) -> None:
    assert await practice.complaints() == []


async def test_doctor_reports_a_wrong_token(practice: Practice) -> None:
    practice.settings = practice.settings.model_copy(update={"slack_bot_token": SecretStr("xoxb-wrong")})
    finding = await practice.expect_complaint("Slack does not accept the bot token (invalid_auth)")
    assert finding.is_fatal
    practice.settings = practice.settings.model_copy(
        update={"slack_bot_token": SecretStr(BOT_TOKEN), "slack_app_token": SecretStr("xapp-wrong")}
    )
    await practice.expect_complaint("Slack does not accept the app token (invalid_auth)")


async def test_doctor_reports_a_missing_scope(practice: Practice) -> None:
    practice.slack.workspace.scopes.discard("groups:read")
    assert (await practice.expect_complaint("the scope groups:read is missing")).remedy


async def test_doctor_reports_a_missing_channel(practice: Practice) -> None:
    del practice.slack.workspace.channels["C0CARDS"]
    await practice.expect_complaint("channel of rule “shop” C0CARDS: channel_not_found")


async def test_doctor_reports_unusable_channels(practice: Practice) -> None:
    practice.slack.workspace.channels["C0CARDS"]["is_member"] = False
    await practice.expect_complaint("the bot is not in the channel of rule “shop” C0CARDS")
    practice.slack.workspace.channels["C0AUDIT"]["is_ext_shared"] = True
    await practice.expect_complaint("audit channel C0AUDIT is shared with another organisation")
    practice.slack.workspace.channels["C0AUDIT"]["is_archived"] = True
    await practice.expect_complaint("audit channel C0AUDIT is archived")


async def test_doctor_reports_a_deactivated_approver(practice: Practice) -> None:
    practice.slack.workspace.users["U0LEAD"]["deleted"] = True
    await practice.expect_complaint("U0LEAD is named in the policy and cannot act: deactivated")


async def test_doctor_reports_an_unreachable_database(practice: Practice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_ADMIN_URL", f"postgresql://bot:{BOT_PASSWORD}@127.0.0.1:1/shop")
    finding = await practice.expect_complaint("cannot be checked")
    assert BOT_PASSWORD not in finding.what


async def test_doctor_reports_a_missing_secret(practice: Practice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SHOP_ADMIN_URL")
    await practice.expect_complaint("SHOP_ADMIN_URL is not set")


async def test_doctor_reports_a_wrong_password(practice: Practice, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "SHOP_ADMIN_URL", practice.harness.server.url(practice.harness.bot, "Wrong0Password", practice.harness.database)
    )
    finding = await practice.expect_complaint("login")
    assert "Wrong0Password" not in finding.what


async def test_doctor_reports_a_missing_createrole(practice: Practice) -> None:
    with practice.harness.superuser() as c:
        c.execute(f"ALTER ROLE {practice.harness.owner} NOCREATEROLE")
    finding = await practice.expect_complaint("CREATEROLE")
    assert finding.remedy == f"ALTER ROLE {practice.harness.owner} CREATEROLE;"
    with practice.harness.superuser() as c:
        c.execute(str(finding.remedy))
    assert await practice.complaints() == []


async def test_doctor_reports_a_missing_role(practice: Practice) -> None:
    practice.databases["levels"]["readonly"]["roles"] = ["shop_nobody"]
    assert "CREATE ROLE shop_nobody" in str((await practice.expect_complaint("shop_nobody does not exist")).remedy)


@pytest.mark.parametrize(
    ("attribute", "text"), [("SUPERUSER", "SUPERUSER"), ("CREATEROLE", "CREATEROLE"), ("REPLICATION", "REPLICATION")]
)
async def test_doctor_refuses_a_dangerous_level_role(practice: Practice, attribute: str, text: str) -> None:
    role = f"danger_{attribute.lower()}_{practice.harness.bot}"
    with practice.harness.superuser() as c:
        c.execute(f"CREATE ROLE {role} {attribute}")
    practice.databases["levels"]["readonly"]["roles"] = [role]
    assert (await practice.expect_complaint(text)).is_fatal


async def test_doctor_refuses_a_level_role_with_a_shell(practice: Practice) -> None:
    role = f"shell_{practice.harness.bot}"
    with practice.harness.superuser() as c:
        c.execute(f"CREATE ROLE {role} IN ROLE pg_execute_server_program")
    practice.databases["levels"]["readonly"]["roles"] = [role]
    assert (await practice.expect_complaint("pg_execute_server_program")).is_fatal


async def test_doctor_warns_of_a_database_open_to_public(practice: Practice) -> None:
    with practice.harness.superuser() as c:
        c.execute(f"GRANT CONNECT, TEMPORARY ON DATABASE {practice.harness.database} TO PUBLIC")
    finding = await practice.expect_complaint("open to PUBLIC")
    assert finding.remedy == f"REVOKE CONNECT, TEMPORARY ON DATABASE {practice.harness.database} FROM PUBLIC;"
    with practice.harness.superuser() as c:
        c.execute(finding.remedy)
    assert await practice.complaints() == []


async def test_doctor_reports_a_missing_ledger(practice: Practice) -> None:
    (practice.folder / "ledger.db").unlink()
    await practice.expect_complaint("there is no ledger")
