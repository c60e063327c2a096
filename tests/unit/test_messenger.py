"""Every answer of Slack, and of gateways before it, to a message, and the error it becomes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import structlog

from adapters.base import Endpoint
from bot.access.ports import Delayed, DeliveryError, MessageGone, Posted, Undeliverable
from bot.notifications.notices import AlertNotice, CredentialsNotice
from bot.slack.connection import web_client
from bot.slack.messenger import (
    BOT_REFUSED_CODES,
    INVALID_MESSAGE_CODES,
    MESSAGE_GONE_CODES,
    UNDELIVERABLE_CODES,
    SlackMessenger,
)
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
