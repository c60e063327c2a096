"""Every answer of Slack, and of gateways before it, to a message, and the error it becomes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
import structlog

from adapters.base import Endpoint
from bot.access.ports import Delayed, DeliveryError, MessageGone, Notice, Posted, Undeliverable
from bot.notifications.notices import (
    AlertNotice,
    ClosedNotice,
    CredentialsNotice,
    GrantedNotice,
    PreparingNotice,
    ReviewNotice,
)
from bot.slack.connection import web_client
from bot.slack.messenger import (
    BOT_REFUSED_CODES,
    INVALID_MESSAGE_CODES,
    MESSAGE_GONE_CODES,
    UNDELIVERABLE_CODES,
    SlackMessenger,
    urgency_of,
)
from bot.slack.pacing import Pacing, Urgency
from storage.records import State
from tests.unit.stub_web_api import StubWebApi, stub_web_api
from tests.unit.test_cards import SECRET, request

NOTICE = AlertNotice(what="The disk is full")
AT = Posted(channel="D0ADA", ts="1.2")
UNDELIVERABLE = [
    "channel_not_found", "not_in_channel", "is_archived", "is_inactive", "messages_tab_disabled", "user_not_found",
    "user_disabled", "user_not_visible", "cannot_dm_bot", "restricted_action", "restricted_action_read_only_channel",
    "restricted_action_thread_locked", "cant_update_message", "edit_window_closed", "block_mismatch",
    "msg_too_long", "msg_blocks_too_long", "invalid_blocks", "no_text",
]  # fmt: skip
RETRIED = [
    "internal_error",
    "fatal_error",
    "service_unavailable",
    "request_timeout",
    "update_failed",
    "made_up_tomorrow",
]
INVALID_ANSWERS = [
    (503, "text/html", b"<h1>no</h1>"),
    (503, "text/plain", b"upstream connect error"),
    (200, "application/json", b"<html>"),
    (200, "application/json", b"[]"),
    (200, "application/json", b"[1]"),
    (200, "application/json", b"null"),
    (200, "application/json", b""),
    (200, "application/json", b'{"ok":\xff}'),
    (200, "text/plain", b"hello"),
]


@pytest.fixture
async def slack() -> AsyncIterator[StubWebApi]:
    async with stub_web_api() as stub:
        yield stub


async def failure(slack: StubWebApi, answer: object) -> DeliveryError:
    """Return the error of ``post`` and ``update``, which must be the same."""
    slack.answers = {"chat.postMessage": answer, "chat.update": answer}
    messenger = SlackMessenger(web_client("xoxb-1", slack.url))
    with pytest.raises(DeliveryError) as updated:
        await messenger.update(AT, NOTICE)
    with pytest.raises(DeliveryError) as posted:
        await messenger.post("C1", NOTICE)
    assert type(posted.value) is type(updated.value)
    assert slack.times("chat.postMessage") == slack.times("chat.update") == 1, "nothing is sent twice"
    return posted.value


async def test_post_to_a_person_returns_the_dm_channel(slack: StubWebApi) -> None:
    slack.answers["chat.postMessage"] = {"ok": True, "channel": "D0ADA", "ts": "1.2"}
    assert await SlackMessenger(web_client("xoxb-1", slack.url)).post("U0ADA", NOTICE) == AT
    (_, sent) = slack.calls[0]
    assert sent["channel"] == "U0ADA"
    assert (sent["unfurl_links"], sent["unfurl_media"]) == (False, False)
    assert not {"parse", "link_names", "username", "icon_url", "icon_emoji", "metadata"} & set(sent)


async def test_update_sends_text_and_blocks(slack: StubWebApi) -> None:
    slack.answers["chat.update"] = {"ok": True, "channel": "D0ADA", "ts": "1.2"}
    await SlackMessenger(web_client("xoxb-1", slack.url)).update(AT, NOTICE)
    (_, sent) = slack.calls[0]
    assert (sent["channel"], sent["ts"]) == ("D0ADA", "1.2")
    assert sent["text"]
    assert sent["blocks"]


@pytest.mark.parametrize("code", UNDELIVERABLE)
async def test_permanent_errors_are_undeliverable(slack: StubWebApi, code: str) -> None:
    assert type(await failure(slack, {"ok": False, "error": code})) is Undeliverable


@pytest.mark.parametrize("code", ["message_not_found", "thread_not_found"])
async def test_deleted_message_raises_message_gone(slack: StubWebApi, code: str) -> None:
    assert type(await failure(slack, {"ok": False, "error": code})) is MessageGone


@pytest.mark.parametrize("code", [*RETRIED, *sorted(BOT_REFUSED_CODES)])
async def test_temporary_and_unknown_errors_are_delayed_and_logged(slack: StubWebApi, code: str) -> None:
    with structlog.testing.capture_logs() as logged:
        assert type(await failure(slack, {"ok": False, "error": code})) is Delayed
    level = "error" if code in BOT_REFUSED_CODES else "warning"
    assert {(entry["code"], entry["log_level"]) for entry in logged} == {(code, level)}


@pytest.mark.parametrize("answer", INVALID_ANSWERS)
async def test_invalid_answer_is_delayed(slack: StubWebApi, answer: tuple[int, str, bytes]) -> None:
    wrong = await failure(slack, answer)
    assert type(wrong) is Delayed
    assert answer[2].decode("latin-1") not in str(wrong) or not answer[2]


async def test_unreachable_slack_is_delayed(slack: StubWebApi) -> None:
    for url in ("http://127.0.0.1:1/api/", "http://nowhere.invalid/api/"):
        with pytest.raises(Delayed):
            await SlackMessenger(web_client("xoxb-1", url)).post("C1", NOTICE)


@pytest.mark.parametrize(("named", "seconds"), [("30", 30.0), ("soon", 1.0), ("-5", 0.0), (None, 1.0)])
@pytest.mark.parametrize("body", [b'{"ok":false,"error":"ratelimited"}', b"{}"])
async def test_retry_after_is_used(slack: StubWebApi, named: str | None, seconds: float, body: bytes) -> None:
    slack.headers = {"Retry-After": named} if named else {}
    wrong = await failure(slack, (429, "application/json", body))
    assert isinstance(wrong, Delayed)
    assert wrong.retry_after == seconds


@pytest.mark.parametrize(
    "answer", [{"ok": False, "error": "invalid_blocks"}, {"ok": False, "error": "x"}, *INVALID_ANSWERS]
)
async def test_errors_and_logs_have_no_text_of_the_message(slack: StubWebApi, answer: object) -> None:
    slack.answers = {"chat.update": answer}
    endpoint = Endpoint(
        host="h",
        port=1,
        database="d",
        tls="require",
        note="",
        engine="PostgreSQL",
        command="psql {username}:{password}",
    )
    secret = CredentialsNotice(request=request("why", State.ACTIVE), endpoint=endpoint, password=SECRET)
    with structlog.testing.capture_logs() as logged, pytest.raises(DeliveryError) as wrong:
        await SlackMessenger(web_client("xoxb-1", slack.url)).update(AT, secret)
    assert SECRET not in str(logged) + str(wrong.value) + repr(wrong.value) + repr(wrong.value.__context__)


def test_error_codes_are_in_one_group_only() -> None:
    assert not UNDELIVERABLE_CODES & MESSAGE_GONE_CODES
    assert not UNDELIVERABLE_CODES & BOT_REFUSED_CODES
    assert INVALID_MESSAGE_CODES <= UNDELIVERABLE_CODES


# Turns.


@dataclass
class Seconds:
    """A clock that the test sets. Sleeping moves it."""

    now: float = 100.0
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def paced(slack: StubWebApi, seconds: Seconds) -> SlackMessenger:
    posted = {"ok": True, "channel": "C1", "ts": "1.2"}
    slack.answers = {"chat.postMessage": posted, "chat.update": posted}
    return SlackMessenger(web_client("xoxb-1", slack.url), Pacing(seconds), sleep=seconds.sleep)


async def test_message_whose_turn_has_not_come_is_not_sent_and_not_tried(slack: StubWebApi) -> None:
    seconds = Seconds()
    messenger = paced(slack, seconds)
    await messenger.post("C1", GrantedNotice(request=request("why", State.ACTIVE), decisions=()))
    with pytest.raises(Delayed) as early:
        await messenger.post("C1", ReviewNotice(request=request("why", State.ACTIVE)))
    assert (early.value.is_paced, early.value.retry_after) == (True, 1.0)
    assert slack.times("chat.postMessage") == 1
    assert seconds.slept == [], "it holds no place meanwhile"


async def test_urgent_message_waits_for_its_turn_for_a_second(slack: StubWebApi) -> None:
    seconds = Seconds()
    messenger = paced(slack, seconds)
    await messenger.post("C1", GrantedNotice(request=request("why", State.ACTIVE), decisions=()))
    await messenger.post("C1", NOTICE)
    assert seconds.slept == [1.0]
    assert slack.times("chat.postMessage") == 2


async def test_posts_to_a_person_and_to_the_direct_message_share_their_turns(slack: StubWebApi) -> None:
    messenger = paced(slack, Seconds())
    slack.answers["chat.postMessage"] = {"ok": True, "channel": "D0ADA", "ts": "1.2"}
    await messenger.post("U0ADA", ReviewNotice(request=request("why", State.ACTIVE)))
    with pytest.raises(Delayed):
        await messenger.post("D0ADA", GrantedNotice(request=request("why", State.ACTIVE), decisions=()))


async def test_refused_method_is_not_called_before_retry_after(slack: StubWebApi) -> None:
    seconds = Seconds()
    messenger = paced(slack, seconds)
    slack.headers = {"Retry-After": "30"}
    slack.answers["chat.update"] = (429, "application/json", b'{"ok":false,"error":"ratelimited"}')
    with pytest.raises(Delayed) as refused:
        await messenger.update(AT, NOTICE)
    assert not refused.value.is_paced
    with pytest.raises(Delayed) as early:
        await messenger.update(Posted(channel="C2", ts="9.9"), NOTICE)
    assert (early.value.is_paced, early.value.retry_after) == (True, 30.0)
    assert slack.times("chat.update") == 1
    await messenger.post("C1", NOTICE)
    seconds.now += 30
    slack.answers["chat.update"] = {"ok": True, "channel": "C1", "ts": "1.2"}
    await messenger.update(AT, NOTICE)
    assert slack.times("chat.update") == 2


async def test_post_refused_in_one_channel_goes_on_in_others(slack: StubWebApi) -> None:
    messenger = paced(slack, Seconds())
    slack.headers = {"Retry-After": "30"}
    slack.answers["chat.postMessage"] = (429, "application/json", b'{"ok":false,"error":"ratelimited"}')
    with pytest.raises(Delayed):
        await messenger.post("C1", NOTICE)
    slack.answers["chat.postMessage"] = {"ok": True, "channel": "C2", "ts": "1.2"}
    await messenger.post("C2", NOTICE)
    with pytest.raises(Delayed) as early:
        await messenger.post("C1", NOTICE)
    assert early.value.is_paced
    assert slack.times("chat.postMessage") == 2


async def test_calls_that_hang_hold_up_no_other_call(slack: StubWebApi) -> None:
    """Slack hangs at updates: 150 of them wait until the time limit of their call. A post in the meantime is quick."""
    messenger = SlackMessenger(web_client("xoxb-1", slack.url), Pacing(updates_per_minute=10_000))
    slack.answers = {"chat.postMessage": {"ok": True, "channel": "C1", "ts": "1.2"}, "chat.update": {"ok": True}}
    slack.hangs = {"chat.update"}
    places = [Posted(channel=f"C{n}", ts="1.2") for n in range(150)]
    hanging = [asyncio.create_task(messenger.update(place, NOTICE)) for place in places]
    while slack.times("chat.update") < len(places):
        await asyncio.sleep(0.01)
    await asyncio.wait_for(messenger.post("C1", NOTICE), 10)
    assert not any(task.done() for task in hanging)
    for task in hanging:
        task.cancel()
    await asyncio.gather(*hanging, return_exceptions=True)


async def test_call_that_hangs_ends_at_the_time_limit(slack: StubWebApi) -> None:
    client = web_client("xoxb-1", slack.url)
    client.timeout = 1
    slack.answers, slack.hangs = {"chat.update": {"ok": True}}, {"chat.update"}
    with pytest.raises(Delayed, match="does not answer"):
        await asyncio.wait_for(SlackMessenger(client).update(AT, NOTICE), 30)


@pytest.mark.parametrize(
    ("notice", "urgency"),
    [
        (NOTICE, Urgency.ALERT),
        (PreparingNotice(request=request("why", State.APPROVED)), Urgency.CREDENTIALS),
        (ClosedNotice(request=request("why", State.REVOKING)), Urgency.CLOSING),
        (ClosedNotice(request=request("why", State.REVOKED)), Urgency.OTHER),
        (ReviewNotice(request=request("why", State.ACTIVE)), Urgency.OTHER),
    ],
    ids=lambda value: type(value).__name__,
)
def test_urgency_of_a_message(notice: Notice, urgency: Urgency) -> None:
    assert urgency_of(notice) is urgency
