"""What Slack, and whatever stands before it, can answer to a message, and what becomes of it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import structlog

from adapters.base import Endpoint
from bot.access.ports import Delayed, DeliveryError, MessageGone, Posted, Undeliverable
from bot.notifications.notices import AlertNotice, CredentialsNotice
from bot.slack.connection import web_client
from bot.slack.messenger import CLOSED, GONE, LOCKED_OUT, OURS, SlackMessenger
from storage.records import State
from tests.unit.stub_web_api import StubWebApi, stub_web_api
from tests.unit.test_cards import SECRET, request

NOTICE = AlertNotice(what="The disk is full")
AT = Posted(channel="D0ADA", ts="1.2")
FOR_GOOD = [
    "channel_not_found", "not_in_channel", "is_archived", "is_inactive", "messages_tab_disabled", "user_not_found",
    "user_disabled", "user_not_visible", "cannot_dm_bot", "restricted_action", "restricted_action_read_only_channel",
    "restricted_action_thread_locked", "cant_update_message", "edit_window_closed", "block_mismatch",
    "msg_too_long", "msg_blocks_too_long", "invalid_blocks", "no_text",
]  # fmt: skip
FOR_NOW = [
    "internal_error",
    "fatal_error",
    "service_unavailable",
    "request_timeout",
    "update_failed",
    "made_up_tomorrow",
]
NOT_SLACKS = [
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
    """``post`` and ``update`` raise the same errors."""
    slack.answers = {"chat.postMessage": answer, "chat.update": answer}
    messenger = SlackMessenger(web_client("xoxb-1", slack.url))
    with pytest.raises(DeliveryError) as updated:
        await messenger.update(AT, NOTICE)
    with pytest.raises(DeliveryError) as posted:
        await messenger.post("C1", NOTICE)
    assert type(posted.value) is type(updated.value)
    assert slack.times("chat.postMessage") == slack.times("chat.update") == 1, "nothing is sent twice"
    return posted.value


async def test_a_dm_is_where_slack_says_it_is(slack: StubWebApi) -> None:
    slack.answers["chat.postMessage"] = {"ok": True, "channel": "D0ADA", "ts": "1.2"}
    assert await SlackMessenger(web_client("xoxb-1", slack.url)).post("U0ADA", NOTICE) == AT
    (_, sent) = slack.asked[0]
    assert sent["channel"] == "U0ADA"
    assert (sent["unfurl_links"], sent["unfurl_media"]) == (False, False)
    assert not {"parse", "link_names", "username", "icon_url", "icon_emoji", "metadata"} & set(sent)


async def test_update_sends_text_and_blocks(slack: StubWebApi) -> None:
    slack.answers["chat.update"] = {"ok": True, "channel": "D0ADA", "ts": "1.2"}
    await SlackMessenger(web_client("xoxb-1", slack.url)).update(AT, NOTICE)
    (_, sent) = slack.asked[0]
    assert (sent["channel"], sent["ts"]) == ("D0ADA", "1.2")
    assert sent["text"]
    assert sent["blocks"]


@pytest.mark.parametrize("code", FOR_GOOD)
async def test_with_these_it_will_not_help_to_try_again(slack: StubWebApi, code: str) -> None:
    assert type(await failure(slack, {"ok": False, "error": code})) is Undeliverable


@pytest.mark.parametrize("code", ["message_not_found", "thread_not_found"])
async def test_a_deleted_message_is_gone(slack: StubWebApi, code: str) -> None:
    assert type(await failure(slack, {"ok": False, "error": code})) is MessageGone


@pytest.mark.parametrize("code", [*FOR_NOW, *sorted(LOCKED_OUT)])
async def test_these_are_tried_again_and_logged(slack: StubWebApi, code: str) -> None:
    with structlog.testing.capture_logs() as logged:
        assert type(await failure(slack, {"ok": False, "error": code})) is Delayed
    level = "error" if code in LOCKED_OUT else "warning"
    assert {(entry["code"], entry["log_level"]) for entry in logged} == {(code, level)}


@pytest.mark.parametrize("answer", NOT_SLACKS)
async def test_what_is_no_answer_of_slacks_is_tried_again(slack: StubWebApi, answer: tuple[int, str, bytes]) -> None:
    wrong = await failure(slack, answer)
    assert type(wrong) is Delayed
    assert answer[2].decode("latin-1") not in str(wrong) or not answer[2]


async def test_nobody_there_is_tried_again(slack: StubWebApi) -> None:
    for url in ("http://127.0.0.1:1/api/", "http://nowhere.invalid/api/"):
        with pytest.raises(Delayed):
            await SlackMessenger(web_client("xoxb-1", url)).post("C1", NOTICE)


@pytest.mark.parametrize(("named", "seconds"), [("30", 30.0), ("soon", 1.0), ("-5", 0.0), (None, 1.0)])
@pytest.mark.parametrize("body", [b'{"ok":false,"error":"ratelimited"}', b"{}"])
async def test_slack_says_how_long_to_wait(slack: StubWebApi, named: str | None, seconds: float, body: bytes) -> None:
    slack.headers = {"Retry-After": named} if named else {}
    wrong = await failure(slack, (429, "application/json", body))
    assert isinstance(wrong, Delayed)
    assert wrong.retry_after == seconds


@pytest.mark.parametrize("answer", [{"ok": False, "error": "invalid_blocks"}, {"ok": False, "error": "x"}, *NOT_SLACKS])
async def test_no_error_and_no_log_holds_a_word_of_the_message(slack: StubWebApi, answer: object) -> None:
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


def test_no_code_means_two_things() -> None:
    assert not CLOSED & GONE
    assert not CLOSED & LOCKED_OUT
    assert OURS <= CLOSED
