"""A configuration that changes during a use case, that is half written, or whose change does not show in size and time."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from bot.access import decide, request_access, review
from bot.access.use_case_types import RequestInput
from storage.records import Request, State
from tests.access.environment import ADA, ADMIN, HOUR, LEAD, SECOND, AccessEnvironment
from tests.access.steps import (
    BREAK_GLASS_RULE,
    change_during_lookup,
    load_now,
    put_in_force,
    refusal_of,
    use_break_glass,
)
from tests.open_faults import open_fault, require

LOOKS = 25
"""How many checks of the files, a tenth of a second apart, until a change must be in force."""

TWO_STAGES = """\
admins: [U0ADMIN]
alert_channel: C0ALERTS
defaults: {channel: C0CARDS}
rules:
  - name: shop
    requesters: [U0ADA]
    databases: [shop]
    levels: ["*"]
    approvals:
      - {from: [U0LEAD], count: 1}
      - {from: [U0SECOND], count: 1}
"""
ONE_STAGE = TWO_STAGES[: TWO_STAGES.index("      - {from: [U0SECOND]")]
BREAK_GLASS = """\
admins: [U0ADMIN]
alert_channel: C0ALERTS
defaults: {channel: C0CARDS}
rules:
  - name: glass
    requesters: [U0ADA]
    databases: ["*"]
    levels: ["*"]
    approvals: []
    break_glass: true
    review: {from: [U0SECOND], within: 24h}
