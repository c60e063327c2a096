"""The life of an alert: raised once for each cause, changed while it lasts, resolved when it is over, and never without a reader."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from adapters.base import Enforced, ServerDown
from bot.access import revoke
from bot.access.alerts import raise_alert, resolve_alert
from bot.access.ports import DeliveryError, Notice, Person, Undeliverable
from bot.jobs.end_together import ServerAnswer
from bot.jobs.probes import Probes
from bot.monitors.alerts import check_alerts
from bot.notifications.notices import AlertNotice, CardNotice
from bot.slack.render.notices import render
from storage.alerts import EDIT_PAUSE
from storage.commands import RevokeGrant
from storage.records import Cause, Request, State, TaskKind
from storage.task_plans import user_lock_key
from storage.transitions import TaskPlan
from tests.access.environment import ADMIN, ALERTS, AUDIT, CARDS, HOUR, LEAD, AccessEnvironment
from tests.access.hanging import at_once, expect
from tests.access.steps import put_in_force
from tests.open_faults import require

OPERATOR = Person(id="cli:root", name="root", is_member=True)


def shown(environment: AccessEnvironment, place: str = ALERTS) -> list[AlertNotice]:
    return environment.messenger.on(place, AlertNotice)


async def end_fails(environment: AccessEnvironment) -> Request:
    """A grant whose end has failed three times: its server does not answer."""
    request = await environment.granted()
    environment.server.is_up = False
    await environment.turn(hours=1, seconds=20)
    require((await environment.now(request)).state is State.REVOKING, "it is not ended")
    return request


# One message for one cause.


async def test_alert_is_raised_once_and_then_changed(environment: AccessEnvironment) -> None:
    context = environment.context
    for tries in (3, 4, 5):
        await raise_alert(context, None, "The disk is full.", cause="disk", tries=tries)
        await environment.drain()
    (alert,) = shown(environment)
    assert alert.tries == 3, "its message is edited at most once a minute"
    await environment.turn(seconds=EDIT_PAUSE.total_seconds())
    (alert,) = shown(environment)
    assert alert.tries == 5


async def test_alert_is_edited_at_most_once_a_minute(environment: AccessEnvironment) -> None:
    edits = 0

    def step(name: str) -> None:
        nonlocal edits
        edits += name == "before update AlertNotice"

    environment.messenger.step = step
    for tries in range(3, 123):  # every five seconds, ten minutes long
        await raise_alert(environment.context, None, "The disk is full.", cause="disk", tries=tries)
        await environment.turn(seconds=5)
    assert 9 <= edits <= 10
    (alert,) = shown(environment)
    assert alert.tries > 110


async def test_resolved_alert_says_so_at_once_and_in_the_same_message(environment: AccessEnvironment) -> None:
    context = environment.context
    await raise_alert(context, None, "The disk is full.", cause="disk", steps=("Make room.",), statements=("VACUUM;",))
    await environment.drain()
    await resolve_alert(context, "disk", "There is room.")
    await environment.drain()
    (alert,) = shown(environment)
    assert (alert.resolution, alert.resolved_at) == ("There is room.", environment.clock())
    assert (alert.steps, alert.statements, alert.next_try_at) == ((), (), None)
    await raise_alert(context, None, "The disk is full.", cause="disk")
    await environment.drain()
    assert len(shown(environment)) == 2, "the same trouble later is a new alert"


async def test_event_is_over_from_the_beginning_and_told_once(environment: AccessEnvironment) -> None:
    request = await environment.granted()
    for _ in range(3):
        await raise_alert(environment.context, request, "Somebody dropped it.", cause="dropped:1", is_event=True)
        await environment.drain()
    (alert,) = shown(environment)
    assert alert.is_event
    assert await environment.ledger.alerts.open() == ()
    await check_alerts(environment.context)
    await environment.turn(hours=1)
    assert [one.resolution for one in shown(environment)] == [None]


async def test_resolving_what_was_never_raised_writes_nothing(environment: AccessEnvironment) -> None:
    await resolve_alert(environment.context, "disk", "There is room.")
    await environment.drain()
    assert shown(environment) == []


# An alert that reached nobody.


def refuse_alerts(environment: AccessEnvironment, *places: str) -> None:
    def refuse(place: str, notice: Notice) -> DeliveryError | None:
        return Undeliverable("closed") if place in places and isinstance(notice, AlertNotice) else None

    environment.messenger.refuse = refuse


async def test_alert_that_reached_nobody_stays_due(environment: AccessEnvironment) -> None:
    refuse_alerts(environment, ALERTS, ADMIN)
    await raise_alert(environment.context, None, "The disk is full.", cause="disk")
    await environment.turn(hours=2)
    assert [task.kind for task in await environment.ledger.tasks.all()] == [TaskKind.ALERT]
    refuse_alerts(environment, ALERTS)
    await environment.turn(minutes=2)
    assert len(shown(environment, ADMIN)) == 1
    assert await environment.ledger.tasks.all() == ()


async def test_alert_without_a_configuration_stays_due(environment: AccessEnvironment) -> None:
    written = environment.policy["rules"]
    environment.policy["rules"] = "nonsense"
    environment.write()
    await raise_alert(environment.context, None, "The disk is full.", cause="disk")
    await environment.turn(minutes=5)
    assert shown(environment) == []
    environment.policy["rules"] = written
    put_in_force(environment)
    await environment.turn(minutes=2)
    assert len(shown(environment)) == 1


async def test_every_admin_gets_the_alert_once_though_one_has_to_wait(environment: AccessEnvironment) -> None:
    from bot.access.ports import Delayed

    put_in_force(environment)
    environment.policy["admins"] = [ADMIN, LEAD]
    del environment.policy["alert_channel"]
    put_in_force(environment)
    waits = [Delayed("it is not its turn", retry_after=5, is_paced=True)]
    environment.messenger.refuse = lambda place, _notice: waits.pop() if place == ADMIN and waits else None
    await raise_alert(environment.context, None, "The disk is full.", cause="disk")
    await environment.turn(minutes=1)
    assert [len(shown(environment, place)) for place in (ADMIN, LEAD)] == [1, 1]


# The alert of an end that fails.


async def test_alert_of_a_failed_end_has_every_fact(environment: AccessEnvironment) -> None:
    request = await end_fails(environment)
    (alert,) = shown(environment)
    assert request.expires_at is not None
    assert alert.what == "#1 is not ended: shop does not answer (no connection: refused)."
    assert alert.since == request.expires_at
    assert alert.tries == 3
    assert alert.next_try_at is not None
    assert alert.next_try_at > alert.since
    assert alert.enforced == (
        f"New logins are refused by FakeSQL since ‹{request.expires_at:%Y-%m-%dT%H:%M:%SZ}›. Open sessions may still work."
    )
    assert alert.statements == (f"BLOCK USER {request.username};", f"END SESSIONS OF {request.username};")
    assert any("--gone REASON" in step for step in alert.steps)


@pytest.mark.parametrize(
    ("enforced", "sentence"),
    [
        (Enforced.NOTHING, "FakeSQL enforces nothing by itself here: the user may still work."),
        (Enforced.LOGIN, "New logins are refused by FakeSQL from ‹2026-11-23T10:00:00Z› on. Open sessions may still work."),
        (Enforced.SESSIONS, "New logins and open sessions are ended by FakeSQL itself from ‹2026-11-23T10:00:00Z› on."),
    ],
)  # fmt: skip
async def test_alert_says_what_the_server_enforces_and_from_when(
    environment: AccessEnvironment, enforced: Enforced, sentence: str
) -> None:
    """The end was brought forward; the server knows only the expiry."""
    request = await environment.granted()
    key = ("postgresql", "env:SHOP_ADMIN_URL")
    environment.engines._measured[key] = enforced
    environment.server.is_up = False
    await revoke.revoke(environment.context, OPERATOR, request.id)
    await environment.turn(seconds=20)
    (alert,) = shown(environment)
    assert alert.enforced == sentence


async def test_alert_of_a_failed_end_follows_the_tries_and_is_resolved(environment: AccessEnvironment) -> None:
    request = await end_fails(environment)
    await environment.turn(minutes=5)
    (alert,) = shown(environment)
    assert alert.tries > 5
    environment.server.is_up = True
    await environment.turn(minutes=2)
    (alert,) = shown(environment)
    assert alert.resolution == "#1 ended, 0 sessions ended, verified."
    assert (await environment.now(request)).state is State.REVOKED


async def test_alert_is_resolved_when_the_server_is_declared_gone(environment: AccessEnvironment) -> None:
    request = await end_fails(environment)
    await revoke.declare_gone(environment.context, OPERATOR, request.id, "the machine burned")
    await environment.drain()
    (alert,) = shown(environment)
    assert alert.resolution is not None
    assert "declared gone by an administrator: the machine burned" in alert.resolution


async def test_alert_is_resolved_after_a_stop_between_the_end_and_its_resolution(
    environment: AccessEnvironment,
) -> None:
    request = await end_fails(environment)
    resolve = environment.ledger.alerts.resolve
    environment.ledger.alerts.resolve = never  # type: ignore[method-assign]
    environment.server.is_up = True
    await environment.turn(minutes=2)
    environment.ledger.alerts.resolve = resolve  # type: ignore[method-assign]
    require((await environment.now(request)).state is State.REVOKED, "it has ended")
    require(shown(environment)[0].resolution is None, "its alert is open")
    await environment.restart()
    await check_alerts(environment.context)
    await environment.drain()
    assert shown(environment)[0].resolution == "#1 ended, 0 sessions ended, verified."


async def never(_cause: str, _resolution: str) -> bool:
    return False


async def test_alert_of_an_ended_grant_stays_open_while_its_user_may_be_left(environment: AccessEnvironment) -> None:
    request = await environment.granted()
    await environment.turn(hours=2)
    environment.server.is_up = False
    now = await environment.ledger.now()
    repair = TaskPlan(kind=TaskKind.REPAIR, lock_key=user_lock_key(request), due_at=now, is_single=True)
    await environment.ledger.tasks.add(repair, request_id=request.id)
    await environment.turn(minutes=1)
    await check_alerts(environment.context)
    await environment.drain()
    require(len(shown(environment)) == 1, "the failing repair has an alert")
    assert shown(environment)[0].resolution is None
    environment.server.is_up = True
    await environment.turn(minutes=2)
    assert shown(environment)[0].resolution is not None


async def test_alerts_hold_no_secret(environment: AccessEnvironment) -> None:
    request = await environment.granted()
    password = environment.credentials().password
    environment.server.errors["drop"] = ServerDown("no connection to db: refused")
    await environment.turn(hours=1, minutes=5)
    (alert,) = shown(environment)
    seen = f"{alert} {render(alert)} {await environment.ledger.alerts.open()}"
    assert str(request.username) in seen
    assert password is not None
    assert password not in seen
    assert "ShopAdminSecret" not in seen


# The alert of a server.


async def server_is_watched(environment: AccessEnvironment) -> str:
    """A grant's address, with an open alert about its server and no probe: the bot was restarted meanwhile."""
    request = await environment.granted()
    (task,) = [one for one in await environment.ledger.tasks.all() if one.kind is TaskKind.REVOKE]
    assert task.server is not None
    await raise_alert(environment.context, None, "shop does not answer.", cause=f"server:{task.server}", tries=4)
    await environment.drain()
    assert (await environment.now(request)).state is State.ACTIVE
    return task.server


