"""The doctor's checks of channels, groups and e-mail addresses."""

from __future__ import annotations

from bot.slack.connection import web_client
from bot.slack.doctor import examine_slack
from tests.access.environment import ADA, LEAD
from tests.fake_slack.workspace import APP_TOKEN, BOT_TOKEN
from tests.slack.conftest import GONE, SlackEnvironment


async def findings(slack_environment: SlackEnvironment) -> list[tuple[bool, str]]:
    client = web_client(BOT_TOKEN, f"{slack_environment.slack.url}/api/")
    slack_environment.environment.context.files.refresh()
    found = await examine_slack(client, APP_TOKEN, slack_environment.environment.context.files.config)
    return [(finding.is_ok, finding.what) for finding in found]


async def test_groups_and_addresses_are_looked_up(slack_environment: SlackEnvironment) -> None:
    slack_environment.slack.workspace.add_group("S0LEADS", "leads", LEAD, ADA)
    slack_environment.slack.workspace.add_group("S0EMPTY", "empty")
    stages = [{"from": ["S0LEADS", "@leads", "S0EMPTY", "S0GONE", "ada@example.com", "who@example.com", GONE]}]
    slack_environment.environment.policy["rules"][0] |= {"approvals": stages, "notify": ["C0NOWHERE"]}
    slack_environment.environment.write()
    found = await findings(slack_environment)
    assert (True, "S0LEADS: 2 people") in found
    assert (True, "@leads: 2 people") in found
    assert (True, "ada@example.com: 1 person") in found
    assert (False, "there is nobody in S0EMPTY") in found
    assert (False, "there is nobody in who@example.com") in found
    assert (False, "Slack does not say who is in S0GONE: it counts for nobody") in found
    assert (False, f"{GONE} is named in the policy and cannot act: deactivated") in found
    assert (False, "channel notified by rule “shop” C0NOWHERE: channel_not_found") in found
