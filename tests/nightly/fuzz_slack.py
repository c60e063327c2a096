"""Random payloads and command texts through the real Bolt app, without a network.

What is checked: nobody gets an unexpected error, each payload that names a person gets an answer in words or does what it says, and only the
people whom the policy allows change anything.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import structlog
from slack_bolt.async_app import AsyncApp
from slack_bolt.request.async_request import AsyncBoltRequest
from slack_sdk.web.async_client import AsyncWebClient
from slack_sdk.web.async_slack_response import AsyncSlackResponse
from slack_sdk.webhook import WebhookResponse
from slack_sdk.webhook.async_client import AsyncWebhookClient

import bot
from bot.access import decide, queries, request_access
from bot.access.errors import AccessError
from bot.access.use_case_types import RequestInput
from bot.slack import ids
from bot.slack.connection import build_bolt_app
from bot.slack.render import form_layouts
from storage.records import Request, RequestKind, State
from tests.access.environment import ADA, ADMIN, CARDS, LEAD, SECOND, STRANGER
from tests.fake_slack.server import _form_state
from tests.fake_slack.workspace import APP, TEAM
from tests.nightly import configurations, invariants
from tests.nightly.mutations import ODD, mutated
from tests.nightly.world import World

FAULTS = frozenset({"listener_failed", "ledger_unavailable", "task_failed", "adapter_failed"})
PEOPLE = (ADA, LEAD, SECOND, ADMIN, STRANGER, "U0GUEST", "")
BUTTONS = (
    ids.APPROVE, ids.DENY, ids.REVOKE, ids.DONE, ids.EXTEND, ids.SIGN_OFF, ids.CANCEL, ids.SHOW_PASSWORD, ids.NEW_PASSWORD,
    ids.REQUEST_AGAIN, ids.DATABASE, "unknown",
)  # fmt: skip
VERBS = (
    "request", "breakglass", "extend", "review", "list", "status", "cancel", "done", "revoke", "lockdown", "unlock", "databases",
    "explain", "help", "pending", "report", "nonsense", "REQUEST", "",
)  # fmt: skip
WORDS = (
    "shop", "stock", "readonly", "write", "1h", "30m", "2 hours", "90d", "0s", "1h1h", "#1", "1", "2", "999999999999999999",
    "<@U0ADA|ada>", "<@U0ADMIN>", "@ada", "<#C0CARDS|cards>", "<!here>", "refund", "of", "8812", "--all", "&amp;", "&lt;b&gt;",
)  # fmt: skip
EVENTS = ("user_change", "subteam_updated", "subteam_members_changed", "app_home_opened", "message", "reaction_added")
IN_A_ROUND = 40
"""Payloads against one state of requests; then the requests are made anew."""


@dataclass
class Findings:
    """``faults`` are log events and errors that must not be; ``counts`` says what the payloads led to."""

    faults: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    def note(self, error: BaseException | None, payload: Any) -> None:
        """An error of Bolt itself, before it calls a listener, refuses the payload. An error in ours is a fault."""
        if error is not None and not _is_ours(error):
            self.counts["refused by Bolt"] += 1
            return
        self.faults.append(f"{error!r} for {payload}"[:3000])


def _is_ours(error: BaseException) -> bool:
    folder = f"{Path(bot.__file__).parent}{os.sep}"
    return any(frame.filename.startswith(folder) for frame in traceback.extract_tb(error.__traceback__))


class Fuzz:
    """One bot without a network, and the samples of what Slack sends to it."""

    def __init__(self, chance: random.Random) -> None:
        os.environ.setdefault("SHOP_ADMIN_URL", "postgresql://bot:ShopAdminSecret@localhost/shop")
        os.environ.setdefault("STOCK_ADMIN_URL", "mysql://bot:StockAdminSecret@localhost/stock")
        self.chance = chance
        self.findings = Findings()
        self.seen = list[str]()
        self.memory = invariants.Memory()

    async def run(self, rounds: int) -> Findings:
        done = 0
        while done < rounds:
            number = min(IN_A_ROUND * 10, rounds - done)
            self.memory = invariants.Memory()
            await self._run_world(number)
            done += number
        return self.findings

    async def _run_world(self, rounds: int) -> None:
        self.world = World()
        context = (await self.world.start_bot()).context
        app = build_bolt_app(AsyncWebClient(token="xoxb-fuzz"), context)
        try:
            for number in range(rounds):
                if number % IN_A_ROUND == 0:
                    await self._make_requests()
                await self._try(app, self._payload())
        finally:
            await self.world.close()

    async def _make_requests(self) -> None:
        """Some pending requests, some live grants, a break-glass grant, all of different people."""
        context = self.world.bot().context
        await self.world.turn(timedelta(hours=30), runs=True)
        for who, database, level, kind in (
            (ADA, "shop", "readonly", RequestKind.ACCESS),
            (ADA, "shop", "write", RequestKind.ACCESS),
            (SECOND, "stock", "readonly", RequestKind.ACCESS),
            (LEAD, "shop", "readonly", RequestKind.BREAK_GLASS),
            (LEAD, "shop", "readonly", RequestKind.ACCESS),
        ):
            wanted = RequestInput(database=database, level=level, duration=timedelta(hours=1), reason="a", kind=kind)
            try:
                made = await request_access.request_access(context, await context.member(who), wanted)
                if who == LEAD and kind is RequestKind.ACCESS:
                    await decide.approve(context, await context.member(SECOND), made.request)
            except AccessError:
                continue
        await self.world.run(self.world.bot())
        self.last = await invariants.read(context.ledger)
        self.requests: Sequence[Request] = (await context.ledger.requests.find())[:5]
        entries = await queries.databases(context, await context.member(ADA))
        live = [one for one in self.requests if one.state is State.ACTIVE] or list(self.requests)
        wanted = RequestInput(database="shop", level="readonly", duration=timedelta(hours=1), reason="a refund")
        self.views = [
            form_layouts.request_form(entries, wanted),
            form_layouts.extension_form(live[0], entries, wanted),
            form_layouts.deny_form(self.requests[0]),
        ]

    # Samples.

    def _payload(self) -> dict[str, Any]:
        sample = self.chance.choice((self._command, self._click, self._submission, self._event))()
        return mutated(sample, self.chance) if self.chance.random() < 0.8 else sample

    def _command(self) -> dict[str, Any]:
        user = self.chance.choice(PEOPLE)
        return {
            "command": "/dbaccess", "text": random_text(self.chance), "user_id": user, "user_name": user.lower(), "team_id": TEAM,
            "channel_id": CARDS, "api_app_id": APP, "is_enterprise_install": "false", "trigger_id": "1.2.x",
            "response_url": "http://slack.invalid/response/1",
        }  # fmt: skip

    def _click(self) -> dict[str, Any]:
        user, request = self.chance.choice(PEOPLE), self.chance.choice(self.requests)
        action = {
            "type": "button", "action_id": self.chance.choice(BUTTONS), "text": {"type": "plain_text", "text": "Do"},
            "value": request.token, "block_id": "b", "action_ts": "1.1",
        }  # fmt: skip
        return {
            "type": "block_actions", "user": {"id": user, "username": user, "name": user, "team_id": TEAM}, "api_app_id": APP,
            "team": {"id": TEAM, "domain": "x"}, "enterprise": None, "is_enterprise_install": False,
            "container": {"type": "message", "message_ts": "1.1", "channel_id": CARDS, "is_ephemeral": False},
            "channel": {"id": CARDS, "name": "channel"}, "message": {"ts": "1.1", "blocks": []}, "state": {"values": {}},
            "actions": [action], "trigger_id": "1.2.x", "response_url": "http://slack.invalid/response/1",
        }  # fmt: skip

    def _submission(self) -> dict[str, Any]:
        user, view = self.chance.choice(PEOPLE), self.chance.choice(self.views)
        return {
            "type": "view_submission", "user": {"id": user, "username": user, "name": user, "team_id": TEAM},
            "team": {"id": TEAM, "domain": "x"}, "api_app_id": APP, "enterprise": None, "is_enterprise_install": False,
            "trigger_id": "1.2.x", "response_urls": [],
            "view": {**view, "id": "V1", "hash": "h", "state": {"values": _form_state(view, {})}},
        }  # fmt: skip

    def _event(self) -> dict[str, Any]:
        user = self.chance.choice(PEOPLE)
        event = {"type": self.chance.choice(EVENTS), "user": {"id": user}, "tab": "home", "subteam_id": "S0TEAM"}
        if event["type"] in ("app_home_opened", "message"):
            event["user"] = user
        return {
            "type": "event_callback", "team_id": TEAM, "api_app_id": APP, "event_id": "E1", "event_time": 1, "event": event,
        }  # fmt: skip

    # One payload.

    async def _try(self, app: AsyncApp, payload: dict[str, Any]) -> None:
        before = self.last
        self.seen.clear()
        with watched(self.findings, payload, self.seen):
            for _ in range(2 if self.chance.random() < 0.1 else 1):
                response = await app.async_dispatch(AsyncBoltRequest(body=payload, mode="socket_mode"))
                await _finish_others()
                self.findings.counts[f"status {response.status}"] += 1
                if response.body:
                    self.seen.append(response.body)
        await self._check(payload, before)

    async def _check(self, payload: Mapping[str, Any], before: invariants.Snapshot) -> None:
        now = self.last = await invariants.read(self.world.bot().context.ledger)
        invariants.check(self.world, now, self.memory)
        actor = _actor(payload)
        for event in now.events[len(before.events) :]:
            assert event.actor in (actor, "policy", "directory"), (payload, event)
            self.findings.counts[event.kind] += 1
        may = configurations.in_force(0).deciders
        for request_id, decisions in now.decisions.items():
            for one in decisions[len(before.decisions.get(request_id, ())) :]:
                assert one.person_id == actor, (payload, one)
                assert actor in may[now.requests[request_id].terms.rule], (payload, one)
        for text in self.seen:
            if any(wrong in text for wrong in ("Something went wrong", "Traceback", "AdminSecret")):
                self.findings.faults.append(f"{text} for {payload}"[:3000])
        self.findings.counts["answered" if self.seen else "silent"] += 1


def _actor(payload: Mapping[str, Any]) -> str:
    user = payload.get("user")
    return str(payload.get("user_id") or (user.get("id") if isinstance(user, dict) else None) or "")


def random_text(chance: random.Random) -> str:
    """A command as somebody may type it."""
    words = [chance.choice(VERBS), *chance.choices(WORDS, k=chance.randint(0, 6))]
    if chance.random() < 0.4:
        words.insert(chance.randint(0, len(words)), str(chance.choice(ODD)))
    return chance.choice((" ", "  ", "\t", "\u00a0")).join(words)


@contextmanager
def watched(findings: Findings, payload: Any, seen: list[str]) -> Iterator[None]:
    """Collect what is logged as a fault, and what is sent to a response URL."""

    def note(_logger: Any, _method: str, event: dict[str, Any]) -> Any:
        if event["event"] in FAULTS:
            findings.faults.append(f"{event} for {payload}"[:3000])
        raise structlog.DropEvent

    async def respond(_self: AsyncWebhookClient, body: dict[str, Any], headers: Any = None) -> WebhookResponse:
        seen.append(str(body))
        return WebhookResponse(url="", status_code=200, body="ok", headers={})

    async def call(self: AsyncWebClient, api_method: str, **arguments: Any) -> AsyncSlackResponse:
        seen.append(f"{api_method} {arguments.get('json') or arguments.get('params')}")
        data = {"ok": True, "team_id": TEAM, "user_id": "U0BOT", "bot_id": "B0BOT", "view": {"id": "V1"}}
        return AsyncSlackResponse(
            client=self, http_verb="POST", api_url="", req_args={}, data=data, headers={}, status_code=200
        )

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info and record.levelno >= logging.ERROR:
                findings.note(record.exc_info[1], payload)

    handler, was, log = Handler(), structlog.get_config(), logging.getLogger("slack_bolt")
    structlog.configure(processors=[note])
    log.addHandler(handler)
    try:
        with (
            mock.patch.object(AsyncWebhookClient, "send_dict", respond),
            mock.patch.object(AsyncWebClient, "api_call", call),
        ):
            yield
    except Exception as error:  # noqa: BLE001 - that there is none is what is tested
        findings.note(error, payload)
    finally:
        log.removeHandler(handler)
        structlog.configure(**was)


async def _finish_others() -> None:
    """Wait for what Bolt goes on with after the acknowledgement."""
    while others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others)
