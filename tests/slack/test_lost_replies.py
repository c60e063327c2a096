"""Replies that cannot be shown, replies inside forms, and replies to unusual arguments."""

from __future__ import annotations

from typing import Any

import pytest
import structlog

from bot.access import queries
from bot.access.errors import Refused
from tests.access.environment import CARDS
from tests.fake_slack.workspace import APP, TEAM
from tests.slack.conftest import ADA, ADMIN, LEAD, SlackEnvironment


async def choose_database(slack_environment: SlackEnvironment, user: str, view: dict[str, Any]) -> dict[str, Any]:
    """Choose a database in a form. Slack sends no response_url with it."""
    option = {"text": {"type": "plain_text", "text": "shop"}, "value": "shop"}
    chosen = {"action_id": "database", "block_id": "database", "type": "static_select", "selected_option": option}
    outcome = await slack_environment.slack.deliver(
        "interactive",
        {
            "type": "block_actions", "user": {"id": user, "team_id": TEAM}, "team": {"id": TEAM}, "api_app_id": APP,
            "is_enterprise_install": False, "trigger_id": slack_environment.slack.workspace.new_trigger(user), "actions": [chosen],
            "container": {"type": "view", "view_id": view["id"]}, "view": {**view, "state": {"values": {}}},
        },
    )  # fmt: skip
    assert outcome.ack is not None
    return dict(outcome.ack)


async def test_refusal_inside_a_form_is_sent_as_a_dm(
    slack_environment: SlackEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    await slack_environment.slack.command(ADA, "request")
    form = await slack_environment.slack.wait("the form", lambda: slack_environment.slack.form(ADA))

    async def refuse(*_arguments: Any) -> None:
        raise Refused("Nothing is granted today.")

    monkeypatch.setattr(queries, "databases", refuse)
    await choose_database(slack_environment, ADA, form)
    await slack_environment.expect_dm(ADA, "Nothing is granted today.")


async def test_lost_reply_does_not_say_that_nothing_was_changed(
    slack_environment: SlackEnvironment,
) -> None:
    payload = {
        "command": "/dbaccess", "text": "request shop readonly 1h looking at a refund", "user_id": ADA, "user_name": "ada",
        "team_id": TEAM, "channel_id": CARDS, "api_app_id": APP, "is_enterprise_install": "false",
        "trigger_id": slack_environment.slack.workspace.new_trigger(ADA), "response_url": "http://127.0.0.1:1/nobody-listens",
    }  # fmt: skip
    with structlog.testing.capture_logs() as logged:
        await slack_environment.slack.deliver("slash_commands", payload)
        await slack_environment.slack.wait(
            "the lost reply is logged", lambda: [e for e in logged if e["event"] == "reply_failed"]
        )
    assert (await slack_environment.request()).requester_id == ADA
    assert not [entry for entry in logged if "reference" in entry]


async def test_explain_accepts_any_word_as_level(slack_environment: SlackEnvironment) -> None:
    await slack_environment.slack.command(ADA, "explain shop readwrite")
    await slack_environment.expect_reply(ADA, "shop has no level readwrite")
    await slack_environment.slack.command(ADMIN, f"explain shop readonly <@{ADA}|ada>")
    await slack_environment.expect_reply(ADMIN, "Allowed to ask.")
    await slack_environment.slack.command(ADA, f"explain shop readonly <@{LEAD}|lead>")
    await slack_environment.expect_reply(ADA, "can ask what others may have.")


async def test_list_refuses_a_name_that_is_not_a_mention(slack_environment: SlackEnvironment) -> None:
    await slack_environment.slack.command(ADA, "list @lead")
    await slack_environment.expect_reply(ADA, "I did not understand “@lead”.")
