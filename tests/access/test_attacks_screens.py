"""Text that people type, and messages: invisible text counts as empty, and one event makes one message."""

from __future__ import annotations

import asyncio

import pytest

from bot.access.errors import Refused
from bot.access.ports import Delayed, Notice
from bot.access.use_case_types import FormNeeded
from bot.notifications.notices import GrantedNotice
from storage.audit_kinds import AuditKind
from tests.access.environment import HOUR, STRANGER, AccessEnvironment
from tests.access.steps import BREAK_GLASS_RULE, alerts, put_in_force, recorded, refusal_of, use_break_glass
from tests.access.test_cli import CommandLine
from tests.open_faults import open_fault, require

DRAWS_NOTHING = {
    "zero width space": "\u200b",
    "soft hyphen": "\u00ad",
    "word joiner": "\u2060",
    "byte order mark": "\ufeff",
    "hangul filler": "\u3164",
    "braille blank": "\u2800",
    "variation selector": "\ufe0f",
    "tag": "\U000e0041",
}


@pytest.mark.parametrize("character", DRAWS_NOTHING.values(), ids=DRAWS_NOTHING.keys())
@open_fault("R16", "an auditor reads an empty reason")
async def test_invisible_reason_is_refused(environment: AccessEnvironment, character: str) -> None:
    refused = await refusal_of(_request(environment, character * 10))
    assert refused is not None
    assert await environment.ledger.requests.find() == ()


async def _request(environment: AccessEnvironment, reason: str) -> None:
    """A form that asks for the reason counts as a refusal too."""
    try:
        await environment.ask(reason=reason)
    except FormNeeded as needed:
        raise Refused(str(needed)) from None


async def test_joiners_between_visible_characters_stay(environment: AccessEnvironment) -> None:
    request = await environment.ask(reason="\U0001f469\u200d\U0001f4bb looks at a refund")
    assert request.reason == "\U0001f469\u200d\U0001f4bb looks at a refund"


async def test_break_glass_is_granted_once_and_alerted_once(environment: AccessEnvironment) -> None:
    environment.policy["rules"].append(dict(BREAK_GLASS_RULE))
    put_in_force(environment)
    tries = 0

    def slow(_place: str, notice: Notice) -> Delayed | None:
        nonlocal tries
        tries += isinstance(notice, GrantedNotice)
        return Delayed("rate limited") if isinstance(notice, GrantedNotice) and tries <= 4 else None

    environment.messenger.refuse = slow
    await use_break_glass(environment)
    await environment.turn(minutes=5)
    require(tries > 4, "it was retried and notified in the end")
    assert len([told for told in alerts(environment) if "used break-glass access" in told]) == 1


async def test_request_repeated_after_a_moment_is_one_grant(environment: AccessEnvironment) -> None:
    put_in_force(environment, approvals=[])
    await environment.ask()
    await environment.turn(seconds=1.5)
    await environment.ask()
    assert len(environment.server.users) == 1


async def test_click_of_a_stranger_is_recorded(environment: AccessEnvironment) -> None:
    request = await environment.ask()
    await refusal_of(environment.approve(request, STRANGER))
    assert len(await recorded(environment, AuditKind.CLICK_REFUSED)) == 1


async def test_request_for_another_duration_is_another_request(environment: AccessEnvironment) -> None:
    put_in_force(environment, approvals=[])
    first, second = await environment.ask(), await environment.ask(duration=2 * HOUR)
    assert first.id != second.id
    assert len(environment.server.users) == 2


FORGED = "2026-11-23 10:00  request.approved  U0SECOND"


@open_fault("R16", "a line break in a reason starts a new line of the history")
async def test_reason_cannot_forge_a_line_on_the_command_line(environment: AccessEnvironment) -> None:
    """The request form accepts line breaks."""
    request = await environment.ask(reason=f"looking at a refund\n  {FORGED}")
    shown, _ = await asyncio.to_thread(CommandLine(environment.folder).run, "show", str(request.id))
    require("looking at a refund" in shown, "the reason is shown")
    assert FORGED not in [line.strip() for line in shown.splitlines()]
