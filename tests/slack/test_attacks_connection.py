"""The connection to Slack while Slack is slow, half open or silent: what is acknowledged, lost and replaced."""

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
from tests.fake_slack.server import ACK_SECONDS, FakeSlack, running_fake_slack
from tests.fake_slack.workspace import APP_TOKEN, BOT_TOKEN
from tests.open_faults import open_fault
from tests.slack.conftest import ADA, LEAD, STRANGER, SlackEnvironment
from tests.soak import soak_only

PAGE = 65536


# The first command after a start (U9).


async def wait_for_socket(slack: FakeSlack) -> None:
    await slack.wait("a socket", lambda: slack._sockets, 30)


def take_problems(slack: FakeSlack) -> list[str]:
    """Return and clear the problems up to now, so that the test and not the fixture checks them."""
    problems = list(slack.problems)
    slack.problems.clear()
    return problems


@open_fault("U9", "the first command waits for auth.test before its ack")
async def test_first_command_is_acked_while_auth_test_is_slow(
    slack_environment: SlackEnvironment,
) -> None:
    await wait_for_socket(slack_environment.slack)
    slack_environment.slack.slow["auth.test"] = ACK_SECONDS + 5
    outcome = await slack_environment.slack.command(ADA, "help")
    take_problems(slack_environment.slack)
    assert outcome.was_acked


@open_fault("U9", "the first command is lost if auth.test fails once")
async def test_first_command_is_answered_although_auth_test_fails(
    slack_environment: SlackEnvironment,
) -> None:
    await wait_for_socket(slack_environment.slack)
    slack_environment.slack.failures["auth.test"] += [503, 503]
    outcome = await slack_environment.slack.command(ADA, "help")
    problems = take_problems(slack_environment.slack)
    assert outcome.was_acked
    assert problems == []
    await slack_environment.slack.wait("an answer", lambda: slack_environment.slack.answers(ADA))


@open_fault("U9", "the card in the channel with a new id keeps its buttons")
async def test_card_is_updated_after_its_channel_got_another_id(slack_environment: SlackEnvironment) -> None:
    card = await slack_environment.make_request()
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
            while has_approve_button(slack_environment):
                await asyncio.sleep(0.02)
    assert not has_approve_button(slack_environment)


def has_approve_button(slack_environment: SlackEnvironment) -> bool:
    """Whether the card, in the channel with its new id, still has the button."""
    return "Approve" in str(slack_environment.slack.messages("C0NEWID")[0]["blocks"])


async def test_approvers_get_a_dm_if_the_channel_got_another_id(
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


# Lost packets.


@dataclass
class Relay:
    """A TCP relay between the bot and the fake. A frozen link neither forwards nor closes."""

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
        """Freeze all present links. New links pass."""
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
class RelayedBot:
    """A bot whose connection to Slack goes through the relay."""

    slack: FakeSlack
    relay: Relay
    connection: SocketConnection
    life: asyncio.Task[None]


def add_people(slack: FakeSlack) -> None:
    for person, name in PEOPLE.items():
        slack.workspace.add_person(person, name)
    for channel, name in ((CARDS, "cards"), (AUDIT, "audit"), (ALERTS, "alerts")):
        slack.workspace.add_channel(channel, name)


@pytest.fixture
async def relayed_bot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RelayedBot]:
    monkeypatch.setenv("SHOP_ADMIN_URL", "postgresql://bot:ShopAdminSecret@localhost/shop")
    environment = AccessEnvironment(folder=tmp_path, store=f"sqlite+aiosqlite:///{tmp_path}/ledger.db")
    await environment.open()
    async with running_fake_slack() as slack:
        relay = Relay(int(slack.url.rsplit(":", 1)[1]))
        await relay.start()
        slack.url = f"http://127.0.0.1:{relay.port}"
        add_people(slack)
        client = web_client(BOT_TOKEN, f"{slack.url}/api/")
        environment.context = replace(
            environment.context, directory=SlackDirectory(client), messenger=SlackMessenger(client)
        )
        connection, stop = SocketConnection(build_bolt_app(client, environment.context), APP_TOKEN), asyncio.Event()
        life = asyncio.create_task(connection.run(stop))
        try:
            await wait_for_socket(slack)
            yield RelayedBot(slack, relay, connection, life)
        finally:
            stop.set()
            await relay.close()
            await asyncio.gather(life, return_exceptions=True)
            await environment.close()


async def assert_command_answered(relayed_bot: RelayedBot) -> None:
    """A command is answered. Commands while a socket is replaced are lost, so it is sent up to five times."""
    before = len(relayed_bot.slack.answers(ADA))
    tries = [await relayed_bot.slack.command(ADA, "help")]
    while not tries[-1].was_acked and len(tries) < 5:
        tries.append(await relayed_bot.slack.command(ADA, "help"))
    take_problems(relayed_bot.slack)
    assert tries[-1].was_acked
    await relayed_bot.slack.wait("an answer", lambda: len(relayed_bot.slack.answers(ADA)) > before)


@open_fault("U9", "the ack waits for the Web API and does not come if that drops packets")
async def test_command_is_acked_while_the_web_api_drops_packets(relayed_bot: RelayedBot) -> None:
    relayed_bot.relay.passes = False
    outcome = await relayed_bot.slack.command(ADA, "request shop readonly 1h looking at a refund")
    take_problems(relayed_bot.slack)
    assert outcome.was_acked


@pytest.mark.timeout(400)
async def test_half_open_socket_is_replaced(relayed_bot: RelayedBot) -> None:
    await assert_command_answered(relayed_bot)
    relayed_bot.relay.freeze()
    relayed_bot.slack._sockets.clear()
    await relayed_bot.slack.wait("another socket", lambda: relayed_bot.slack._sockets, 300)
    await assert_command_answered(relayed_bot)


@pytest.mark.parametrize("reason", ["too_many_websockets", "refresh_requested"])
async def test_socket_closed_by_slack_is_replaced(relayed_bot: RelayedBot, reason: str) -> None:
    old = list(relayed_bot.slack._sockets)
    for socket in old:
        await socket.send_json({"type": "disconnect", "reason": reason, "debug_info": {}})
        await asyncio.sleep(0)
        await socket.close()
    await relayed_bot.slack.wait("another socket", lambda: [s for s in relayed_bot.slack._sockets if s not in old], 60)
    await assert_command_answered(relayed_bot)


async def test_disconnect_warning_loses_no_command(relayed_bot: RelayedBot) -> None:
    for socket in relayed_bot.slack._sockets:
        await socket.send_json({"type": "disconnect", "reason": "warning", "debug_info": {}})
    await assert_command_answered(relayed_bot)


@soak_only
@pytest.mark.timeout(400)
async def test_disabled_socket_mode_raises_token_refused(relayed_bot: RelayedBot) -> None:
    relayed_bot.slack.failures["apps.connections.open"] += [{"error": "link_disabled"}] * 200
    for socket in list(relayed_bot.slack._sockets):
        await socket.send_json({"type": "disconnect", "reason": "link_disabled", "debug_info": {}})
        await socket.close()
    await asyncio.wait({relayed_bot.life}, timeout=300)
    assert relayed_bot.life.done()
    assert isinstance(relayed_bot.life.exception(), TokenRefused)
