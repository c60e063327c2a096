"""Clicks, commands and forms in the wrong hands, at the wrong moment, or twice. By the strict double."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from storage.records import State
from tests.access.house import CARDS
from tests.access.steps import put_in_force
from tests.fake_slack.workspace import APP, TEAM
from tests.open_faults import open_fault, require
from tests.slack.conftest import ADA, ADMIN, LEAD, SECOND, STRANGER, Office

LEADS, DBAS = "S0LEADS", "S0DBAS"
AUTOMATIC = "request shop readonly 1h looking at a refund"


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine the double may take longer than a person would wait; then no answer would hide what is tested."""
    for module in ("groups", "addresses"):
        monkeypatch.setattr(f"bot.slack.{module}.WITHIN_SECONDS", 60.0)


async def live(office: Office) -> dict[str, Any]:
    """A grant; its credential message."""
    card = await office.ask()
    await office.slack.click(LEAD, card, "Approve")
    message = await office.expect_dm(ADA, "is ready")
    await office.expect_card(card["ts"], "until")
    return message


async def answered(office: Office, person: str, number: int) -> None:
    await office.slack.wait(f"{person} has {number} answers", lambda: len(office.slack.answers(person)) >= number)


async def at_rest(office: Office) -> None:
    """Until the runner has nothing left to do now."""
    ledger = office.house.ledger
    deadline = asyncio.get_running_loop().time() + 20
    while any(task.due_at <= office.house.clock() for task in await ledger.tasks()):
        require(asyncio.get_running_loop().time() < deadline, "the runner comes to rest")
        await asyncio.sleep(0.05)


# One configuration through a click (R2).


@open_fault("R2", "while Slack is asked the files change: judged by the old ones, recorded under the new")
async def test_a_policy_that_is_replaced_while_slack_is_asked_decides(office: Office) -> None:
    office.slack.workspace.add_group(LEADS, "leads", LEAD)
    office.slack.workspace.add_group(DBAS, "dbas", SECOND)
    put_in_force(office.house, approvals=[{"from": [LEADS]}])
    card = await office.ask()
    await at_rest(office)  # so that it is the click that asks Slack
    office.house.context.directory.forget_groups()
    asked = len(office.slack.calls)
    arrives = office.slack.late["usergroups.list"] = asyncio.Event()
    click = asyncio.create_task(office.slack.click(LEAD, card, "Approve"))
    await office.slack.wait("Slack is asked", lambda: "usergroups.list" in dict(office.slack.calls[asked:]))
    put_in_force(office.house, approvals=[{"from": [DBAS]}])
    arrives.set()
    await click
    await office.slack.wait(
        "an end of it", lambda: "is ready" in str(office.slack.dm(ADA)) or office.slack.answers(LEAD)
    )
    assert (await office.request()).state is State.PENDING


async def test_a_deny_form_of_somebody_who_is_no_approver_any_more_denies_nothing(office: Office) -> None:
    card = await office.ask()
    await office.slack.click(LEAD, card, "Deny")
    form = await office.slack.wait("the form", lambda: office.slack.form(LEAD))
    put_in_force(office.house, approvals=[{"from": [SECOND, ADMIN]}])
    assert (await office.slack.submit(LEAD, form, why="not today")).errors
    assert (await office.request()).state is State.PENDING


async def test_an_ask_form_of_somebody_who_may_not_ask_any_more_asks_nothing(office: Office) -> None:
    await office.slack.command(ADA, "request shop readonly 1h")
    form = await office.slack.wait("the form", lambda: office.slack.form(ADA))
    put_in_force(office.house, requesters=[SECOND])
    assert (await office.slack.submit(ADA, form, why="looking at a refund")).errors
    assert await office.house.ledger.requests() == ()


# What is not theirs.


async def test_a_form_for_more_time_is_the_requesters_alone(office: Office) -> None:
    await office.slack.click(ADA, await live(office), "Extend")
    form = await office.slack.wait("the form", lambda: office.slack.form(ADA))
    assert (await office.slack.submit(LEAD, form, for_how_long="1h", why="mine now")).errors
    assert len(await office.house.ledger.requests()) == 1


