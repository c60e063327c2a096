"""The fake on the network: Web API and Socket Mode over real HTTP and a real websocket, and the acts of people.

A test can switch on failures of Slack: envelopes that come twice or late, methods that fail, sockets that close.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from aiohttp import WSMsgType, web

from tests.fake_slack import strictness
from tests.fake_slack.fair_clock import FairClock
from tests.fake_slack.web_api import WebApi
from tests.fake_slack.workspace import APP, APP_TOKEN, BOT_TOKEN, RESPONSE_SECONDS, RESPONSE_USES, TEAM, Workspace

ACK_SECONDS = 3.0
WAIT_SECONDS = 60.0
LOST = "lost"
"""The call is carried out, and its answer never arrives."""


class WaitTimeout(Exception):
    """A condition did not come true in time. Not an AssertionError, because a failed step must not count as a known fault."""


@dataclass
class Outcome:
    """The result of an act of a person. ``ack`` is the payload of the acknowledgement, or None if none came in time, which Slack shows as an error."""

    ack: dict[str, Any] | None
    was_acked: bool

    @property
    def errors(self) -> dict[str, str]:
        """The errors of a submitted form by block id."""
        return dict((self.ack or {}).get("errors") or {})


@dataclass
class FakeSlack:
    """A running workspace."""

    workspace: Workspace = field(default_factory=Workspace)
    url: str = ""
    port: int = 0
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    slow: dict[str, float] = field(default_factory=dict)
    """Seconds that a method takes."""
    failures: dict[str, list[dict[str, Any] | int | str]] = field(default_factory=lambda: defaultdict(list))
    """The results of the next calls of a method: an error, an HTTP status, or ``LOST``."""
    late: dict[str, asyncio.Event] = field(default_factory=dict)
    """The method is carried out at once, and its answer arrives when the event is set."""
    _sockets: list[web.WebSocketResponse] = field(default_factory=list)
    _tickets: set[str] = field(default_factory=set)
    _acks: dict[str, asyncio.Future[dict[str, Any]]] = field(default_factory=dict)
    _held: list[asyncio.Event] | None = None

    def __post_init__(self) -> None:
        self.api = WebApi(self.workspace)

    @property
    def problems(self) -> list[str]:
        """Everything that real Slack would have refused or shown as an error."""
        return self.workspace.problems

    # The network.

    async def on_api(self, request: web.Request) -> web.Response:
        method = request.match_info["method"]
        arguments = await _arguments(request)
        self.calls.append((method, arguments))
        await asyncio.sleep(self.slow.get(method, 0))
        if self.failures[method]:
            failure = self.failures[method].pop(0)
            if isinstance(failure, str):
                assert failure == LOST, "LOST is the only failure given as a string"
                assert self.api.call(method, arguments)["ok"], "only the answer of a successful call can be lost"
                assert request.transport is not None
                request.transport.abort()
                return web.Response()
            if isinstance(failure, int):
                return web.json_response({"ok": False, "error": "internal_error"}, status=failure)
            headers = {"Retry-After": "1"} if failure.get("error") == "ratelimited" else {}
            return web.json_response({"ok": False, **failure}, status=429 if headers else 200, headers=headers)
        token = request.headers.get("Authorization", "").removeprefix("Bearer ") or arguments.get("token", "")
        if method == "apps.connections.open":
            return web.json_response(self._ticket(token))
        if token != BOT_TOKEN:
            return web.json_response({"ok": False, "error": "not_authed" if not token else "invalid_auth"})
        answer = json.dumps(self.api.call(method, arguments))
        if method in self.late:
            await self.late[method].wait()
        return web.json_response(text=answer, headers={"x-oauth-scopes": ",".join(sorted(self.workspace.scopes))})

    def _ticket(self, token: str) -> dict[str, Any]:
        if token != APP_TOKEN:
            return {"ok": False, "error": "not_allowed_token_type" if token == BOT_TOKEN else "invalid_auth"}
        ticket = secrets.token_hex(8)
        self._tickets.add(ticket)
        return {"ok": True, "url": f"{self.url.replace('http', 'ws')}/link/?ticket={ticket}"}

    async def on_socket(self, request: web.Request) -> web.StreamResponse:
        ticket = request.query.get("ticket", "")
        if ticket not in self._tickets:
            return web.Response(status=403)
        self._tickets.discard(ticket)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_json(
            {"type": "hello", "num_connections": len(self._sockets) + 1, "connection_info": {"app_id": APP}}
        )
        self._sockets.append(socket)
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT and message.data.startswith("{"):
                    self._on_ack(json.loads(message.data))
        finally:
            self._sockets.remove(socket)
        return socket

    def _on_ack(self, frame: dict[str, Any]) -> None:
        waiting = self._acks.get(frame.get("envelope_id", ""))
        if waiting is None:
            self.problems.append("an ack of an envelope that was never sent")
        elif waiting.done():
            self.problems.append("an envelope was acked twice, or after its three seconds")
        else:
            waiting.set_result(frame.get("payload") or {})

    async def on_response_url(self, request: web.Request) -> web.Response:
        found = self.workspace.response_urls.get(request.match_info["token"])
        body = await request.json()
        if found is None or self.workspace.now() - found.made_at > RESPONSE_SECONDS:
            return web.Response(status=404, text="expired_url")
        if wrong := strictness.problems_of_answer(body):
            self.problems.extend(wrong)
            return web.Response(status=400, text="invalid_blocks")
        found.uses += 1
        if found.uses > RESPONSE_USES:
            return web.Response(status=404, text="used_url")
        if body.get("response_type", "ephemeral") != "ephemeral" or body.get("replace_original", False):
            self.problems.append("an answer that others would see, or that replaces the message")
        self.workspace.ephemerals.append(
            {"user": found.user, "channel": found.channel, "text": body.get("text", ""), "blocks": body.get("blocks")}
        )
        return web.Response(text="ok")

    async def drop_sockets(self) -> None:
        """Close all sockets, as a network failure does."""
        for socket in list(self._sockets):
            await socket.close()

    async def refresh_sockets(self) -> None:
        """Announce and close all sockets, as Slack does every few hours. The bot must reconnect by itself."""
        for socket in list(self._sockets):
            await socket.send_json({"type": "disconnect", "reason": "refresh_requested", "debug_info": {}})
            await asyncio.sleep(0)
            await socket.close()

    # Deliveries.

    def hold(self) -> None:
        """Hold back all envelopes from now on."""
        self._held = []

    @property
    def held(self) -> int:
        return len(self._held or [])

    def release(self, *, newest_first: bool = False) -> None:
        """Deliver the held envelopes, in reverse order with ``newest_first``."""
        held, self._held = self._held or [], None
        for gate in reversed(held) if newest_first else held:
            gate.set()

    async def _wait_while_held(self) -> None:
        if self._held is not None:
            gate = asyncio.Event()
            self._held.append(gate)
            await gate.wait()

    async def deliver(self, kind: str, payload: dict[str, Any], *, retry: int = 0) -> Outcome:
        """Send one envelope to one socket. The acknowledgement must come within three seconds."""
        await self._wait_while_held()
        deadline = asyncio.get_running_loop().time() + WAIT_SECONDS
        while not (open_ := [s for s in self._sockets if not s.closed]):
            if asyncio.get_running_loop().time() >= deadline:
                raise WaitTimeout("an open socket")
            await asyncio.sleep(0.01)
        envelope = secrets.token_hex(10)
        waiting = self._acks[envelope] = asyncio.get_running_loop().create_future()
        frame: dict[str, Any] = {
            "envelope_id": envelope,
            "type": kind,
            "payload": payload,
            "accepts_response_payload": kind != "events_api",
        }
        if retry:
            frame |= {"retry_attempt": retry, "retry_reason": "timeout"}
        await open_[0].send_json(frame)
        if await self._wait_for_ack(waiting):
            return Outcome(ack=waiting.result(), was_acked=True)
        waiting.cancel()
        self.problems.append(f"{kind} was not acked within three seconds")
        return Outcome(ack=None, was_acked=False)

    @staticmethod
    async def _wait_for_ack(waiting: asyncio.Future[dict[str, Any]]) -> bool:
        clock = FairClock()
        while (left := ACK_SECONDS - clock()) > 0 and not waiting.done():
            await asyncio.wait([waiting], timeout=left)
        return waiting.done()

    # Acts of people.

    async def command(self, user: str, text: str, *, channel: str = "C0CARDS", twice: bool = False) -> Outcome:
        token = self.workspace.new_response_url(user, channel, None)
        payload = {
            "command": "/dbaccess", "text": text, "user_id": user, "user_name": user.lower(), "team_id": TEAM, "channel_id": channel,
            "api_app_id": APP, "is_enterprise_install": "false", "trigger_id": self.workspace.new_trigger(user), "response_url": f"{self.url}/response/{token}",
        }  # fmt: skip
        outcome = await self.deliver("slash_commands", payload)
        self.problems.extend(strictness.problems_of_ack(outcome.ack or {}, None))
        if twice:
            await self.deliver("slash_commands", payload, retry=1)
        return outcome

    async def click(self, user: str, message: dict[str, Any], label: str, *, twice: bool = False) -> Outcome:
        """Click the button with this label. ``message`` may be an earlier version of the message."""
        block, element = _find_button(message, label)
        token = self.workspace.new_response_url(user, message["channel"], message["ts"])
        action = {
            **{k: element[k] for k in ("type", "action_id", "text", "value")},
            "block_id": block.get("block_id", "b"),
            "action_ts": self.workspace.new_ts(),
        }
        payload = {
            "type": "block_actions", "user": self._acting_user(user), "api_app_id": APP, "team": {"id": TEAM, "domain": "strict"}, "enterprise": None, "is_enterprise_install": False,
            "container": {"type": "message", "message_ts": message["ts"], "channel_id": message["channel"], "is_ephemeral": False},
            "channel": {"id": message["channel"], "name": "channel"}, "message": message, "state": {"values": {}}, "actions": [action],
            "trigger_id": self.workspace.new_trigger(user), "response_url": f"{self.url}/response/{token}",
        }  # fmt: skip
        outcome = await self.deliver("interactive", payload)
        self.problems.extend(strictness.problems_of_ack(outcome.ack or {}, None))
        if twice:
            await self.deliver("interactive", payload, retry=1)
        return outcome

    async def submit(self, user: str, view: dict[str, Any], **wanted: str) -> Outcome:
        """Submit the form with ``wanted`` values by field label (``why=``, ``for_how_long=``)."""
        values = _form_state(view, {name.replace("_", " "): value for name, value in wanted.items()})
        team = self.workspace.users[user]["team_id"]
        payload = {
            "type": "view_submission", "user": self._acting_user(user), "team": {"id": team, "domain": "x"}, "api_app_id": APP, "enterprise": None,
            "is_enterprise_install": False, "trigger_id": self.workspace.new_trigger(user), "response_urls": [], "view": {**view, "state": {"values": values}},
        }  # fmt: skip
        outcome = await self.deliver("interactive", payload)
        self.problems.extend(strictness.problems_of_ack(outcome.ack or {}, view))
        return outcome

    async def event(self, kind: str, **event: Any) -> Outcome:
        return await self.deliver(
            "events_api",
            {
                "type": "event_callback",
                "team_id": TEAM,
                "api_app_id": APP,
                "event_id": secrets.token_hex(6),
                "event": {"type": kind, **event},
            },
        )

    async def group_changes(self, group: str, *users: str, disabled: bool = False) -> Outcome:
        """Change the members of a group and send Slack's event."""
        added, removed = self.workspace.change_group(group, *users, disabled=disabled)
        if disabled:
            return await self.event("subteam_updated", subteam=self.workspace.groups[group])
        return await self.event(
            "subteam_members_changed",
            subteam_id=group,
            team_id=TEAM,
            added_users=added,
            added_users_count=len(added),
            removed_users=removed,
            removed_users_count=len(removed),
        )

    async def person_changes(self, user: str, **flags: Any) -> Outcome:
        """Change the flags of a person, such as ``deleted`` or ``is_restricted``, and send Slack's event."""
        self.workspace.users[user] |= flags
        return await self.event("user_change", user=self.workspace.users[user])

    def _acting_user(self, user: str) -> dict[str, Any]:
        person = self.workspace.users[user]
        return {"id": user, "username": person["name"], "name": person["name"], "team_id": person["team_id"]}

    # The view of people.

    def messages(self, channel: str) -> list[dict[str, Any]]:
        return [json.loads(json.dumps(m)) for m in self.workspace.messages.get(channel, {}).values()]

    def dm(self, user: str) -> list[dict[str, Any]]:
        return self.messages(f"D{user[1:]}")

    def answers(self, user: str) -> list[str]:
        """Return the texts of the ephemeral replies to this person."""
        return [e["text"] for e in self.workspace.ephemerals if e["user"] == user]

    def form(self, user: str) -> dict[str, Any] | None:
        """Return the newest form of a person."""
        return next((v for v in reversed(self.workspace.views.values()) if v["user"] == user), None)

    async def wait(self, what: str, found: Callable[[], Any], seconds: float = WAIT_SECONDS) -> Any:
        deadline = asyncio.get_running_loop().time() + seconds
        while not (value := found()):
            if asyncio.get_running_loop().time() >= deadline:
                raise WaitTimeout(f"{what}; answers {self.workspace.ephemerals}")
            await asyncio.sleep(0.01)
        return value


