"""Recovery mode in the running bot: the evidence that enters it, what is granted and ended in it, how an operator returns to normal."""

from __future__ import annotations

from datetime import timedelta

import pytest

from bot.access import queries, request_access, use_case_types
from bot.access.errors import LostRequest, OutOfDate, Refused
from bot.monitors import stray_ends, strays
from bot.monitors.strays import StrayKind
from bot.monitors.sweep import Sweep
from bot.notifications.notices import AlertNotice
from bot.trial import FIRST_NUMBER
from storage.audit_kinds import AuditKind
from storage.keys import request_key
from storage.records import RequestKind, State
from storage.recovery import RecoveryReason
from tests.access.environment import ADA, ADMIN, ALERTS, HOUR, AccessEnvironment
from tests.access.fake_engine import User
from tests.access.hanging import HangingServers
from tests.access.steps import recorded
from tests.open_faults import require

UNKNOWN = "jit_77_unknown_aaaa"


def put(environment: AccessEnvironment, username: str = UNKNOWN, ledger: str | None = None) -> None:
    at = environment.clock() + timedelta(hours=1)
    number = int(username.split("_")[1])
    environment.server.users[username] = User("pw", ledger or environment.ledger.id, number, (), at)


async def reason(environment: AccessEnvironment) -> str | None:
    current = await environment.ledger.recovery.current()
    return current.reason if current else None


async def sweep(environment: AccessEnvironment) -> None:
    environment.context.config_in_force()
    await Sweep(environment.context).run(is_start=True)
    await environment.drain()


def told(environment: AccessEnvironment) -> str:
    return " ".join(notice.what for notice in environment.messenger.on(ALERTS, AlertNotice))


# Evidence.


async def test_unknown_user_enters_recovery_mode_and_is_not_touched(environment: AccessEnvironment) -> None:
    put(environment)
    session = environment.server.login(UNKNOWN, "pw")
    for _ in range(2):
        await sweep(environment)
    assert await reason(environment) == RecoveryReason.UNKNOWN_USER
    assert UNKNOWN in environment.server.users
    assert session in environment.server.sessions
    assert told(environment).count("The ledger is in recovery mode") == 1
    assert f"{UNKNOWN} is on the server of shop and no live grant has it" in told(environment)
    assert len(await recorded(environment, AuditKind.RECOVERY_ENTERED)) == 1


@pytest.mark.parametrize(
    ("username", "ledger"),
    [(UNKNOWN, "another"), (f"jit_{FIRST_NUMBER + 5}_trial_abcd", None)],
    ids=["another ledger", "a trial of doctor"],
)
async def test_other_users_are_no_evidence(environment: AccessEnvironment, username: str, ledger: str | None) -> None:
    put(environment, username, ledger)
    await sweep(environment)
    assert await reason(environment) is None
    assert (await environment.granted()).state is State.ACTIVE


async def test_click_on_a_card_that_the_ledger_lost_enters_recovery_mode(environment: AccessEnvironment) -> None:
    request = await environment.ask()
    for token in (f"{request.id + 1}.{request_key('another')}", f"{request.id + 1}.abcdefghijklmnop", "1.x", "x"):
        with pytest.raises(OutOfDate):
            await queries.by_token(environment.context, token)
    assert await reason(environment) is None
    with pytest.raises(LostRequest, match=f"#{request.id + 1} .* ask an administrator to end it"):
        await queries.by_token(environment.context, f"{request.id + 1}.{request_key(environment.ledger.id)}")
    assert await reason(environment) == RecoveryReason.UNKNOWN_REQUEST


async def test_number_of_an_adopted_user_is_not_given_again(environment: AccessEnvironment) -> None:
    put(environment)
    await sweep(environment)
    (found,) = (await strays.find_strays(environment.context)).strays
    await stray_ends.end_stray(environment.context, found, actor="cli:ops", adopts=True)
    await environment.ledger.recovery.resume("cli:ops", found=0, resolution="It is over.")
    assert (await environment.ask()).id > int(UNKNOWN.split("_")[1])


# The comparison before the first grant.


async def test_server_is_compared_before_the_first_grant_on_it(environment: AccessEnvironment) -> None:
    put(environment)
    request = await environment.approve(await environment.ask())
    await environment.drain()
    assert (await environment.now(request)).started_at is None
    assert await reason(environment) == RecoveryReason.UNKNOWN_USER
    assert list(environment.server.users) == [UNKNOWN]


async def test_server_is_compared_once(environment: AccessEnvironment) -> None:
    calls = list[str]()
    environment.server.step = calls.append
    await environment.granted()
    assert calls.count("before list") == 1
    calls.clear()
    request = await environment.approve(await environment.ask(duration=2 * HOUR))
    await environment.drain()
    assert (await environment.now(request)).state is State.ACTIVE
    assert "before list" not in calls


async def test_after_the_start_sweep_the_first_grant_compares_nothing(environment: AccessEnvironment) -> None:
    await sweep(environment)
    calls = list[str]()
    environment.server.step = calls.append
    await environment.granted()
    assert "before list" not in calls


async def test_server_that_is_down_at_start_delays_only_its_own_grants(fleet: HangingServers) -> None:
    environment = fleet.environment
    fleet.server.is_up = False
    await sweep(environment)
    assert (await environment.granted()).state is State.ACTIVE


async def test_end_compares_nothing(environment: AccessEnvironment) -> None:
    request = await environment.granted()
    environment.context.compared.clear()
    put(environment)
    environment.clock.at += 2 * HOUR
    await environment.drain()
    assert (await environment.now(request)).state is State.REVOKED


