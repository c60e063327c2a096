"""Only confirmed full members of the workspace or organisation are members. Failed lookups never grant access."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bot.access.ports import DirectoryUnavailable
from bot.slack.connection import web_client
from bot.slack.directory import SlackDirectory
from bot.slack.user_groups import FRESH_SECONDS
from tests.fake_slack.fair_clock import FairClock
from tests.unit.stub_web_api import AUTH_TEST, StubWebApi, stub_web_api
from tests.unit.test_messenger import INVALID_ANSWERS

ADA = {"id": "U0ADA", "team_id": "T0TEAM", "name": "ada", "profile": {"display_name": "Ada"}}


class Clock:
    at = 100.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
async def slack() -> AsyncIterator[StubWebApi]:
    async with stub_web_api() as stub:
        stub.answers["users.info"] = {"ok": True, "user": ADA}
        yield stub


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def directory(slack: StubWebApi, clock: Clock) -> SlackDirectory:
    return SlackDirectory(web_client("xoxb-1", slack.url), clock=clock)


async def test_full_member_is_a_member(directory: SlackDirectory) -> None:
    ada = await directory.person("U0ADA")
    assert (ada.is_member, ada.name, ada.not_member_reason) == (True, "Ada", "")


@pytest.mark.parametrize(
    ("about", "why"),
    [
        ({"deleted": True}, "deactivated"),
        ({"is_bot": True}, "a bot"),
        ({"is_workflow_bot": True}, "a workflow"),
        ({"id": "USLACKBOT", "is_bot": False}, "a bot"),
        ({"is_restricted": True}, "a guest"),
        ({"is_ultra_restricted": True, "is_restricted": True}, "a guest"),
        ({"is_stranger": True}, "not of this workspace"),
        ({"is_invited_user": True}, "invited, but not yet a member"),
        ({"team_id": "T0OTHER"}, "not of this workspace"),
        ({"team_id": "T0OTHER", "is_stranger": False}, "not of this workspace"),
        ({"team_id": None}, "not of this workspace"),
        ({"team_id": "T0OTHER", "enterprise_user": {"enterprise_id": "E0OTHER"}}, "not of this workspace"),
        ({"team_id": "T0OTHER", "enterprise_user": {"enterprise_id": None}}, "not of this workspace"),
    ],
)
async def test_everyone_else_is_not_a_member(
    slack: StubWebApi, directory: SlackDirectory, about: dict[str, Any], why: str
) -> None:
    slack.answers["users.info"] = {"ok": True, "user": {**ADA, **about}}
    seen = await directory.person("U0ADA")
    assert (seen.is_member, seen.not_member_reason) == (False, why)


@pytest.mark.parametrize(
    ("about", "is_member"),
    [
        ({"team_id": "T0SISTER", "enterprise_user": {"enterprise_id": "E0US"}}, True),
        ({"team_id": "E0US"}, True),
        ({"team_id": "T0SISTER", "enterprise_user": {"enterprise_id": "E0OTHER"}}, False),
        ({"team_id": "T0SISTER"}, False),
        ({"team_id": "T0SISTER", "enterprise_user": {"enterprise_id": "E0US"}, "is_restricted": True}, False),
    ],
)
async def test_members_of_all_workspaces_of_the_organisation_are_members(
    slack: StubWebApi, directory: SlackDirectory, about: dict[str, Any], is_member: bool
) -> None:
    slack.answers["auth.test"] = {**AUTH_TEST, "enterprise_id": "E0US"}
    slack.answers["users.info"] = {"ok": True, "user": {**ADA, **about}}
    assert (await directory.person("U0ADA")).is_member is is_member


@pytest.mark.parametrize("code", ["user_not_found", "user_not_visible"])
async def test_unknown_person_is_not_a_member(slack: StubWebApi, directory: SlackDirectory, code: str) -> None:
    slack.answers["users.info"] = {"ok": False, "error": code}
    assert (await directory.person("U0WHO")).is_member is False


@pytest.mark.parametrize("method", ["auth.test", "users.info"])
@pytest.mark.parametrize(
    "answer", [{"ok": False, "error": "ratelimited"}, {"ok": False, "error": "x"}, *INVALID_ANSWERS]
)
async def test_failed_person_lookup_raises(
    slack: StubWebApi, directory: SlackDirectory, method: str, answer: object
) -> None:
    slack.answers[method] = answer
    with pytest.raises(DirectoryUnavailable):
        await directory.person("U0ADA")


async def test_person_is_cached_for_a_minute(slack: StubWebApi, directory: SlackDirectory, clock: Clock) -> None:
    await directory.person("U0ADA")
    slack.answers["users.info"] = {"ok": True, "user": {**ADA, "deleted": True}}
    clock.at += FRESH_SECONDS - 1
    assert (await directory.person("U0ADA")).is_member
    clock.at += 1
    assert not (await directory.person("U0ADA")).is_member
    assert FRESH_SECONDS <= 60


@pytest.mark.parametrize("way", ["fresh", "forget"])
async def test_changed_person_is_looked_up_again(slack: StubWebApi, directory: SlackDirectory, way: str) -> None:
    await directory.person("U0ADA")
    slack.answers["users.info"] = {"ok": True, "user": {**ADA, "is_restricted": True}}
    if way == "forget":
        directory.forget("U0ADA")
    assert not (await directory.person("U0ADA", fresh=way == "fresh")).is_member
    assert not (await directory.person("U0ADA")).is_member


async def test_expired_cache_is_not_used_if_slack_fails(
    slack: StubWebApi, directory: SlackDirectory, clock: Clock
) -> None:
    await directory.person("U0ADA")
    slack.answers["users.info"] = (503, "text/plain", b"no")
    clock.at += FRESH_SECONDS
    with pytest.raises(DirectoryUnavailable):
        await directory.person("U0ADA")


# Groups and addresses.

LEADS = {"id": "S0LEADS", "handle": "leads", "date_delete": 0, "users": ["U0LEAD", "U0ADA"], "user_count": 2}


@pytest.fixture
def groups(slack: StubWebApi) -> list[dict[str, Any]]:
    listed = [LEADS, {**LEADS, "id": "S0OLD", "handle": "old", "date_delete": 17}]
    slack.answers["usergroups.list"] = {"ok": True, "usergroups": listed}
    return listed


async def test_groups_are_found_by_id_and_handle_with_one_call(
    slack: StubWebApi, directory: SlackDirectory, groups: list[dict[str, Any]]
) -> None:
    found = await directory.members(["S0LEADS", "@leads", "S0OLD", "@old", "S0NONE", "@none", "U0ADA"])
    both = frozenset({"U0LEAD", "U0ADA"})
    nobody: frozenset[str] = frozenset()
    assert found == {
        "S0LEADS": both,
        "@leads": both,
        "S0OLD": nobody,
        "@old": nobody,
        "U0ADA": frozenset({"U0ADA"}),
    }
    assert await directory.group_ids(["@leads", "@none"]) == {"@leads": "S0LEADS"}
    assert slack.times("usergroups.list") == 1
    assert groups


async def test_concurrent_group_lookups_share_one_call(
    slack: StubWebApi, directory: SlackDirectory, groups: list[dict[str, Any]]
) -> None:
    found = await asyncio.gather(*(directory.members(["S0LEADS"]) for _ in range(20)))
    assert all(one["S0LEADS"] == {"U0LEAD", "U0ADA"} for one in found)
    assert slack.times("usergroups.list") == 1
    assert groups


@pytest.mark.parametrize("way", ["a minute", "forget"])
async def test_changed_group_is_looked_up_again(
    slack: StubWebApi, directory: SlackDirectory, clock: Clock, groups: list[dict[str, Any]], way: str
) -> None:
    await directory.members(["S0LEADS"])
    groups[0] = {**LEADS, "users": [], "user_count": 0}
    if way == "forget":
        directory.forget_groups()
    else:
        clock.at += FRESH_SECONDS - 1
        assert (await directory.members(["S0LEADS"]))["S0LEADS"]
        clock.at += 1
    assert (await directory.members(["S0LEADS"])) == {"S0LEADS": frozenset()}


@pytest.mark.parametrize(
    "answer", [{"ok": False, "error": "ratelimited"}, {"ok": False, "error": "x"}, *INVALID_ANSWERS]
)
@pytest.mark.parametrize("method", ["usergroups.list", "users.lookupByEmail", "auth.test"])
async def test_failed_lookup_is_missing_and_never_an_empty_group(
    slack: StubWebApi, directory: SlackDirectory, groups: list[dict[str, Any]], method: str, answer: object
) -> None:
    slack.answers["users.lookupByEmail"] = {"ok": True, "user": ADA}
    slack.answers[method] = answer
    found = await directory.members(["S0LEADS", "ada@example.com"])
    silent = {"usergroups.list": {"S0LEADS"}, "users.lookupByEmail": {"ada@example.com"}}
    assert found.keys() == {"S0LEADS", "ada@example.com"} - silent.get(method, {"S0LEADS", "ada@example.com"})
    assert groups


async def test_truncated_members_are_fetched_separately(
    slack: StubWebApi, directory: SlackDirectory, groups: list[dict[str, Any]]
) -> None:
    groups[0] = {**LEADS, "users": ["U0LEAD"], "user_count": 2}
    slack.answers["usergroups.users.list"] = {"ok": True, "users": ["U0LEAD", "U0ADA"]}
    assert (await directory.members(["S0LEADS"]))["S0LEADS"] == {"U0LEAD", "U0ADA"}


async def test_slow_group_lookup_times_out_and_is_cached_later(
    slack: StubWebApi, directory: SlackDirectory, groups: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.slack.user_groups.WAIT_SECONDS", 0.05)
    slack.delay = 0.5
    assert await directory.members(["S0LEADS"]) == {}
    slack.delay = 0.0
    async with asyncio.timeout(60):
        while not (found := await directory.members(["S0LEADS"])):
            await asyncio.sleep(0.01)
    assert found["S0LEADS"]
    assert slack.times("usergroups.list") == 1  # the late answer is cached
    assert groups


@pytest.mark.parametrize(
    ("answer", "who"),
    [
        ({"ok": True, "user": ADA}, {"U0ADA"}),
        ({"ok": True, "user": {**ADA, "deleted": True}}, set()),
        ({"ok": True, "user": {**ADA, "team_id": "T0OTHER"}}, set()),
        ({"ok": False, "error": "users_not_found"}, set()),
    ],
)
async def test_address_has_a_member_as_owner_or_nobody(
    slack: StubWebApi, directory: SlackDirectory, answer: dict[str, Any], who: set[str]
) -> None:
    slack.answers["users.lookupByEmail"] = answer
    for _ in range(2):
        assert await directory.members(["ada@example.com"]) == {"ada@example.com": who}
    assert slack.times("users.lookupByEmail") == 1


async def test_slow_address_lookups_are_cached_for_the_next_call(
    slack: StubWebApi, directory: SlackDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.slack.emails.WAIT_SECONDS", 0.1)
    slack.answers["users.lookupByEmail"] = {"ok": True, "user": ADA}
    slack.delay = 0.03
    addresses = [f"a{n}@example.com" for n in range(60)]
    first = await directory.members(addresses)
    assert len(first) < len(addresses)
    while len(await directory.members(addresses)) < len(addresses):
        pass
    assert slack.times("users.lookupByEmail") == len(addresses)


async def test_owner_of_an_address_is_looked_up_again_after_a_change(
    slack: StubWebApi, directory: SlackDirectory
) -> None:
    slack.answers["users.lookupByEmail"] = {"ok": True, "user": ADA}
    assert (await directory.members(["ada@example.com"]))["ada@example.com"] == {"U0ADA"}
    slack.answers["users.lookupByEmail"] = {"ok": False, "error": "users_not_found"}
    directory.forget("U0OTHER")
    assert (await directory.members(["ada@example.com"]))["ada@example.com"] == {"U0ADA"}
    directory.forget("U0ADA")
    assert (await directory.members(["ada@example.com"])) == {"ada@example.com": frozenset()}


@pytest.mark.parametrize(
    "answer",
    [
        {"ok": True},
        {"ok": True, "usergroups": None},
        {"ok": True, "usergroups": [{"id": "S0LEADS"}]},
        (200, "application/json", b"<html>a gateway</html>"),
        (200, "application/json", b"[]"),
    ],
)
async def test_invalid_answer_is_a_failed_lookup(slack: StubWebApi, directory: SlackDirectory, answer: object) -> None:
    for method in ("usergroups.list", "users.lookupByEmail", "users.info"):
        slack.answers[method] = answer
    assert await directory.members(["S0LEADS", "ada@example.com"]) == {}
    with pytest.raises(DirectoryUnavailable):
        await directory.person("U0ADA")


async def test_truncated_group_does_not_hide_other_groups(
    slack: StubWebApi, directory: SlackDirectory, groups: list[dict[str, Any]]
) -> None:
    groups[0] = {**LEADS, "users": ["U0LEAD"], "user_count": 2}
    slack.answers["usergroups.users.list"] = {"ok": False, "error": "ratelimited"}
    assert await directory.members(["S0LEADS", "S0OLD"]) == {"S0OLD": frozenset()}


async def test_second_lookup_does_not_wait_after_a_timeout(
    slack: StubWebApi, directory: SlackDirectory, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.slack.user_groups.WAIT_SECONDS", 0.3)
    slack.delay = 1.5
    slack.answers["usergroups.list"] = {"ok": True, "usergroups": [LEADS]}
    waited = FairClock()
    assert await directory.members(["S0LEADS"]) == {}
    assert await directory.group_ids(["@leads"]) == {}
    assert await directory.members(["S0LEADS"]) == {}
    assert waited() < 0.55
    assert clock()


async def test_whoever_is_in_the_channel_is_looked_up_once_a_minute(
    slack: StubWebApi, directory: SlackDirectory, clock: Clock
) -> None:
    slack.answers["conversations.members"] = {"ok": True, "members": ["U0ADA", "U0LEAD"]}
    assert await directory.outside("C0CARDS", ["U0ADA", "U0AWAY"]) == ("U0AWAY",)
    assert await directory.outside("C0CARDS", ["U0ADA"]) == ()
    assert slack.times("conversations.members") == 1
    assert await directory.outside("C0CARDS", ["U0AWAY"]) == ("U0AWAY",), "who was not there is looked up again"
    assert await directory.outside("C0OTHER", ["U0ADA"]) == ()
    assert slack.times("conversations.members") == 3
    slack.answers["conversations.members"] = {"ok": True, "members": []}
    clock.at += FRESH_SECONDS
    assert await directory.outside("C0CARDS", ["U0ADA"]) == ("U0ADA",)
