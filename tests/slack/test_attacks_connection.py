"""The way to Slack when it is slow, half open or silent: what is acked, what is lost, and what is built again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from bot.slack.connection import SocketConnection, TokenRefused, build_bolt_app, web_client
from bot.slack.directory import SlackDirectory
from bot.slack.messenger import SlackMessenger
from tests.access.environment import ALERTS, AUDIT, CARDS, PEOPLE, AccessEnvironment
from tests.access.steps import put_in_force
from tests.fake_slack.server import ACK_SECONDS, FakeSlack, running
from tests.fake_slack.workspace import APP_TOKEN, BOT_TOKEN
from tests.open_faults import open_fault
from tests.slack.conftest import ADA, LEAD, STRANGER, SlackEnvironment
from tests.soak import soak_only

PAGE = 65536


# The first command after a start (U9).


async def connected(slack: FakeSlack) -> None:
    await slack.wait("a socket", lambda: slack._sockets, 30)


def calm(slack: FakeSlack) -> list[str]:
    """What Slack complained about until now; it is judged by the test and not by its fixture."""
    found = list(slack.problems)
    slack.problems.clear()
    return found


@open_fault("U9", "the first command waits for auth.test before its ack")
async def test_the_first_command_is_acked_while_slack_is_slow_to_say_who_we_are(
    slack_environment: SlackEnvironment,
) -> None:
    await connected(slack_environment.slack)
    slack_environment.slack.slow["auth.test"] = ACK_SECONDS + 5
    outcome = await slack_environment.slack.command(ADA, "help")
    calm(slack_environment.slack)
    assert outcome.was_acked


@open_fault("U9", "the first command is lost where auth.test fails once")
async def test_the_first_command_is_answered_although_slack_fails_to_say_who_we_are(
    slack_environment: SlackEnvironment,
) -> None:
    await connected(slack_environment.slack)
    slack_environment.slack.failures["auth.test"] += [503, 503]
    outcome = await slack_environment.slack.command(ADA, "help")
    problems = calm(slack_environment.slack)
    assert outcome.was_acked
    assert problems == []
    await slack_environment.slack.wait("an answer", lambda: slack_environment.slack.answers(ADA))


@open_fault("U9", "the card in the renamed channel keeps its buttons")
async def test_a_channel_that_gets_another_id_keeps_its_cards(slack_environment: SlackEnvironment) -> None:
    card = await slack_environment.ask()
    workspace = slack_environment.slack.workspace
    workspace.add_channel("C0NEWID", "cards")
    workspace.messages["C0NEWID"] = workspace.messages.pop(CARDS)
    del workspace.channels[CARDS]
    for message in workspace.messages["C0NEWID"].values():
        message["channel"] = "C0NEWID"
    await slack_environment.slack.event("channel_id_changed", old_channel_id=CARDS, new_channel_id="C0NEWID")
    await slack_environment.slack.click(LEAD, {**card, "channel": "C0NEWID"}, "Approve")
    await slack_environment.expect_dm(ADA, "is ready")
    with suppress(TimeoutError):
        async with asyncio.timeout(5):
            while offers_approve(slack_environment):
                await asyncio.sleep(0.02)
    assert not offers_approve(slack_environment)


def offers_approve(slack_environment: SlackEnvironment) -> bool:
    """The card in the channel under its new id."""
    return "Approve" in str(slack_environment.slack.messages("C0NEWID")[0]["blocks"])


async def test_a_new_card_reaches_the_approvers_where_the_channel_got_another_id(
    slack_environment: SlackEnvironment,
) -> None:
    put_in_force(slack_environment.environment, requesters=["anyone"])
    workspace = slack_environment.slack.workspace
    del workspace.channels[CARDS]
    await slack_environment.slack.event("channel_id_changed", old_channel_id=CARDS, new_channel_id="C0NEWID")
    await slack_environment.slack.command(STRANGER, "request shop readonly 1h looking at a refund", channel=ALERTS)
    await slack_environment.expect_dm(LEAD, "looking at a refund")
    await slack_environment.slack.wait(
        "an alert", lambda: "cannot be posted in C0CARDS" in str(slack_environment.slack.messages(ALERTS))
    )


# Packets that vanish.


@dataclass
class Relay:
    """TCP between the bot and the double. A frozen link neither forwards nor closes."""

    port_behind: int
    port: int = 0
    passes: bool = True
    links: list[Link] = field(default_factory=list)
    server: asyncio.Server | None = None

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._on, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]

    async def _on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = Link(is_frozen=not self.passes, ends=[writer])
        self.links.append(link)
        there, back = await asyncio.open_connection("127.0.0.1", self.port_behind)
        link.ends.append(back)
        await asyncio.gather(link.carry(reader, back), link.carry(there, writer))

    def freeze(self) -> None:
        """All links there are; new ones pass."""
        for link in self.links:
            link.is_frozen = True

    async def close(self) -> None:
        if self.server is not None:
            self.server.close()
        for end in [end for link in self.links for end in link.ends]:
            end.close()
        await asyncio.sleep(0.1)


@dataclass
class Link:
    is_frozen: bool
    ends: list[asyncio.StreamWriter]

    async def carry(self, one: asyncio.StreamReader, other: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await one.read(PAGE):
                if not self.is_frozen:
                    other.write(data)
                    await other.drain()
        if not self.is_frozen:
            other.close()


@dataclass
class Far:
    """A bot that reaches Slack through the relay."""

    slack: FakeSlack
    relay: Relay
    connection: SocketConnection
    life: asyncio.Task[None]


def peopled(slack: FakeSlack) -> None:
    for person, name in PEOPLE.items():
        slack.workspace.add_person(person, name)
    for channel, name in ((CARDS, "cards"), (AUDIT, "audit"), (ALERTS, "alerts")):
        slack.workspace.add_channel(channel, name)


@pytest.fixture
async def far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Far]:
    monkeypatch.setenv("SHOP_ADMIN_URL", "postgresql://bot:ShopAdminSecret@localhost/shop")
    environment = AccessEnvironment(folder=tmp_path, store=f"sqlite+aiosqlite:///{tmp_path}/ledger.db")
    await environment.open()
    async with running() as slack:
        relay = Relay(int(slack.url.rsplit(":", 1)[1]))
        await relay.start()
        slack.url = f"http://127.0.0.1:{relay.port}"
        peopled(slack)
        client = web_client(BOT_TOKEN, f"{slack.url}/api/")
        environment.context = replace(
            environment.context, directory=SlackDirectory(client), messenger=SlackMessenger(client)
        )
        connection, stop = SocketConnection(build_bolt_app(client, environment.context), APP_TOKEN), asyncio.Event()
        life = asyncio.create_task(connection.run(stop))
        try:
            await connected(slack)
            yield Far(slack, relay, connection, life)
        finally:
            stop.set()
            await relay.close()
            await asyncio.gather(life, return_exceptions=True)
            await environment.close()


async def assert_works(far: Far) -> None:
    """A command is answered; what is typed while one socket follows another is lost, and people type it again."""
    before = len(far.slack.answers(ADA))
    tries = [await far.slack.command(ADA, "help")]
    while not tries[-1].was_acked and len(tries) < 5:
        tries.append(await far.slack.command(ADA, "help"))
    calm(far.slack)
    assert tries[-1].was_acked
    await far.slack.wait("an answer", lambda: len(far.slack.answers(ADA)) > before)


@open_fault("U9", "the ack waits for the Web API: where that swallows packets, none comes")
async def test_a_command_is_acked_while_the_web_api_swallows_packets(far: Far) -> None:
    far.relay.passes = False
    outcome = await far.slack.command(ADA, "request shop readonly 1h looking at a refund")
    calm(far.slack)
    assert outcome.was_acked


@pytest.mark.timeout(400)
async def test_a_socket_that_is_half_open_is_built_again(far: Far) -> None:
    await assert_works(far)
    far.relay.freeze()
    far.slack._sockets.clear()
    await far.slack.wait("another socket", lambda: far.slack._sockets, 300)
    await assert_works(far)


@pytest.mark.parametrize("reason", ["too_many_websockets", "refresh_requested"])
async def test_a_socket_that_slack_takes_away_is_built_again(far: Far, reason: str) -> None:
    old = list(far.slack._sockets)
    for socket in old:
        await socket.send_json({"type": "disconnect", "reason": reason, "debug_info": {}})
        await asyncio.sleep(0)
        await socket.close()
    await far.slack.wait("another socket", lambda: [s for s in far.slack._sockets if s not in old], 60)
    await assert_works(far)


async def test_a_warning_of_slack_takes_no_command_away(far: Far) -> None:
    for socket in far.slack._sockets:
        await socket.send_json({"type": "disconnect", "reason": "warning", "debug_info": {}})
    await assert_works(far)


@soak_only
@pytest.mark.timeout(400)
async def test_an_app_whose_socket_mode_was_switched_off_says_so(far: Far) -> None:
    far.slack.failures["apps.connections.open"] += [{"error": "link_disabled"}] * 200
    for socket in list(far.slack._sockets):
        await socket.send_json({"type": "disconnect", "reason": "link_disabled", "debug_info": {}})
        await socket.close()
    await asyncio.wait({far.life}, timeout=300)
    assert far.life.done()
    assert isinstance(far.life.exception(), TokenRefused)