async def test_ledger_that_was_away_is_compared_anew(environment: AccessEnvironment) -> None:
    """A failover may have lost its newest transactions."""
    await environment.granted()
    require(bool(environment.context.compared), "it is compared")
    environment.runner._outage.begins()
    await environment.runner._outage.ends(environment.context)
    assert environment.context.compared == set()


# Recovery mode.


async def test_nothing_is_requested_or_approved_and_the_person_is_told(environment: AccessEnvironment) -> None:
    waiting = await environment.ask()
    put(environment)
    await sweep(environment)
    says = (
        r"in recovery mode since 2026-11-23 09:00 UTC: nothing is granted until an operator runs dbaccess store resume"
    )
    with pytest.raises(Refused, match=says):
        await environment.approve(waiting)
    for kind in (RequestKind.ACCESS, RequestKind.BREAK_GLASS):
        wanted = use_case_types.RequestInput(
            database="shop", level="readonly", duration=2 * HOUR, reason="looking at a refund", kind=kind
        )
        if kind is RequestKind.BREAK_GLASS:
            break_glass(environment)
        with pytest.raises(Refused, match=says):
            await request_access.request_access(environment.context, await environment.person(ADA), wanted)
    assert (await environment.now(waiting)).state is State.PENDING


def break_glass(environment: AccessEnvironment) -> None:
    rule = {"name": "glass", "break_glass": True, "requesters": [ADA], "databases": ["*"], "levels": ["*"]}
    environment.policy["rules"].append({**rule, "approvals": [], "review": {"from": [ADMIN], "within": "24h"}})
    environment.write()
    environment.context.files.forget()


async def test_live_grant_ends_in_recovery_mode(environment: AccessEnvironment) -> None:
    request = await environment.granted()
    put(environment)
    await sweep(environment)
    environment.clock.at += 2 * HOUR
    await environment.drain()
    assert (await environment.now(request)).state is State.REVOKED
    assert list(environment.server.users) == [UNKNOWN]


async def test_started_grant_without_its_user_ends(environment: AccessEnvironment) -> None:
    """The process died between START and the create, and the ledger turned out to be old meanwhile."""
    request = await environment.approve(await environment.ask())
    environment.server.errors["create"] = RuntimeError("died")
    await environment.drain()
    require((await environment.now(request)).started_at is not None, "it has started")
    environment.server.errors.clear()
    put(environment)
    await sweep(environment)
    environment.clock.at += timedelta(minutes=2)
    await environment.drain()
    environment.clock.at += timedelta(minutes=2)
    await environment.drain()
    found = await environment.now(request)
    assert found.state is State.REVOKED
    assert list(environment.server.users) == [UNKNOWN]


async def test_approved_grant_waits_and_its_user_ends_when_its_time_is_over(environment: AccessEnvironment) -> None:
    """A newer state of the ledger started it: the user is live, and this ledger does not know that."""
    request = await environment.approve(await environment.ask())
    username = str(request.username)
    put(environment, username)
    await sweep(environment)
    require(await reason(environment) is not None, "it is evidence")
    environment.clock.at += timedelta(minutes=90)
    await environment.drain()
    assert username in environment.server.users, "it may be a live grant"
    assert (await environment.now(request)).state is State.APPROVED
    environment.clock.at += timedelta(minutes=31)
    await environment.drain()
    ended = await environment.now(request)
    assert environment.server.users == {}, "provision_within and its duration are over"
    assert (ended.state, ended.started_at) == (State.REVOKED, None)
    assert ended.receipt is not None
    assert ended.receipt.read_back_at is not None, "it does not say that nothing was created"


async def test_user_whose_grant_has_ended_is_ended_in_recovery_mode(environment: AccessEnvironment) -> None:
    request = await environment.granted()
    user = environment.server.users[str(request.username)]
    environment.clock.at += 2 * HOUR
    await environment.drain()
    environment.server.users[str(request.username)] = user
    put(environment)
    trial = f"jit_{FIRST_NUMBER + 5}_trial_abcd"
    put(environment, trial)
    one = Sweep(environment.context)
    for _ in range(2):
        await one.run(is_start=True)
    assert list(environment.server.users) == [UNKNOWN], "the ledger knows the ends of the others"


async def test_end_that_is_later_on_the_server_is_reported_in_recovery_mode(environment: AccessEnvironment) -> None:
    request = await environment.granted()
    put(environment)
    await sweep(environment)
    at = environment.clock() + 5 * HOUR
    environment.server.users[str(request.username)].expires_at = at
    await sweep(environment)
    assert environment.server.users[str(request.username)].expires_at == at, "it may have been extended"
    assert f"of live grant #{request.id} ends 4 h later" in told(environment)


# Adoption.


async def test_foreign_user_is_ended_only_under_the_name_of_its_ledger(environment: AccessEnvironment) -> None:
    environment.context.config_in_force()
    put(environment, ledger="lostledger")
    (found,) = (await strays.find_strays(environment.context)).strays
    require(found.kind is StrayKind.FOREIGN, "another ledger made it")
    await sweep(environment)
    (alert,) = await environment.ledger.alerts.open()
    assert alert.steps[-1] == "If that ledger is lost: dbaccess sweep --adopt --ledger lostledger"
    with pytest.raises(AssertionError):
        await stray_ends.end_stray(environment.context, found, actor="cli:ops")
    await stray_ends.end_stray(environment.context, found, actor="cli:ops", adopts=True)
    assert environment.server.users == {}
    assert (await recorded(environment, AuditKind.SWEPT))[-1]["adopted_from"] == "lostledger"
