"""An error of a server or its adapter is reported by its kind, within bounds, and concerns no other user and no other server."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update

from adapters.base import Adapter, AdapterError, Blocked, ForeignUser, LoginRefused, Rejected, ServerDown, WrongServer
from bot.access import extend, password, queries, revoke
from bot.access.alerts import STEPS_MAX
from bot.access.use_case_types import RequestInput
from bot.doctor import _run_database_trials as run_trials
from bot.engines import Engines
from bot.jobs.registry import JOBS
from bot.jobs.runner import ERROR_MAX, Runner
from bot.monitors import servers, strays
from bot.notifications.notices import AlertNotice, PreparingNotice, StateChangeNotice
from bot.slack.render.notices import render
from bot.slack.render.replies import status_reply
from bot.slack.render.text import SECTION_MAX, TEXT_MAX
from bot.trial import Step
from storage.records import Cause, Request, State, TaskKind
from storage.schema import requests
from tests.access.environment import ADA, ADMIN, ALERTS, AccessEnvironment
from tests.access.fake_engine import FakeServer, engine

LONG = "holder <&> " * 10_000
HOSTILE = ("x" * 100_000, LONG, "&" * 5000, "\x00\ud800" * 3000, "*_~`" * 2000)


async def end_now(environment: AccessEnvironment, request: Request) -> None:
    await revoke.done(environment.context, await environment.person(ADA), request.id)
    await environment.turn(minutes=1)


def alerts(environment: AccessEnvironment) -> list[AlertNotice]:
    return list(environment.messenger.on(ALERTS, AlertNotice))


def texts(value: Any) -> list[str]:
    """All texts of a block."""
    if isinstance(value, dict):
        return [
            one
            for key, part in value.items()
            for one in ([part] if key == "text" and isinstance(part, str) else texts(part))
        ]
    return [one for part in value for one in texts(part)] if isinstance(value, list) else []


def is_accepted_by_slack(notice: Any) -> bool:
    message = render(notice)
    return len(message.text) <= TEXT_MAX and all(0 < len(text) <= SECTION_MAX for text in texts(message.blocks))


@pytest.mark.parametrize(
    ("error", "what", "step"),
    [
        (ServerDown("refused"), "#1 is not ended: shop does not answer (refused).", "Make shop answer again"),
        (Blocked("a lock of session 7 of dba", remedy="KILL 7;"), "shop answers, but this step is held up: a lock of session 7 of dba. Only jit_1_", "KILL 7;"),
        (Blocked("a lock"), "shop answers, but this step is held up: a lock.", "End the session or transaction"),
        (Rejected("a right is missing", remedy="GRANT it;"), "shop refuses: a right is missing.", "GRANT it;"),
        (WrongServer(expected="a", found="b"), "shop refuses: this is server b, the grant was made on a.", "point the address back"),
        (ForeignUser("jit_1_ada", "its mark names the ledger other"), "shop: the user jit_1_ada does not belong to this ledger", "Ask the administrators of the ledger"),
        (LoginRefused("odd"), "#1 is not ended: shop: odd.", "To end it by hand"),
        (KeyError("postgresql://bot:secret@db"), "#1 is not ended: shop: its adapter failed: KeyError, reference ", "The log has more"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)  # fmt: skip
async def test_alert_tells_the_errors_apart(
    environment: AccessEnvironment, error: Exception, what: str, step: str
) -> None:
    request = await environment.granted()
    environment.server.errors["drop"] = error
    await end_now(environment, request)
    alert = alerts(environment)[0]
    assert what in alert.what
    assert step in alert.steps[0]
    assert any(f"dbaccess revoke {request.id} --gone" in one for one in alert.steps)
    assert "secret" not in str(alert)
    assert ("does not answer" in alert.what) == (type(error) is ServerDown)
    environment.server.errors.clear()
    await environment.turn(minutes=3)
    assert (await environment.now(request)).state is State.REVOKED


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize(
    "kind", [lambda text: Blocked(text, remedy=text), lambda text: ForeignUser(text, text)], ids=["blocked", "foreign"]
)
async def test_alerts_and_task_errors_are_bounded(
    environment: AccessEnvironment, text: str, kind: Callable[[str], Exception]
) -> None:
    request = await environment.granted()
    environment.server.errors["drop"] = kind(text)
    await end_now(environment, request)
    assert alerts(environment)
    for alert in alerts(environment):
        assert is_accepted_by_slack(alert)
        assert len(alert.steps) <= STEPS_MAX
        shown = "".join(texts(render(alert).blocks))
        assert "To end it by hand" in shown or "If nobody needs that user" in shown
        assert "--gone REASON" in shown, "the steps after a long one are seen"
    (task,) = [task for task in await environment.ledger.tasks.all() if task.kind is TaskKind.REVOKE]
    assert 0 < len(str(task.last_error)) <= ERROR_MAX
    view = await queries.status(environment.context, await environment.person(ADMIN), request.id)
    reply = status_reply(view, environment.clock())
    assert all(len(one) <= SECTION_MAX for one in texts(reply.blocks))
    assert "Not ended yet: " in reply.text


@pytest.mark.parametrize("text", HOSTILE)
async def test_a_refused_grant_is_told_within_bounds(environment: AccessEnvironment, text: str) -> None:
    environment.server.rejects = Rejected(text, remedy=text)
    request = await environment.approve(await environment.ask())
    await environment.drain()
    assert (await environment.now(request)).ended_because is Cause.FAILED
    (notice,) = environment.messenger.on(ADA, StateChangeNotice)
    assert is_accepted_by_slack(notice)
    assert "You can ask again." in render(notice).text


@pytest.mark.parametrize("verb", ["identity", "create"])
async def test_a_blocked_grant_is_no_server_that_is_down(environment: AccessEnvironment, verb: str) -> None:
    environment.server.errors[verb] = Blocked("a lock of session 7")
    request = await environment.approve(await environment.ask())
    await environment.turn(minutes=1)
    assert (await environment.now(request)).state is State.APPROVED
    notice = environment.message()
    assert isinstance(notice, PreparingNotice)
    assert "does not answer" not in str(notice.trouble)
    assert ("shop answers, but another session holds this up" in str(notice.trouble)) == (verb == "identity")
    environment.server.errors.clear()
    await environment.turn(minutes=2)
    assert (await environment.now(request)).state is State.ACTIVE


@pytest.mark.parametrize(
    ("error", "is_final"),
    [(Rejected("no"), True), (ForeignUser("jit", "another"), True), (Blocked("a lock", remedy="KILL 7;"), False), (ServerDown("refused"), False), (LoginRefused("odd"), False)],
)  # fmt: skip
@pytest.mark.parametrize("verb", ["set_password", "set_expiry"])
async def test_a_password_or_expiry_that_is_not_set_raises_one_alert(
    environment: AccessEnvironment, error: AdapterError, verb: str, *, is_final: bool
) -> None:
    request = await environment.granted()
    ada = await environment.person(ADA)
    environment.server.errors[verb] = error
    if verb == "set_password":
        await password.renew(environment.context, ada, request)
    else:
        wanted = RequestInput(duration=timedelta(minutes=30), reason="still at it")
        longer = await extend.extend(environment.context, ada, request.id, wanted)
        await environment.approve(longer.request)
    await environment.turn(minutes=5)
    (alert,) = alerts(environment)
    assert "No new password for #1: shop" in alert.what or "was moved, but not on the server: shop" in alert.what
    assert ("KILL 7;" in alert.steps) == isinstance(error, Blocked)
    waiting = {task.kind for task in await environment.ledger.tasks.all()} & {
        TaskKind.RENEW_PASSWORD,
        TaskKind.MOVE_EXPIRY,
    }
    assert not waiting if is_final else waiting


async def test_a_password_that_cannot_be_shown_says_why(environment: AccessEnvironment) -> None:
    environment.policy["rules"][0]["delivery"] = "reveal"
    environment.write()
    request = await environment.granted()
    environment.server.errors["set_password"] = Blocked(f"a lock {LONG}", remedy="KILL 7;")
    with pytest.raises(password.Refused, match="shop answers, but this step is held up: a lock") as refused:
        await password.reveal(environment.context, await environment.person(ADA), request)
    assert len(str(refused.value)) < SECTION_MAX


# One server does not stop the look at the others.


def two_servers(environment: AccessEnvironment, monkeypatch: pytest.MonkeyPatch, first: type[Adapter]) -> FakeServer:
    """A second database on a server that works."""
    monkeypatch.setenv("FAR", "mysql://bot:FarAdminSecret@localhost/far")
    far = FakeServer(clock=environment.clock, identity="far-1")
    environment.engines = Engines({"postgresql": first, "mysql": engine(far)})
    environment.context = replace(environment.context, engines=environment.engines)
    environment.runner = Runner(environment.context, JOBS)
    levels = {"readonly": {"roles": ["reader"]}}
    environment.databases["databases"]["far"] = {"engine": "mysql", "admin_url": "env:FAR", "levels": levels}
    environment.write()
    environment.context.files.refresh()
    return far


def failing(environment: AccessEnvironment, way: str, release: threading.Event) -> type[Adapter]:
    class Failing(engine(environment.server)):  # type: ignore[misc]
        def __init__(self, *parts: Any) -> None:
            if way == "opening":
                raise KeyError("postgresql://bot:ShopAdminSecret@localhost/shop")
            super().__init__(*parts)

        def list_users(self) -> Any:
            return hang_or_garbage()

        def check(self, levels: Any = ()) -> Any:
            del levels
            return hang_or_garbage()

    def hang_or_garbage() -> None:
        if way == "hanging":
            release.wait(600)

    return Failing


@pytest.mark.parametrize("way", ["opening", "garbage", "hanging"])
async def test_a_failing_server_does_not_stop_the_look_at_another(
    environment: AccessEnvironment, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    release = threading.Event()
    request = await environment.granted()
    far = two_servers(environment, monkeypatch, failing(environment, way, release))
    far.users[str(request.username).replace("_1_", "_77_")] = environment.server.users[str(request.username)]
    monkeypatch.setattr(servers, "LOOK_SECONDS", 2.0)
    try:
        found = await strays.find_strays(environment.context)
        await servers.measure_servers(environment.context)
    finally:
        release.set()
    assert [(stray.kind, stray.target.name) for stray in found.strays] == [(strays.StrayKind.ORPHAN, "far")]
    assert set(found.unanswered) == {"shop"}
    assert "ShopAdminSecret" not in str(found.unanswered)


async def test_an_unreadable_target_does_not_stop_the_look(environment: AccessEnvironment) -> None:
    request = await environment.granted()
    damage = update(requests).where(requests.c.id == request.id).values(target=["of a later version"])
    await environment.ledger.database.write(lambda tx: tx.execute(damage))
    found = await strays.find_strays(environment.context)
    assert found.users == 1
    assert "the target of #1 cannot be read" in found.unanswered["shop"]


async def test_a_failing_level_does_not_stop_the_trials_of_others(environment: AccessEnvironment) -> None:
    environment.databases["databases"]["shop"]["levels"] = {name: {"roles": ["reader"]} for name in ("aaa", "zzz")}
    environment.policy["rules"][0]["levels"] = ["*"]
    environment.write()
    environment.context.config_in_force()
    calls = 0

    def break_once(name: str) -> None:
        nonlocal calls
        calls += name == "before create"
        if name == "before create" and calls == 1:
            raise KeyError("postgresql://bot:ShopAdminSecret@localhost/shop")

    environment.server.step = break_once
    steps: list[Step] = []
    is_well = await run_trials(environment.context, "shop", lambda _name, step: steps.append(step), threading.Event())
    assert not is_well
    assert [step.level for step in steps if not step.ok] == ["aaa"]
    assert any(step.level == "zzz" and step.name == "read back" and step.ok for step in steps)
    assert "ShopAdminSecret" not in str(steps)
