"""The promises of docs/security.md for the time in which Slack is down: ends come, commands work, nothing new is granted."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest

from bot.access import lockdown, request_access, revoke
from bot.access.errors import Refused
from bot.access.ports import Delayed, Person
from bot.access.use_case_types import LockdownScope, RequestInput
from bot.cli import app
from bot.monitors.sweep import Sweep
from bot.notifications.notices import ClosedNotice, CredentialsNotice
from storage.records import State
from tests.access.environment import ADA, HOUR, LEAD, AccessEnvironment
from tests.access.fake_engine import User
from tests.access.test_cli import CommandLine
from tests.servers.postgresql import free_port

PAGE = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
SECTION = PAGE.split("## When Slack is down\n")[1].split("\n## ")[0]
PROMISED = re.findall(r"^\| `dbaccess ([^`]+)` \|", SECTION, re.MULTILINE)
OPERATOR = Person(id="cli:root", name="root", is_member=True)


def take_slack_down(environment: AccessEnvironment) -> None:
    environment.people.is_silent = True
    environment.messenger.refuse = lambda _place, _notice: Delayed("Slack does not answer")


def bring_slack_back(environment: AccessEnvironment) -> None:
    environment.people.is_silent = False
    environment.messenger.refuse = lambda _place, _notice: None


@pytest.mark.parametrize("how", ["its time", "revoke", "lockdown"])
async def test_grant_ends_without_slack(environment: AccessEnvironment, how: str) -> None:
    request = await environment.granted()
    take_slack_down(environment)
    if how == "its time":
        await environment.turn(hours=1)
    elif how == "revoke":
        await revoke.revoke(environment.context, OPERATOR, request.id)
    else:
        await lockdown.lock_down(environment.context, OPERATOR, LockdownScope())
    await environment.drain()
    assert (await environment.now(request)).state is State.REVOKED
    assert environment.server.users == {}
    assert environment.messenger.on(ADA, CredentialsNotice), "the message keeps a password that no longer works"
    bring_slack_back(environment)
    await environment.turn(minutes=5)
    assert environment.messenger.on(ADA, CredentialsNotice) == []
    assert environment.messenger.on(ADA, ClosedNotice)


async def test_nothing_is_granted_without_slack(environment: AccessEnvironment) -> None:
    request, waiting = await environment.ask(), await environment.ask(LEAD)
    approved = await environment.approve(request)
    ada, second = await environment.person(ADA), await environment.person(LEAD)
    take_slack_down(environment)
    await environment.turn(minutes=5)
    assert (await environment.now(approved)).started_at is None
    assert environment.server.users == {}
    for verb in (environment.ask(), environment.approve(waiting, LEAD)):
        with pytest.raises(Refused, match="Slack did not answer who you are"):
            await verb
    wanted = RequestInput(database="shop", level="readonly", duration=HOUR * 2, reason="the identity is cached")
    for person in (ada, second):
        await request_access.request_access(environment.context, person, wanted)
    await environment.turn(minutes=5)
    assert environment.server.users == {}, "a request alone grants nothing"
    bring_slack_back(environment)
    await environment.turn(minutes=5)
    assert (await environment.now(approved)).state is State.ACTIVE


async def test_user_made_by_hand_is_reported_until_it_is_dropped_and_not_touched(
    environment: AccessEnvironment,
) -> None:
    found = re.search(r"`(jit_\d+_\w+)`", SECTION)
    assert found is not None
    name = found[1]
    environment.server.users[name] = User("by hand", None, 0, ("reader",), environment.clock.at + HOUR)
    environment.context.files.refresh()
    sweep = Sweep(environment.context)
    for _ in range(3):
        await sweep.run(is_start=True)
        environment.clock.at += timedelta(minutes=5)
    (alert,) = await environment.ledger.alerts.open()
    assert name in alert.what
    assert name in environment.server.users
    del environment.server.users[name]
    await sweep.run(is_start=True)
    assert await environment.ledger.alerts.open() == ()


async def test_commands_work_without_slack(environment: AccessEnvironment, tmp_path: Path) -> None:
    """Slack's address answers nothing, or there is no token at all. The grant waits for Slack, so no server is needed to end it."""
    await environment.approve(await environment.ask())
    await environment.close()
    line = CommandLine(tmp_path)
    assert len(PROMISED) >= 7
    dead = {
        "SLACK_BOT_TOKEN": "xoxb-1",
        "SLACK_APP_TOKEN": "xapp-1",
        "SLACK_API_URL": f"http://127.0.0.1:{free_port()}/api/",
    }
    for command in PROMISED:
        status = (
            1 if command in ("sweep", "unlock") else 0
        )  # the server is down here; the same operator may not lift it
        for variables in ({}, dead) if command in ("list", "show ID", "policy check") else (dead,):
            out, err = line.run(*command.replace("ID", "1").split(), expect=status, **variables)
            assert "Slack" not in err
            assert "1" in out or command in ("lockdown", "unlock", "sweep", "policy check"), (command, out, err)
    (shown,) = line.json("show", "1")
    assert shown["state"] == "revoked"
    assert shown["receipt"], "it has its receipt"


def test_there_is_no_break_glass_on_the_command_line() -> None:
    assert "There is no `dbaccess breakglass` on the command line" in SECTION
    assert "breakglass" not in {command.name for command in app.registered_commands}
