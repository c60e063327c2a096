"""The command line on a real ledger: answers, refusals, exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bot.access import lockdown
from bot.access.errors import Refused
from bot.access.ports import Person
from bot.access.use_case_types import LockdownScope
from storage.audit_kinds import AuditKind
from tests import clock_ahead
from tests.access.environment import ADA, ADMIN, LEAD, AccessEnvironment
from tests.access.steps import recorded


class CommandLine:
    """Runs the command line with the settings of one test environment."""

    def __init__(self, folder: Path, **env: str) -> None:
        self.folder = folder
        self.env = {
            "DBACCESS_STORE_URL": f"sqlite+aiosqlite:///{folder}/ledger.db",
            "DBACCESS_CONFIG": str(folder),
            "SHOP_ADMIN_URL": "postgresql://bot:ShopAdminSecret@127.0.0.1:1/shop",
            "PATH": "/usr/bin:/bin",
            **clock_ahead.offset_variables(os.environ),
            **env,
        }

    def run(self, *arguments: str, expect: int = 0, **env: str) -> tuple[str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "bot.cli", *arguments],
            capture_output=True,
            text=True,
            check=False,
            env=self.env | env,
            cwd=Path(__file__).parents[2],
        )
        assert done.returncode == expect, (done.returncode, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        assert "ShopAdminSecret" not in done.stdout + done.stderr
        return done.stdout, done.stderr

    def json(self, *arguments: str) -> list[dict[str, Any]]:
        found = json.loads(self.run(*arguments, "--json")[0])
        assert isinstance(found, list)
        return found


@pytest.fixture
def command_line(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path)


def test_only_store_upgrade_creates_a_ledger(command_line: CommandLine) -> None:
    for command in (["list"], ["show", "1"], ["revoke", "--all"], ["store", "check"]):
        assert "no ledger" in command_line.run(*command, expect=1)[1]
        assert not (command_line.folder / "ledger.db").exists()
    command_line.run("store", "upgrade")
    assert command_line.json("store", "check")[0]["requests"] == 0
    assert command_line.json("list") == []


def test_wrong_usage_exits_with_status_2(command_line: CommandLine) -> None:
    command_line.run("store", "upgrade")
    for command in (
        ["revoke"],
        ["revoke", "1", "--all"],
        ["revoke", "1", "--gone", " "],
        ["show", "one"],
        ["show", "9" * 30],
        ["nonsense"],
    ):
        assert command_line.run(*command, expect=2)[1], command


@pytest.mark.parametrize(
    "url",
    ["sqlite+aiosqlite:///", "sqlite+aiosqlite:///?x=y", "postgresql+psycopg://u:ShopAdminSecret@h:port/x"],
)
def test_invalid_store_url_is_reported(command_line: CommandLine, url: str) -> None:
    assert "DBACCESS_STORE_URL: has a wrong value" in command_line.run("list", expect=1, DBACCESS_STORE_URL=url)[1]


def test_run_names_missing_settings(command_line: CommandLine) -> None:
    said = command_line.run("run", expect=1)[1]
    assert "SLACK_BOT_TOKEN: is not set" in said
    assert "SLACK_APP_TOKEN: is not set" in said


async def test_list_and_show_print_requests(environment: AccessEnvironment, command_line: CommandLine) -> None:
    live = await environment.granted()
    waiting = await environment.ask(LEAD)
    assert {r["id"]: r["state"] for r in command_line.json("list")} == {live.id: "active", waiting.id: "pending"}
    assert [r["id"] for r in command_line.json("list", "--person", ADA)] == [live.id]
    assert command_line.json("list", "--database", "other") == []
    row = command_line.json("show", f"#{live.id}")[0]
    assert (row["requester"], row["database"], row["asked_at"][-1]) == (ADA, "shop", "Z")
    assert len(row["history"]) >= 3
    shown = next(line for line in command_line.run("list")[0].splitlines() if f"#{live.id}" in line)
    assert str(live.username) in shown


async def test_one_refusal_does_not_stop_the_other_ends(
    environment: AccessEnvironment, command_line: CommandLine
) -> None:
    request = await environment.approve(await environment.ask())  # no user exists yet, so no server is needed to end it
    said, refused = command_line.run("revoke", "99", str(request.id), "--wait", "20", expect=1)
    assert "#99" in refused
    assert f"#{request.id} {request.username}" in said
    assert (await environment.now(request)).state == "revoked"


async def test_unreachable_server_is_reported(environment: AccessEnvironment, command_line: CommandLine) -> None:
    request = await environment.granted()
    assert "not ended yet" in command_line.run("revoke", str(request.id), "--wait", "1", expect=1)[0]
    assert (await environment.now(request)).state == "revoking"


async def test_lockdown_ends_grants_and_refuses_new_ones(
    environment: AccessEnvironment, command_line: CommandLine
) -> None:
    """No bot runs, and no token is set. The command does the work itself."""
    request = await environment.approve(await environment.ask())  # no user exists yet, so no server is needed to end it
    said, _ = command_line.run("lockdown", "--database", "shop", "--wait", "20")
    assert said == "Lockdown of shop: 1 grant, all ended. New access is refused until another admin lifts it.\n"
    assert (await environment.now(request)).ended_because == "lockdown"
    with pytest.raises(Refused, match="Access to shop is locked down"):
        await environment.ask()
    (row,) = command_line.json("lockdown", "--database", "shop")
    assert (row["id"], row["database"], row["person"], row["grants"], row["not_ended"]) == (1, "shop", None, 1, [])
    assert row["set_by"].startswith("cli:")


async def test_lockdown_exits_with_status_1_where_a_grant_has_not_ended(
    environment: AccessEnvironment, command_line: CommandLine
) -> None:
    request = await environment.granted()
    said, _ = command_line.run("lockdown", "--person", ADA, "--wait", "1", expect=1)
    assert "Lockdown of @ada: 1 of 1 grant not ended yet." in said
    assert f"#{request.id} {request.username} on shop: not ended yet (" in said
    assert (await environment.now(request)).state == "revoking"


async def test_unlock_on_the_command_line(environment: AccessEnvironment, command_line: CommandLine) -> None:
    """Not by the operating system user who set it, whatever the environment calls them. One that was set in Slack is an alert."""
    assert command_line.run("unlock")[0] == "Nothing is locked down.\n"
    command_line.run("lockdown", "--wait", "1")
    refusal = command_line.run("unlock", expect=1, LOGNAME="somebody", USER="somebody")[1]
    assert "set the lockdown of all databases. Another admin must lift it." in refusal
    assert "not locked down" not in command_line.run("unlock", "--database", "shop", expect=1)[1]
    admin = await environment.person(ADMIN)
    await lockdown.lock_down(environment.context, admin, LockdownScope(database="shop"))
    (lifted,) = [row for row in json.loads(command_line.run("unlock", "--json", expect=1)[0]) if row["lifted_at"]]
    assert (lifted["database"], lifted["set_by"]) == ("shop", ADMIN)
    assert [one.database for one in await environment.ledger.lockdowns.in_force()] == [None]
    (alert,) = [one for one in await recorded(environment, AuditKind.ALERT) if "lockdown" in one["what"]]
    assert "lifted the lockdown of shop on the command line. @admin had set it in Slack." in alert["what"]
    await lockdown.unlock(environment.context, admin, LockdownScope())
    other = Person(id="cli:dba", name="dba", is_member=True)
    await lockdown.lock_down(environment.context, other, LockdownScope(person_id=ADA))
    assert command_line.run("unlock", "--person", ADA)[0] == "The lockdown of @ada is lifted.\n"


def test_lockdown_with_wrong_usage(command_line: CommandLine) -> None:
    command_line.run("store", "upgrade")
    for command in (
        ["lockdown", "--database", "shop", "--person", ADA],
        ["lockdown", "--person", "ada"],
        ["lockdown", "--database", " "],
        ["unlock", "--person", "<@U1>"],
        ["lockdown", "shop"],
    ):
        assert command_line.run(*command, expect=2)[1], command
