"""Hostile clicks, commands and forms: by the wrong person, at the wrong moment, or twice."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

from bot.access import decide
from bot.access.context import Context
from bot.policy.config import Config
from storage.records import State
from tests.access.environment import CARDS
from tests.access.steps import put_in_force
from tests.fake_slack.workspace import APP, TEAM
from tests.open_faults import open_fault, require
from tests.slack.conftest import ADA, ADMIN, LEAD, SECOND, STRANGER, SlackEnvironment

LEADS, DBAS = "S0LEADS", "S0DBAS"
AUTOMATIC = "request shop readonly 1h looking at a refund"


@pytest.fixture(autouse=True)
def long_lookup_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise the time limit of lookups. On a busy machine a timeout would hide the expected result."""
    for module in ("user_groups", "emails"):
        monkeypatch.setattr(f"bot.slack.{module}.WAIT_SECONDS", 60.0)


async def live_grant(slack_environment: SlackEnvironment) -> dict[str, Any]:
    """Make a live grant and return its credential message."""
    card = await slack_environment.make_request()
    await slack_environment.slack.click(LEAD, card, "Approve")
    message = await slack_environment.expect_dm(ADA, "is ready")
    await slack_environment.expect_card(card["ts"], "until")
    return message


async def wait_for_replies(slack_environment: SlackEnvironment, person: str, number: int) -> None:
    await slack_environment.slack.wait(
        f"{person} has {number} replies", lambda: len(slack_environment.slack.answers(person)) >= number
    )


async def wait_until_idle(slack_environment: SlackEnvironment) -> None:
    """Wait until the runner has no due task."""
    ledger = slack_environment.environment.ledger
    deadline = asyncio.get_running_loop().time() + 20
    while any(task.due_at <= slack_environment.environment.clock() for task in await ledger.tasks.all()):
        require(asyncio.get_running_loop().time() < deadline, "the runner has no due task")
        await asyncio.sleep(0.05)


# A click uses one configuration (R2).