"""
APPROVED_AT_ONCE = BREAK_GLASS[: BREAK_GLASS.index("    break_glass")]


# One configuration through a verb.


def swap(environment: AccessEnvironment, **keys: Any) -> None:
    """The first rule changes during a Slack lookup, and another listener loads the change."""
    change_during_lookup(environment, lambda: put_in_force(environment, **keys))


@open_fault("R2", "the approval of a former approver counts, and the audit log names the new policy")
async def test_approver_removed_during_the_click_does_not_approve(environment: AccessEnvironment) -> None:
    request = await environment.ask()
    swap(environment, approvals=[{"from": [SECOND, ADMIN]}])
    await refusal_of(environment.approve(request, LEAD))
    assert (await environment.now(request)).state is State.PENDING
    assert await environment.ledger.requests.decisions(request.id) == ()


@open_fault("R2", "the denial of a former approver counts")
async def test_approver_removed_during_the_click_does_not_deny(environment: AccessEnvironment) -> None:
    request = await environment.ask()
    swap(environment, approvals=[{"from": [SECOND, ADMIN]}])
    await refusal_of(decide.deny(environment.context, await environment.person(LEAD), request, "not today"))
    assert (await environment.now(request)).state is State.PENDING


@open_fault("R2", "the old level is granted on the new server")
async def test_database_moved_during_the_click_does_not_get_the_old_level(environment: AccessEnvironment) -> None:
    request = await environment.ask()

    def moves() -> None:
        environment.databases["databases"]["shop"]["admin_url"] = "env:OTHER_ADMIN_URL"
        environment.databases["databases"]["shop"]["levels"]["readonly"] = {"roles": ["another_reader"]}
        put_in_force(environment)

    change_during_lookup(environment, moves)
    await refusal_of(environment.approve(request, LEAD))
    assert (await environment.now(request)).state is State.OUTDATED


@open_fault("R2", "evaluated by the policy without approvers, granted under the policy with approvers")
async def test_rule_that_gains_approvers_during_automatic_approval_applies(environment: AccessEnvironment) -> None:
    put_in_force(environment, approvals=[])
    wanted = RequestInput(database="shop", level="readonly", duration=HOUR, reason="looking at a refund")
    ada = await environment.person(ADA)
    change_during_lookup(
        environment, lambda: swap(environment, approvals=[{"from": [LEAD, SECOND]}])
    )  # the second lookup is the approval's
    await refusal_of(request_access.request_access(environment.context, ada, wanted))
    require(environment.policy["rules"][0]["approvals"], "the approval asked Slack again")
    await environment.drain()
    assert not [r for r in await environment.ledger.requests.find() if r.state in (State.APPROVED, State.ACTIVE)]


@open_fault("R2", "the sign-off of a former reviewer counts")
async def test_reviewer_removed_during_the_click_does_not_sign_off(environment: AccessEnvironment) -> None:
    environment.policy["rules"].append(dict(BREAK_GLASS_RULE))
    put_in_force(environment)
    request = await use_break_glass(environment)
    require(request.state is State.ACTIVE, "break-glass access is granted")

    def replaced() -> None:
        environment.policy["rules"][1] = {**BREAK_GLASS_RULE, "review": {"from": [ADMIN, LEAD], "within": "24h"}}
        put_in_force(environment)

    change_during_lookup(environment, replaced)
    await refusal_of(review.sign_off(environment.context, await environment.person(SECOND), request))
    assert (await environment.now(request)).needs_review


# A file that is being written.


async def stages(environment: AccessEnvironment, request: Request) -> int:
    return len((await environment.now(request)).terms.stages)


def write_in_place(environment: AccessEnvironment, text: str) -> None:
    """Write only a part of the file, as an editor or a copy does for a moment."""
    (environment.folder / "policy.yml").write_text(text)


@open_fault("R3", "the half-written file is valid YAML and in force at once: one stage is left")
async def test_half_written_policy_is_not_in_force(environment: AccessEnvironment) -> None:
    write_in_place(environment, TWO_STAGES)
    load_now(environment)
    require(await stages(environment, await environment.ask()) == 2, "the whole file asks for two stages")
    write_in_place(environment, ONE_STAGE)
    request = await environment.ask(duration=2 * HOUR)
    assert await stages(environment, request) == 2


@open_fault("R3", "without the line that makes it break-glass, the rule approves everything at once")
async def test_half_written_break_glass_rule_grants_nothing(environment: AccessEnvironment) -> None:
    write_in_place(environment, TWO_STAGES)
    load_now(environment)
    write_in_place(environment, APPROVED_AT_ONCE)
    request = await environment.ask()
    assert request.state is State.PENDING
    assert environment.server.users == {}


@open_fault("R3", "a click during the half-written file closes the request as out of date")
async def test_half_written_policy_closes_no_request(environment: AccessEnvironment) -> None:
    write_in_place(environment, TWO_STAGES)
    load_now(environment)
    request = await environment.ask()
    write_in_place(environment, APPROVED_AT_ONCE)
    await refusal_of(environment.approve(request, LEAD))
    assert (await environment.now(request)).state is State.PENDING
    assert [d.person_id for d in await environment.ledger.requests.decisions(request.id)] == [LEAD]


@open_fault("R3", "the cut file is in force although its last line, the end mark, is missing")
async def test_policy_that_lost_its_end_mark_is_not_in_force(environment: AccessEnvironment) -> None:
    write_in_place(environment, TWO_STAGES + "...\n")
    load_now(environment)
    require(await stages(environment, await environment.ask()) == 2, "the whole file asks for two stages")
    write_in_place(environment, ONE_STAGE)
    for _ in range(3):
        await environment.turn(minutes=1)
        load_now(environment)
    assert await stages(environment, await environment.ask(duration=2 * HOUR)) == 2


# A file that looks as it did before.


def by_symlink(folder: Path) -> Callable[[str], None]:
    """Replace a link to a folder, as a ConfigMap does."""
    numbers = iter(range(100))

    def replace(text: str) -> None:
        version = folder / f"v{next(numbers)}"
        version.mkdir()
        (version / "policy.yml").write_text(text)
        os.utime(version / "policy.yml", (1, 1))
        (folder / "data_new").symlink_to(version.name)
        (folder / "data_new").replace(folder / "data")

    (folder / "policy.yml").unlink()
    (folder / "policy.yml").symlink_to("data/policy.yml")
    return replace


def by_rename(folder: Path) -> Callable[[str], None]:
    """Write another file with the same times and rename it, as some tools do."""

    def replace(text: str) -> None:
        (folder / "policy.new").write_text(text)
        os.utime(folder / "policy.new", (1, 1))
        (folder / "policy.new").replace(folder / "policy.yml")

    return replace


async def comes_into_force(environment: AccessEnvironment, requester: str) -> bool:
    """Check the files again and again, as the bot does, while the clock moves."""
    for _ in range(LOOKS):
        if requester in environment.context.config_in_force().policy.rules[0].requesters:
            return True
        environment.clock.at += HOUR / 3600
        await asyncio.sleep(0.1)
    return False


@pytest.mark.parametrize("way", [by_symlink, by_rename])
@open_fault("R4", "a file of the same size and time is never read")
async def test_changed_policy_of_the_same_size_and_time_is_loaded(
    environment: AccessEnvironment, way: Callable[[Path], Callable[[str], None]]
) -> None:
    replace, text = way(environment.folder), yaml.safe_dump(environment.policy)
    require(len(text) == len(text.replace(ADA, "U0XXX")), "the sizes are the same")
    replace(text)
    load_now(environment)
    require(await comes_into_force(environment, ADA), "the first file is in force")
    replace(text.replace(ADA, "U0XXX"))
    assert await comes_into_force(environment, "U0XXX")