async def test_server_that_answers_after_a_restart_resolves_its_alert(environment: AccessEnvironment) -> None:
    await server_is_watched(environment)
    probes = Probes(environment.context, "w", lambda: None)
    await probes.check_again()
    await expect("it is resolved", lambda: is_resolved(environment))
    await probes.stop()
    await environment.drain()
    assert shown(environment)[0].resolution == "shop answers again."


async def is_resolved(environment: AccessEnvironment) -> bool:
    return not await environment.ledger.alerts.open()


async def test_server_that_is_still_down_after_a_restart_keeps_its_alert(
    environment: AccessEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await server_is_watched(environment)
    asked = list[str]()

    async def ask(_self: Probes, name: str, _watch: object) -> ServerAnswer:
        asked.append(name)
        return ServerAnswer(error=ServerDown("refused"), waiting=())

    monkeypatch.setattr(Probes, "_ask", ask)
    probes = Probes(environment.context, "w", lambda: None)
    await probes.check_again()
    await expect("it is probed", lambda: at_once(lambda: asked == [server]))
    await probes.stop()
    assert len(await environment.ledger.alerts.open()) == 1


# Alerts about Slack and the configuration.


async def test_card_that_is_posted_resolves_the_alert_about_its_channel(environment: AccessEnvironment) -> None:
    environment.messenger.refuse = lambda place, notice: (
        Undeliverable("not_in_channel") if place == CARDS and isinstance(notice, CardNotice) else None
    )
    await environment.ask()
    (alert,) = shown(environment)
    assert f"cannot be posted in {CARDS}" in alert.what
    await environment.ask(duration=2 * HOUR)
    assert len(shown(environment)) == 1, "one alert for the channel"
    environment.messenger.refuse = lambda _place, _notice: None
    await environment.ask(duration=3 * HOUR)
    (alert,) = shown(environment)
    assert alert.resolution == "The card of #3 was posted there."


def drop_audit_channel(environment: AccessEnvironment) -> None:
    del environment.policy["audit_channel"]


def move_cards(environment: AccessEnvironment) -> None:
    environment.policy["defaults"]["channel"] = "C0OTHER"


def nothing(_environment: AccessEnvironment) -> None:
    pass


@pytest.mark.parametrize(
    ("cause", "change"),
    [
        ("audit_channel", drop_audit_channel),
        (f"card:{CARDS}", move_cards),
        ("moved:@dba", nothing),
    ],
)
async def test_alert_about_a_name_that_the_configuration_dropped_is_resolved(
    environment: AccessEnvironment, cause: str, change: Callable[[AccessEnvironment], None]
) -> None:
    environment.policy["rules"][0]["approvals"][0]["from"] = [LEAD, "@dba"]
    put_in_force(environment)
    await raise_alert(environment.context, None, "Something is wrong.", cause=cause)
    await check_alerts(environment.context)
    require(len(await environment.ledger.alerts.open()) == 1, "it is named, so its alert stays")
    environment.policy["rules"][0]["approvals"][0]["from"] = [LEAD]
    change(environment)
    put_in_force(environment)
    await check_alerts(environment.context)
    assert await environment.ledger.alerts.open() == ()


async def test_other_alerts_are_left_open(environment: AccessEnvironment) -> None:
    for cause in ("configuration", "silent:S0LEADS", "refused:S0LEADS", "server:postgresql env:X", "task:7", "end:9"):
        await raise_alert(environment.context, None, "Something is wrong.", cause=cause)
    await check_alerts(environment.context)
    assert len(await environment.ledger.alerts.open()) == 6


async def test_audit_channel_that_can_be_written_again_resolves_its_alert(environment: AccessEnvironment) -> None:
    environment.messenger.refuse = lambda place, _notice: Undeliverable("is_archived") if place == AUDIT else None
    await environment.ask()
    await environment.turn(minutes=1)
    environment.messenger.refuse = lambda _place, _notice: None
    await environment.turn(minutes=5)
    (alert,) = shown(environment)
    assert alert.resolution == f"The audit channel {AUDIT} can be written."


async def test_review_that_was_signed_off_during_a_stop_resolves_its_alert(environment: AccessEnvironment) -> None:
    request = await environment.granted()
    await environment.ledger.requests.advance(request.id, RevokeGrant(actor="clock", cause=Cause.REVOKED))
    await raise_alert(environment.context, request, "It is not signed off.", cause=f"review:{request.id}")
    await check_alerts(environment.context)
    assert await environment.ledger.alerts.open() == ()


def test_pause_between_edits_is_a_minute() -> None:
    assert timedelta(minutes=1) == EDIT_PAUSE
