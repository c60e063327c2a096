"""Lockdown: nothing new is granted, what is live ends at once, and only another admin lifts it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from copy import deepcopy
from typing import Any

import pytest
from sqlalchemy import update

from adapters.base import ServerDown
from bot.access import decide, extend, lockdown, request_access, use_case_types
from bot.access.errors import Refused
from bot.access.ports import Person, Undeliverable
from bot.access.use_case_types import LockdownOutcome, LockdownScope, UnlockOutcome
from bot.notifications.notices import AlertNotice, LockdownNotice
from storage.audit_kinds import AuditKind
from storage.lockdowns import EndedChunk
from storage.records import Cause, Priority, Request, RequestKind, State, TaskKind
from storage.schema import requests
from tests.access.environment import (
    ADA,
    ADMIN,
    ALERTS,
    HOUR,
    LEAD,
    SECOND,
    STRANGER,
    AccessEnvironment,
    Killed,
)
from tests.access.hanging import HangingServers, at_once, expect
from tests.access.steps import BREAK_GLASS_RULE, put_in_force, recorded, refusal_of
from tests.open_faults import require

EVERYTHING = LockdownScope()
SHOP = LockdownScope(database="shop")
OPERATOR = Person(id="cli:root", name="root", is_member=True)
OTHER_OPERATOR = Person(id="cli:dba", name="dba", is_member=True)
SCOPES = [EVERYTHING, SHOP, LockdownScope(person_id=ADA)]


@pytest.fixture
def two_admins(environment: AccessEnvironment) -> AccessEnvironment:
    environment.policy["admins"] = [ADMIN, SECOND]
    environment.write()
    return environment


async def set_by(environment: AccessEnvironment, who: str, scope: LockdownScope = SHOP) -> LockdownOutcome:
    return await lockdown.lock_down(environment.context, await environment.person(who), scope)


async def lifted_by(environment: AccessEnvironment, who: str, scope: LockdownScope = EVERYTHING) -> UnlockOutcome:
    return await lockdown.unlock(environment.context, await environment.person(who), scope)


def message(environment: AccessEnvironment, place: str = ALERTS) -> LockdownNotice:
    (found,) = environment.messenger.on(place, LockdownNotice)
    assert isinstance(found, LockdownNotice)
    return found


async def refused(verb: Awaitable[object]) -> str:
    with pytest.raises(Refused) as no:
        await verb
    return str(no.value)


# Grants end, and nothing new is granted.


@pytest.mark.parametrize("scope", SCOPES)
async def test_a_lockdown_ends_matching_grants_at_once(two_admins: AccessEnvironment, scope: LockdownScope) -> None:
    request = await two_admins.granted()
    require(two_admins.login(request) is not None, "it logs in")
    outcome = await set_by(two_admins, ADMIN, scope)
    assert (outcome.is_new, outcome.ended, outcome.lockdown.grants) == (True, 1, 1)
    ending = await two_admins.now(request)
    assert (ending.state, ending.ended_because, ending.ended_by) == (State.REVOKING, Cause.LOCKDOWN, ADMIN)
    await two_admins.drain()
    assert (await two_admins.now(request)).state is State.REVOKED
    assert two_admins.server.users == {}
    assert two_admins.server.sessions == {}


async def test_other_grants_stay_live(two_admins: AccessEnvironment) -> None:
    request = await two_admins.granted()
    await set_by(two_admins, ADMIN, LockdownScope(person_id=LEAD))
    two_admins.databases["databases"]["blog"] = deepcopy(two_admins.databases["databases"]["shop"])
    put_in_force(two_admins)
    await set_by(two_admins, ADMIN, LockdownScope(database="blog"))
    await two_admins.drain()
    assert (await two_admins.now(request)).state is State.ACTIVE


@pytest.mark.parametrize("scope", SCOPES)
async def test_a_request_is_refused_with_who_can_lift_it(two_admins: AccessEnvironment, scope: LockdownScope) -> None:
    await set_by(two_admins, ADMIN, scope)
    no = await refusal_of(two_admins.ask())
    assert isinstance(no, Refused)
    assert "is locked down, by admin since 09:00 UTC" in str(no)
    assert "Nothing is granted until another admin lifts it: /dbaccess unlock" in str(no)
    assert no.whom == (SECOND,)
    assert await two_admins.ledger.requests.find() == ()
    await lifted_by(two_admins, SECOND)
    assert (await two_admins.granted()).state is State.ACTIVE


async def test_break_glass_is_refused_too(two_admins: AccessEnvironment) -> None:
    two_admins.policy["rules"].append(dict(BREAK_GLASS_RULE))
    two_admins.write()
    await set_by(two_admins, ADMIN)
    wanted = use_case_types.RequestInput(
        database="shop", level="readonly", duration=HOUR / 2, reason="all is down", kind=RequestKind.BREAK_GLASS
    )
    verb = request_access.request_access(two_admins.context, await two_admins.person(ADA), wanted)
    assert "is locked down" in await refused(verb)


async def test_a_pending_request_cannot_be_approved_but_denied(two_admins: AccessEnvironment) -> None:
    request, other = await two_admins.ask(), await two_admins.ask(LEAD)
    await set_by(two_admins, ADMIN)
    assert "Access to shop is locked down" in await refused(two_admins.approve(request))
    assert (await two_admins.now(request)).state is State.PENDING
    await decide.deny(two_admins.context, await two_admins.person(SECOND), other, "not now")
    await lifted_by(two_admins, SECOND, SHOP)
    assert (await two_admins.approve(request)).state is State.APPROVED


@pytest.mark.parametrize("kind", [RequestKind.ACCESS, RequestKind.BREAK_GLASS])
async def test_a_request_without_approvers_waits_for_the_end_of_the_lockdown(
    two_admins: AccessEnvironment, kind: RequestKind
) -> None:
    """It was stored, and not yet granted, when everything was locked down."""
    two_admins.policy["rules"].append(dict(BREAK_GLASS_RULE))
    put_in_force(two_admins, approvals=[])
    original = two_admins.ledger.requests.submit

    async def submit(*arguments: Any, **keywords: Any) -> tuple[Request, bool]:
        found = await original(*arguments, **keywords)
        await set_by(two_admins, ADMIN)
        return found

    two_admins.ledger.requests.submit = submit  # type: ignore[method-assign]
    wanted = use_case_types.RequestInput(
        database="shop", level="readonly", duration=HOUR / 2, reason="all is down", kind=kind
    )
    outcome = await request_access.request_access(two_admins.context, await two_admins.person(ADA), wanted)
    await two_admins.turn(minutes=5)
    assert (await two_admins.now(outcome.request)).state is State.PENDING
    await lifted_by(two_admins, SECOND)
    await two_admins.turn(minutes=2)
    assert (await two_admins.now(outcome.request)).state is State.ACTIVE


async def test_more_time_is_refused(two_admins: AccessEnvironment) -> None:
    request = await two_admins.granted()
    wanted = use_case_types.RequestInput(duration=HOUR, reason="still looking")
    asked = await extend.extend(two_admins.context, await two_admins.person(ADA), request.id, wanted)
    await set_by(two_admins, ADMIN)
    assert "locked down" in str(await refusal_of(two_admins.approve(asked.request)))
    await two_admins.drain()
    assert (await two_admins.now(request)).state is State.REVOKED


# Races: a grant that is on its way when everything is locked down.


@pytest.mark.parametrize(
    "step",
    [
        "before post PreparingNotice",
        "before identity",
        "before create",
        "after create",
        "before update CredentialsNotice",
        "after update CredentialsNotice",
    ],
)
async def test_a_grant_on_its_way_is_ended(two_admins: AccessEnvironment, step: str) -> None:
    request = await two_admins.approve(await two_admins.ask())
    outcomes = list[LockdownOutcome]()
    await _at(two_admins, step, lambda: set_by(two_admins, ADMIN), outcomes)
    assert len(outcomes) == 1, "it was locked down at this step"
    await two_admins.turn(minutes=2)
    ended = await two_admins.now(request)
    assert (ended.state, ended.ended_because) == (State.REVOKED, Cause.LOCKDOWN)
    assert two_admins.server.users == {}
    assert (await two_admins.ledger.lockdowns.count_live(outcomes[0].lockdown)) == 0


async def _at(
    environment: AccessEnvironment,
    name: str,
    act: Callable[[], Awaitable[LockdownOutcome]],
    done: list[LockdownOutcome],
) -> None:
    """Drain the tasks, and act once at this step. Steps of adapters run in threads, so the act runs on the loop that waits for them."""
    loop = asyncio.get_running_loop()
    messenger = environment.messenger

    def step(found: str) -> None:
        if found == name and not begun:
            begun.append(found)
            asyncio.run_coroutine_threadsafe(collect(), loop).result(60)

    async def collect() -> None:
        done.append(await act())

    async def posting(verb: str, notice: object) -> None:
        if name == f"{verb} {type(notice).__name__}" and not begun:
            begun.append(name)
            await collect()

    begun = list[str]()
    environment.server.step = step
    post, change = messenger.post, messenger.update

    async def post_and_act(*arguments: Any, **keywords: Any) -> Any:
        await posting("before post", arguments[1])
        return await post(*arguments, **keywords)

    async def update_and_act(*arguments: Any, **keywords: Any) -> None:
        await posting("before update", arguments[1])
        await change(*arguments, **keywords)
        await posting("after update", arguments[1])

    messenger.post, messenger.update = post_and_act, update_and_act  # type: ignore[method-assign]
    await environment.drain()


async def test_a_grant_that_slipped_through_never_starts(two_admins: AccessEnvironment) -> None:
    """On PostgreSQL, an approval may commit just after the grants were counted. START sees the lockdown."""
    request = await two_admins.approve(await two_admins.ask())
    two_admins.context.ledger.lockdowns.end_grants = _nothing  # type: ignore[method-assign]
    await set_by(two_admins, ADMIN)
    await two_admins.turn(minutes=1)
    ended = await two_admins.now(request)
    assert (ended.state, ended.ended_because, ended.started_at) == (State.REVOKED, Cause.LOCKDOWN, None)


async def _nothing(_lockdown_id: int, *, after: int, limit: int) -> Any:
    return EndedChunk(ended=0, last=None)


async def test_repeating_a_lockdown_ends_what_is_live_again(two_admins: AccessEnvironment) -> None:
    first = await set_by(two_admins, ADMIN)
    await lifted_by(two_admins, SECOND)
    request = await two_admins.granted()
    end_grants = two_admins.ledger.lockdowns.end_grants
    two_admins.ledger.lockdowns.end_grants = _nothing  # type: ignore[method-assign]
    second = await set_by(two_admins, ADMIN)
    require((await two_admins.now(request)).state is State.ACTIVE, "it is still live")
    two_admins.ledger.lockdowns.end_grants = end_grants  # type: ignore[method-assign]
    repeated = await set_by(two_admins, SECOND)
    assert (repeated.is_new, repeated.ended) == (False, 1)
    assert repeated.lockdown.id == second.lockdown.id != first.lockdown.id
    assert (await two_admins.now(request)).state is State.REVOKING


async def test_the_process_dies_before_the_grants_are_ended(two_admins: AccessEnvironment) -> None:
    request = await two_admins.granted()
    end_grants = two_admins.ledger.lockdowns.end_grants

    async def die(*_: Any, **__: Any) -> Any:
        raise Killed

    two_admins.ledger.lockdowns.end_grants = die  # type: ignore[method-assign]
    with pytest.raises(Killed):
        await set_by(two_admins, ADMIN)
    two_admins.ledger.lockdowns.end_grants = end_grants  # type: ignore[method-assign]
    await two_admins.restart()
    await two_admins.drain()
    assert (await two_admins.now(request)).ended_because is Cause.LOCKDOWN
    assert (await two_admins.now(request)).state is State.REVOKED
    await two_admins.turn(seconds=3)
    assert message(two_admins).left == 0


async def test_a_row_that_cannot_be_read_stops_no_other_end(two_admins: AccessEnvironment) -> None:
    broken, request = await two_admins.granted(), await two_admins.granted(LEAD, SECOND)
    change = update(requests).where(requests.c.id == broken.id).values(kind="of another version")
    await two_admins.ledger.database.write(lambda tx: tx.execute(change))
    assert (await set_by(two_admins, ADMIN)).ended == 1
    assert (await two_admins.now(request)).state is State.REVOKING


# Who may.


@pytest.mark.parametrize("verb", [lockdown.lock_down, lockdown.unlock])
async def test_only_admins_may(two_admins: AccessEnvironment, verb: Callable[..., Awaitable[object]]) -> None:
    request = await two_admins.granted()
    for who in (STRANGER, ADA, LEAD):
        no = await refused(verb(two_admins.context, await two_admins.person(who), EVERYTHING))
        assert "Only admins can" in no
    assert (await two_admins.now(request)).state is State.ACTIVE
    assert await two_admins.ledger.lockdowns.in_force() == ()
    assert len(await recorded(two_admins, AuditKind.CLICK_REFUSED)) == 3


async def test_admins_of_a_group_count_while_slack_names_them(environment: AccessEnvironment) -> None:
    environment.policy["admins"] = ["S0ADMINS"]
    environment.people.groups["S0ADMINS"] = {SECOND}
    environment.write()
    environment.people.silent_groups = {"S0ADMINS"}
    no = await refused(set_by(environment, SECOND))
    assert "Slack did not say who is in S0ADMINS, so nothing was done." in no
    assert "dbaccess lockdown, on the machine of the bot" in no
    environment.people.silent_groups = set()
    assert (await set_by(environment, SECOND)).is_new


async def test_the_command_line_needs_no_answer_of_slack(environment: AccessEnvironment) -> None:
    request = await environment.granted()
    environment.people.is_silent = True
    outcome = await lockdown.lock_down(environment.context, OPERATOR, LockdownScope(person_id=ADA))
    assert (outcome.ended, outcome.lockdown.person_name) == (1, "ada")
    unknown = await lockdown.lock_down(environment.context, OPERATOR, LockdownScope(person_id="U0NOBODY"))
    assert unknown.lockdown.person_name is None
    assert (await environment.now(request)).state is State.REVOKING


async def test_a_typing_error_is_no_lockdown(environment: AccessEnvironment) -> None:
    assert "There is no database shp, so nothing was locked down. Did you mean shop?" in await refused(
        set_by(environment, ADMIN, LockdownScope(database="shp"))
    )


async def test_a_database_that_left_the_configuration_can_be_locked_down(environment: AccessEnvironment) -> None:
    request = await environment.granted()
    environment.databases["databases"]["blog"] = environment.databases["databases"].pop("shop")
    put_in_force(environment, databases=["blog"])
    assert (await set_by(environment, ADMIN)).ended == 1
    assert (await environment.now(request)).state is State.REVOKING


# Unlock.


async def test_only_a_different_admin_lifts_it(two_admins: AccessEnvironment) -> None:
    await set_by(two_admins, ADMIN)
    no = await refused(lifted_by(two_admins, ADMIN))
    assert no == "You set the lockdown of shop. Another admin must lift it."
    assert len(await two_admins.ledger.lockdowns.in_force()) == 1
    outcome = await lifted_by(two_admins, SECOND)
    assert [one.database for one in outcome.lifted] == ["shop"]
    assert (await lifted_by(two_admins, SECOND)).lifted == ()


async def test_nobody_lifts_a_lockdown_of_themselves(two_admins: AccessEnvironment) -> None:
    await set_by(two_admins, ADMIN, LockdownScope(person_id=SECOND))
    assert "You are locked down." in await refused(lifted_by(two_admins, SECOND))


async def test_without_an_argument_all_are_lifted_that_the_person_may_lift(two_admins: AccessEnvironment) -> None:
    await set_by(two_admins, ADMIN)
    await set_by(two_admins, SECOND, LockdownScope(person_id=ADA))
    await set_by(two_admins, ADMIN, EVERYTHING)
    outcome = await lifted_by(two_admins, SECOND)
    assert {(one.database, one.person_id) for one in outcome.lifted} == {("shop", None), (None, None)}
    assert [one.person_id for one in outcome.refused] == [ADA]
    assert [one.person_id for one in await two_admins.ledger.lockdowns.in_force()] == [ADA]


async def test_unlock_names_the_lockdown_that_still_matches(two_admins: AccessEnvironment) -> None:
    assert "not locked down" in await refused(lifted_by(two_admins, SECOND, SHOP))
    await set_by(two_admins, ADMIN, EVERYTHING)
    no = await refused(lifted_by(two_admins, SECOND, SHOP))
    assert "There is no lockdown of it alone: Access to all databases is locked down, by admin" in no
    assert len(await two_admins.ledger.lockdowns.in_force()) == 1


@pytest.mark.parametrize(
    ("locked", "lifting", "is_alert"),
    [(OPERATOR, OTHER_OPERATOR, False), (OPERATOR, SECOND, False), (ADMIN, OPERATOR, True), (OPERATOR, OPERATOR, None)],
)
async def test_the_command_line_counts_as_a_separate_admin(
    two_admins: AccessEnvironment, locked: Person | str, lifting: Person | str, is_alert: bool | None
) -> None:
    """``is_alert`` None: it is refused."""

    async def person(who: Person | str) -> Person:
        return who if isinstance(who, Person) else await two_admins.person(who)

    await lockdown.lock_down(two_admins.context, await person(locked), SHOP)
    verb = lockdown.unlock(two_admins.context, await person(lifting), SHOP)
    if is_alert is None:
        assert await refused(verb) == "cli:root set the lockdown of shop. Another admin must lift it."
        return
    assert (await verb).lifted
    await two_admins.drain()
    told = [one.what for one in two_admins.messenger.on(ALERTS, AlertNotice)]
    assert told == (
        ["cli:root lifted the lockdown of shop on the command line. @admin had set it in Slack."] * is_alert
    )


async def test_a_lockdown_is_in_the_audit_log(two_admins: AccessEnvironment) -> None:
    await two_admins.granted()
    await set_by(two_admins, ADMIN)
    await lifted_by(two_admins, SECOND)
    facts: Mapping[str, Any] = {"lockdown": 1, "database": "shop", "person": None, "grants": 1}
    assert await recorded(two_admins, AuditKind.LOCKDOWN_SET) == [facts]
    assert await recorded(two_admins, AuditKind.LOCKDOWN_LIFTED) == [facts]


# The message.


async def test_the_message_counts_down_and_says_who_lifted_it(two_admins: AccessEnvironment) -> None:
    grants = [await two_admins.granted(), await two_admins.granted(LEAD, SECOND)]
    two_admins.server.holds_up = ServerDown("no connection: refused")
    await set_by(two_admins, ADMIN)
    await two_admins.drain()
    assert (message(two_admins).left, message(two_admins).lockdown.grants) == (2, 2)
    two_admins.server.holds_up = None
    await two_admins.turn(minutes=2)
    assert {(await two_admins.now(one)).state for one in grants} == {State.REVOKED}
    ended = message(two_admins)
    assert (ended.left, ended.lockdown.is_in_force) == (0, True)
    assert ended.lockdown.all_ended_at is not None
    assert await lockdown_tasks(two_admins) == []
    await lifted_by(two_admins, SECOND)
    await two_admins.drain()
    lifted = message(two_admins).lockdown
    assert (lifted.unlocked_by_name, lifted.is_in_force) == ("second", False)


async def lockdown_tasks(environment: AccessEnvironment) -> list[str]:
    return [task.lock_key for task in await environment.ledger.tasks.all() if task.kind is TaskKind.LOCKDOWN]


async def test_the_message_is_edited_at_most_every_two_seconds_and_only_where_it_says_something_else(
    two_admins: AccessEnvironment,
) -> None:
    await two_admins.granted()
    two_admins.server.holds_up = ServerDown("no connection: refused")
    edits = list[float]()
    change = two_admins.messenger.update

    async def update_message(posted: Any, notice: Any) -> None:
        if isinstance(notice, LockdownNotice):
            edits.append(two_admins.clock.at.timestamp())
        await change(posted, notice)

    two_admins.messenger.update = update_message  # type: ignore[method-assign]
    await set_by(two_admins, ADMIN)
    await two_admins.turn(hours=1)
    assert edits == []
    assert message(two_admins).left == 1
    two_admins.server.holds_up = None
    await two_admins.turn(minutes=3)
    assert len(edits) == 1


async def test_the_admins_get_the_message_where_the_channel_does_not(two_admins: AccessEnvironment) -> None:
    two_admins.messenger.refuse = lambda place, _notice: Undeliverable("is_archived") if place == ALERTS else None
    await two_admins.granted()
    await set_by(two_admins, ADMIN)
    await two_admins.turn(seconds=10)
    for who in (ADMIN, SECOND):
        assert message(two_admins, who).left == 0
    await lifted_by(two_admins, SECOND)
    await two_admins.drain()
    assert not message(two_admins, SECOND).lockdown.is_in_force


async def test_the_message_comes_again_where_somebody_deleted_it(two_admins: AccessEnvironment) -> None:
    await set_by(two_admins, ADMIN)
    await two_admins.drain()
    two_admins.messenger.shown.clear()
    await lifted_by(two_admins, SECOND)
    await two_admins.drain()
    assert not message(two_admins).lockdown.is_in_force


async def test_the_task_of_a_lockdown_waits_for_no_other_task(environment: AccessEnvironment) -> None:
    await set_by(environment, ADMIN)
    (task,) = [one for one in await environment.ledger.tasks.all() if one.kind is TaskKind.LOCKDOWN]
    assert (task.pool, task.priority) == ("lockdowns", Priority.SAFETY)


async def test_no_end_waits_for_the_message(fleet: HangingServers) -> None:
    """Every call to Slack hangs. The grants of the lockdown end all the same."""
    fleet.build()
    environment = fleet.environment
    grants = await fleet.granted("shop", 5)
    fleet.slack_may_hang()
    fleet.slack.holds = lambda _what: True
    await set_by(environment, ADMIN)
    async with fleet.running():
        await expect("all have ended", lambda: _all_ended(environment, grants))
        await expect("Slack hangs", lambda: at_once(lambda: fleet.slack.inside > 0))


async def _all_ended(environment: AccessEnvironment, grants: list[Request]) -> bool:
    return all([(await environment.now(one)).state is State.REVOKED for one in grants])


async def test_three_hundred_grants_end_and_the_message_says_so(fleet: HangingServers) -> None:
    fleet.build()
    environment = fleet.environment
    grants = await fleet.granted("shop", 300)
    for one in grants:
        user = environment.server.users[str(one.username)]
        require(environment.server.login(str(one.username), user.password), "it logs in")
    outcome = await set_by(environment, ADMIN)
    assert (outcome.ended, outcome.lockdown.grants) == (300, 300)
    assert {one.state for one in (await environment.ledger.requests.get_many([g.id for g in grants])).values()} == {
        State.REVOKING
    }
    environment.clock.run()
    async with fleet.running():
        await expect("no session is left", lambda: at_once(lambda: not environment.server.sessions))
        await expect("the message says so", lambda: at_once(lambda: _says_ended(environment)))
    assert message(environment).lockdown.grants == 300
    assert environment.server.users == {}


def _says_ended(environment: AccessEnvironment) -> bool:
    return any(notice.left == 0 for notice in environment.messenger.on(ALERTS, LockdownNotice))