async def _arguments(request: web.Request) -> dict[str, Any]:
    body = await request.text()
    if "json" in request.headers.get("Content-Type", ""):
        return dict(json.loads(body))
    found: dict[str, Any] = dict(parse_qsl(body)) | dict(request.query)
    for name in ("blocks", "view", "metadata"):
        if isinstance(found.get(name), str):
            found[name] = json.loads(found[name])
    return found


def _find_button(message: dict[str, Any], label: str) -> tuple[dict[str, Any], dict[str, Any]]:
    for block in message.get("blocks") or []:
        for element in block["elements"] if block["type"] == "actions" else ():
            if element["text"]["text"] == label:
                return block, element
    raise WaitTimeout(f"a button {label} on {json.dumps(message)[:500]}")


def _form_state(view: dict[str, Any], wanted: dict[str, str]) -> dict[str, Any]:
    """Return the state as Slack sends it: typed values, and the initial values of untouched fields."""
    values: dict[str, Any] = {}
    left = dict(wanted)
    for block in view["blocks"]:
        if block["type"] != "input":
            continue
        element, label = block["element"], block["label"]["text"].lower()
        text = left.pop(label, None)
        if element["type"] == "plain_text_input":
            state: dict[str, Any] = {
                "type": "plain_text_input",
                "value": text if text is not None else element.get("initial_value"),
            }
            assert len(state["value"] or "") <= element.get("max_length", 3000), (
                "the client does not accept longer text"
            )
        else:
            option = (
                next((o for o in element["options"] if o["value"] == text), None)
                if text
                else element.get("initial_option")
            )
            assert option or not text, f"{text} is none of the options of {label}"
            state = {"type": element["type"], "selected_option": option}
        values[block["block_id"]] = {element["action_id"]: state}
    assert not left, f"the form has no field {list(left)}"
    return values


AnySlack = TypeVar("AnySlack", bound=FakeSlack)


@asynccontextmanager
async def served(slack: AnySlack) -> AsyncIterator[AnySlack]:
    """Serve this fake on a free port of loopback."""
    app = web.Application()
    app.add_routes([
        web.post("/api/{method}", slack.on_api), web.get("/api/{method}", slack.on_api), web.get("/link/", slack.on_socket),
        web.post("/response/{token}", slack.on_response_url),
    ])  # fmt: skip
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    slack.port = runner.addresses[0][1]
    slack.url = f"http://127.0.0.1:{slack.port}"
    try:
        yield slack
    finally:
        await slack.drop_sockets()
        await runner.cleanup()


@asynccontextmanager
async def running_fake_slack() -> AsyncIterator[FakeSlack]:
    """Run a fake on a free port of loopback."""
    async with served(FakeSlack()) as slack:
        yield slack