@pytest.mark.parametrize("junk", ["1.", "1", "01.x", "1.\u0661", "9" * 30 + ".x", "", "1.aaaa"])
async def test_a_form_that_was_tampered_with_asks_nothing(office: Office, junk: str) -> None:
    await office.slack.click(ADA, await live(office), "Extend")
    form = await office.slack.wait("the form", lambda: office.slack.form(ADA))
    forged = {**form, "private_metadata": f'{{"grant": "{junk}"}}'}
    assert (await office.slack.submit(ADA, forged, for_how_long="1h", why="mine now")).errors
    assert len(await office.house.ledger.requests()) == 1


async def test_the_buttons_of_a_credential_message_are_the_requesters_alone(office: Office) -> None:
    message = await live(office)
    before = next(iter(office.house.server.users.values())).password
    for person in (LEAD, SECOND, STRANGER):
        for number, button in enumerate(
            ("Extend", "I'm done", "New password"), start=len(office.slack.answers(person)) + 1
        ):
            await office.slack.click(person, message, button)
            await answered(office, person, number)
        assert office.slack.form(person) is None
    assert (await office.request()).state is State.ACTIVE
    assert [user.password for user in office.house.server.users.values()] == [before]


async def test_two_stages_clicked_many_times_at_once_need_two_people(office: Office) -> None:
    put_in_force(office.house, approvals=[{"from": [LEAD, SECOND], "count": 1}, {"from": [ADMIN, LEAD], "count": 1}])
    card = await office.ask()
    clicks = [office.slack.click(who, card, "Approve", twice=True) for who in (LEAD, SECOND, LEAD, SECOND)]
    await asyncio.gather(*clicks)
    await office.slack.wait(
        "all but the votes are answered",
        lambda: len(office.slack.answers(LEAD)) + len(office.slack.answers(SECOND)) >= 6,
    )
    votes = {(d.stage, d.person_id) for d in await office.house.ledger.decisions(1)}
    assert len({person for _, person in votes}) == len(votes), "nobody decides twice"
    assert votes <= {(0, LEAD), (0, SECOND), (1, LEAD)}
    assert ((await office.request()).state is State.PENDING) == (len(votes) == 1)


# What comes twice (R16).


async def granted(office: Office) -> int:
    return len([r for r in await office.house.ledger.requests() if r.state in (State.APPROVED, State.ACTIVE)])


@open_fault("R16", "typed again when it was carried out, it is granted again")
async def test_a_command_typed_again_after_a_moment_is_one_grant(office: Office) -> None:
    put_in_force(office.house, approvals=[])
    await office.slack.command(ADA, AUTOMATIC)
    await office.expect_dm(ADA, "is ready")
    await office.slack.command(ADA, AUTOMATIC)
    await answered(office, ADA, 2)
    assert await granted(office) == 1


@open_fault("R16", "delivered again by Slack when it was carried out, it is granted again")
async def test_a_command_delivered_again_after_a_moment_is_one_grant(office: Office) -> None:
    put_in_force(office.house, approvals=[])
    payload = {
        "command": "/dbaccess", "text": AUTOMATIC, "user_id": ADA, "user_name": "ada", "team_id": TEAM, "channel_id": CARDS,
        "api_app_id": APP, "is_enterprise_install": "false", "trigger_id": office.slack.workspace.new_trigger(ADA),
        "response_url": f"{office.slack.url}/response/{office.slack.workspace.new_response_url(ADA, CARDS, None)}",
    }  # fmt: skip
    await office.slack.deliver("slash_commands", payload)
    await office.expect_dm(ADA, "is ready")
    await office.slack.deliver("slash_commands", payload, retry=1)
    await answered(office, ADA, 2)
    require((await office.request()).state is State.ACTIVE, "the first one lives")
    assert await granted(office) == 1


async def test_a_command_delivered_twice_at_once_is_one_grant(office: Office) -> None:
    put_in_force(office.house, approvals=[])
    await office.slack.command(ADA, AUTOMATIC, twice=True)
    await office.expect_dm(ADA, "is ready")
    await answered(office, ADA, 2)
    assert await granted(office) == 1
