"""The fake refuses what Slack refuses."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from slack_sdk.errors import SlackApiError
from slack_sdk.web.async_client import AsyncWebClient

from tests.fake_slack import blockkit
from tests.fake_slack.server import FakeSlack, running_fake_slack
from tests.fake_slack.workspace import APP_TOKEN, BOT_TOKEN


@pytest.fixture
async def slack() -> AsyncIterator[FakeSlack]:
    async with running_fake_slack() as found:
        found.workspace.add_person("U0ADA", "ada")
        found.workspace.add_channel("C0CARDS", "cards")
        yield found


def client(slack: FakeSlack, token: str = BOT_TOKEN) -> AsyncWebClient:
    return AsyncWebClient(token=token, base_url=f"{slack.url}/api/", retry_handlers=[])


async def error_code(call: Any) -> str:
    with pytest.raises(SlackApiError) as caught:
        await call
    return str(caught.value.response["error"])


TEXT = {"type": "section", "text": {"type": "mrkdwn", "text": "x"}}
QUIET = {"unfurl_links": False, "unfurl_media": False}


async def test_fake_refuses_wrong_tokens_and_missing_scopes(slack: FakeSlack) -> None:
    assert await error_code(client(slack, "xoxb-wrong").auth_test()) == "invalid_auth"
    assert await error_code(client(slack).apps_connections_open(app_token=BOT_TOKEN)) == "not_allowed_token_type"
    assert (await client(slack).apps_connections_open(app_token=APP_TOKEN))["url"].startswith("ws://")
    slack.workspace.scopes.discard("chat:write")
    assert await error_code(client(slack).chat_postMessage(channel="C0CARDS", text="x")) == "missing_scope"


async def test_fake_refuses_closed_channels(slack: FakeSlack) -> None:
    web = client(slack)
    assert await error_code(web.chat_postMessage(channel="C0NONE", text="x")) == "channel_not_found"
    slack.workspace.channels["C0CARDS"]["is_member"] = False
    assert await error_code(web.chat_postMessage(channel="C0CARDS", text="x")) == "not_in_channel"
    slack.workspace.channels["C0CARDS"]["is_archived"] = True
    assert await error_code(web.chat_postMessage(channel="C0CARDS", text="x")) == "is_archived"
    dm = await web.chat_postMessage(channel="U0ADA", text="x", **QUIET)
    assert dm["channel"] == "D0ADA"
    slack.workspace.users["U0ADA"]["messages_tab_disabled"] = True
    assert await error_code(web.chat_postMessage(channel="U0ADA", text="x")) == "messages_tab_disabled"


async def test_fake_refuses_invalid_messages(slack: FakeSlack) -> None:
    web = client(slack)
    ts = (await web.chat_postMessage(channel="C0CARDS", text="x", **QUIET))["ts"]
    assert await error_code(web.chat_update(channel="C0CARDS", ts="1.1", text="x")) == "message_not_found"
    assert await error_code(web.chat_update(channel="C0CARDS", ts=ts, text="x" * 4001)) == "msg_too_long"
    assert (
        await error_code(web.chat_postMessage(channel="C0CARDS", text="x", blocks=[TEXT] * 51, **QUIET))
        == "invalid_blocks"
    )
    long = [{"type": "section", "text": {"type": "mrkdwn", "text": "x" * 2900}}] * 5
    assert (
        await error_code(web.chat_postMessage(channel="C0CARDS", text="x", blocks=long, **QUIET))
        == "msg_blocks_too_long"
    )
    assert slack.problems


async def test_fake_refuses_used_triggers_and_old_views(slack: FakeSlack) -> None:
    web, clock = client(slack), [100.0]
    slack.workspace.now = lambda: clock[0]
    view = {"type": "modal", "callback_id": "x", "title": {"type": "plain_text", "text": "x"}, "blocks": [TEXT]}
    trigger = slack.workspace.new_trigger("U0ADA")
    opened = (await web.views_open(trigger_id=trigger, view=view))["view"]
    assert await error_code(web.views_open(trigger_id=trigger, view=view)) == "exchanged_trigger_id"
    late = slack.workspace.new_trigger("U0ADA")
    clock[0] += 3.1
    assert await error_code(web.views_open(trigger_id=late, view=view)) == "expired_trigger_id"
    assert await error_code(web.views_open(trigger_id="1.2.3", view=view)) == "invalid_trigger_id"
    assert await error_code(web.views_update(view_id=opened["id"], hash="old", view=view)) == "hash_conflict"
    assert await error_code(web.views_update(view_id="V0", view=view)) == "not_found"
    assert (await web.views_update(view_id=opened["id"], hash=opened["hash"], view=view))["view"]["hash"] != opened[
        "hash"
    ]


@pytest.mark.parametrize(
    "block",
    [
        {"type": "section"},
        {"type": "section", "text": {"type": "mrkdwn", "text": ""}},
        {"type": "section", "text": {"type": "mrkdwn", "text": "x" * 3001}},
        {"type": "section", "fields": [{"type": "mrkdwn", "text": "x"}] * 11},
        {"type": "header", "text": {"type": "mrkdwn", "text": "x"}},
        {"type": "header", "text": {"type": "plain_text", "text": "x" * 151}},
        {"type": "context", "elements": []},
        {
            "type": "actions",
            "elements": [{"type": "button", "action_id": "a", "text": {"type": "plain_text", "text": "x" * 76}}],
        },
        {
            "type": "actions",
            "elements": [
                {"type": "button", "action_id": "a", "text": {"type": "plain_text", "text": "x"}, "colour": "red"}
            ],
        },
        {
            "type": "actions",
            "elements": [
                {"type": "button", "action_id": "a", "text": {"type": "plain_text", "text": "x"}, "value": "x" * 2001}
            ],
        },
        {
            "type": "input",
            "label": {"type": "plain_text", "text": "x"},
            "element": {"type": "plain_text_input", "action_id": "a"},
        },
        {"type": "dance"},
    ],
)
def test_invalid_blocks_are_reported(block: dict[str, Any]) -> None:
    assert blockkit.problems_of_message([block], "x", is_update=False)
    assert blockkit.problems_of_message([TEXT], "x", is_update=False) == []