@open_fault(
    "R2",
    "if the files change during a lookup, the click is evaluated under the old policy and recorded under the new one",
)
async def test_click_is_evaluated_under_the_policy_in_force_when_it_is_recorded(
    slack_environment: SlackEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    readers, real = list[str](), Context.config_in_force

    def config_in_force(context: Context) -> Config:
        readers.append(str(sys._getframe(1).f_globals["__name__"]))
        return real(context)

    slack_environment.slack.workspace.add_group(LEADS, "leads", LEAD)
    slack_environment.slack.workspace.add_group(DBAS, "dbas", SECOND)
    put_in_force(slack_environment.environment, approvals=[{"from": [LEADS]}])
    card = await slack_environment.make_request()
    await wait_until_idle(slack_environment)  # so that the lookup belongs to the click
    slack_environment.environment.context.directory.forget_groups()
    calls = len(slack_environment.slack.calls)
    arrives = slack_environment.slack.late["usergroups.list"] = asyncio.Event()
    monkeypatch.setattr(Context, "config_in_force", config_in_force)
    click = asyncio.create_task(slack_environment.slack.click(LEAD, card, "Approve"))
    await slack_environment.slack.wait(
        "the click waits for the lookup",
        lambda: decide.__name__ in readers and "usergroups.list" in dict(slack_environment.slack.calls[calls:]),
    )
    put_in_force(slack_environment.environment, approvals=[{"from": [DBAS]}])
    arrives.set()
    await click
    await slack_environment.slack.wait(
        "the click has a result",
        lambda: "is ready" in str(slack_environment.slack.dm(ADA)) or slack_environment.slack.answers(LEAD),
    )
    assert (await slack_environment.request()).state is State.PENDING


async def test_deny_form_of_a_former_approver_denies_nothing(
    slack_environment: SlackEnvironment,
) -> None:
    card = await slack_environment.make_request()
    await slack_environment.slack.click(LEAD, card, "Deny")
    form = await slack_environment.slack.wait("the form", lambda: slack_environment.slack.form(LEAD))
    put_in_force(slack_environment.environment, approvals=[{"from": [SECOND, ADMIN]}])
    assert (await slack_environment.slack.submit(LEAD, form, why="not today")).errors
    assert (await slack_environment.request()).state is State.PENDING


async def test_request_form_of_a_former_requester_makes_no_request(
    slack_environment: SlackEnvironment,
) -> None:
    await slack_environment.slack.command(ADA, "request shop readonly 1h")
    form = await slack_environment.slack.wait("the form", lambda: slack_environment.slack.form(ADA))
    put_in_force(slack_environment.environment, requesters=[SECOND])
    assert (await slack_environment.slack.submit(ADA, form, why="looking at a refund")).errors
    assert await slack_environment.environment.ledger.requests.find() == ()


# Other people's requests.


async def test_only_the_requester_can_submit_the_extension_form(slack_environment: SlackEnvironment) -> None:
    await slack_environment.slack.click(ADA, await live_grant(slack_environment), "Extend")
    form = await slack_environment.slack.wait("the form", lambda: slack_environment.slack.form(ADA))
    assert (await slack_environment.slack.submit(LEAD, form, for_how_long="1h", why="mine now")).errors
    assert len(await slack_environment.environment.ledger.requests.find()) == 1


@pytest.mark.parametrize("junk", ["1.", "1", "01.x", "1.\u0661", "9" * 30 + ".x", "", "1.aaaa"])
async def test_forged_form_metadata_makes_no_request(slack_environment: SlackEnvironment, junk: str) -> None:
    await slack_environment.slack.click(ADA, await live_grant(slack_environment), "Extend")
    form = await slack_environment.slack.wait("the form", lambda: slack_environment.slack.form(ADA))
    forged = {**form, "private_metadata": f'{{"grant": "{junk}"}}'}
    assert (await slack_environment.slack.submit(ADA, forged, for_how_long="1h", why="mine now")).errors
    assert len(await slack_environment.environment.ledger.requests.find()) == 1


async def test_only_the_requester_can_use_the_buttons_of_the_credential_message(
    slack_environment: SlackEnvironment,
) -> None:
    message = await live_grant(slack_environment)
    before = next(iter(slack_environment.environment.server.users.values())).password
    for person in (LEAD, SECOND, STRANGER):
        for number, button in enumerate(
            ("Extend", "I'm done", "New password"), start=len(slack_environment.slack.answers(person)) + 1
        ):
            await slack_environment.slack.click(person, message, button)
            await wait_for_replies(slack_environment, person, number)
        assert slack_environment.slack.form(person) is None
    assert (await slack_environment.request()).state is State.ACTIVE
    assert [user.password for user in slack_environment.environment.server.users.values()] == [before]


async def test_two_stages_need_two_people_under_concurrent_clicks(slack_environment: SlackEnvironment) -> None:
    put_in_force(
        slack_environment.environment,
        approvals=[{"from": [LEAD, SECOND], "count": 1}, {"from": [ADMIN, LEAD], "count": 1}],
    )
    card = await slack_environment.make_request()
    clicks = [slack_environment.slack.click(who, card, "Approve", twice=True) for who in (LEAD, SECOND, LEAD, SECOND)]
    await asyncio.gather(*clicks)
    await slack_environment.slack.wait(
        "all clicks but the approvals are answered",
        lambda: len(slack_environment.slack.answers(LEAD)) + len(slack_environment.slack.answers(SECOND)) >= 6,
    )
    votes = {(d.stage, d.person_id) for d in await slack_environment.environment.ledger.requests.decisions(1)}
    assert len({person for _, person in votes}) == len(votes), "nobody decides twice"
    assert votes <= {(0, LEAD), (0, SECOND), (1, LEAD)}
    assert ((await slack_environment.request()).state is State.PENDING) == (len(votes) == 1)


# Deliveries that come twice (R16).


async def count_grants(slack_environment: SlackEnvironment) -> int:
    return len(
        [
            r
            for r in await slack_environment.environment.ledger.requests.find()
            if r.state in (State.APPROVED, State.ACTIVE)
        ]
    )


async def test_command_repeated_after_the_grant_makes_no_second_grant(slack_environment: SlackEnvironment) -> None:
    put_in_force(slack_environment.environment, approvals=[])
    await slack_environment.slack.command(ADA, AUTOMATIC)
    await slack_environment.expect_dm(ADA, "is ready")
    await slack_environment.slack.command(ADA, AUTOMATIC)
    await wait_for_replies(slack_environment, ADA, 2)
    assert await count_grants(slack_environment) == 1


async def test_command_redelivered_after_the_grant_makes_no_second_grant(slack_environment: SlackEnvironment) -> None:
    put_in_force(slack_environment.environment, approvals=[])
    payload = {
        "command": "/dbaccess", "text": AUTOMATIC, "user_id": ADA, "user_name": "ada", "team_id": TEAM, "channel_id": CARDS,
        "api_app_id": APP, "is_enterprise_install": "false", "trigger_id": slack_environment.slack.workspace.new_trigger(ADA),
        "response_url": f"{slack_environment.slack.url}/response/{slack_environment.slack.workspace.new_response_url(ADA, CARDS, None)}",
    }  # fmt: skip
    await slack_environment.slack.deliver("slash_commands", payload)
    await slack_environment.expect_dm(ADA, "is ready")
    await slack_environment.slack.deliver("slash_commands", payload, retry=1)
    await wait_for_replies(slack_environment, ADA, 2)
    require((await slack_environment.request()).state is State.ACTIVE, "the first grant is live")
    assert await count_grants(slack_environment) == 1


async def test_command_delivered_twice_at_once_makes_one_grant(slack_environment: SlackEnvironment) -> None:
    put_in_force(slack_environment.environment, approvals=[])
    await slack_environment.slack.command(ADA, AUTOMATIC, twice=True)
    await slack_environment.expect_dm(ADA, "is ready")
    await wait_for_replies(slack_environment, ADA, 2)
    assert await count_grants(slack_environment) == 1
