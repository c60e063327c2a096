"""The commands ``lockdown`` and ``unlock`` in Slack: who may, what everybody reads, and the message in the alert channel."""

from __future__ import annotations

from typing import Any

from storage.records import State
from tests.access.environment import ALERTS, AUDIT
from tests.slack.conftest import ADA, ADMIN, GUEST, LEAD, SECOND, STRANGER, SlackEnvironment


def two_admins(slack_environment: SlackEnvironment) -> None:
    slack_environment.environment.policy["admins"] = [ADMIN, SECOND]
    slack_environment.environment.write()


async def granted(slack_environment: SlackEnvironment) -> dict[str, Any]:
    card = await slack_environment.make_request()
    await slack_environment.slack.click(LEAD, card, "Approve")
    await slack_environment.expect_dm(ADA, "is ready")
    return card


async def expect_alert(slack_environment: SlackEnvironment, text: str) -> str:
    def found() -> str | None:
        return next((m["text"] for m in slack_environment.slack.messages(ALERTS) if text in m["text"]), None)

    return str(await slack_environment.slack.wait(f"the alert channel has {text!r}", found))


async def test_lockdown_and_unlock_of_a_database(slack_environment: SlackEnvironment) -> None:
    two_admins(slack_environment)
    slack = slack_environment.slack
    card = await granted(slack_environment)
    waiting = await slack_environment.make_request("shop readonly 2h another refund", user=LEAD)
    await slack.command(ADMIN, "lockdown shop")
    await slack_environment.expect_reply(ADMIN, "🔴 Access to shop is locked down. 1 grant is ended, and new access")
    await slack_environment.expect_card(card["ts"], "Ended")
    text = await expect_alert(slack_environment, "the one grant has ended")
    assert text.startswith("🔴 Lockdown of shop by admin · the one grant has ended <!date^")
    assert text.endswith("New access is refused until another admin lifts it: /dbaccess unlock shop")
    await slack.command(ADA, "request shop readonly 30m looking again")
    no = await slack_environment.expect_reply(ADA, "Access to shop is locked down, by admin since")
    assert f"Questions: <@{SECOND}>" in no
    await slack.click(SECOND, waiting, "Approve")
    await slack_environment.expect_reply(SECOND, "Access to shop is locked down")
    await slack.command(ADMIN, "unlock shop")
    await slack_environment.expect_reply(ADMIN, "You set the lockdown of shop. Another admin must lift it.")
    await slack.command(SECOND, "unlock")
    await slack_environment.expect_reply(SECOND, "✓ The lockdown of shop is lifted.")
    await expect_alert(slack_environment, "✓ Lifted <!date^")
    assert sum("ockdown of shop" in m["text"] for m in slack.messages(ALERTS)) == 1
    await slack.click(SECOND, waiting, "Approve")
    await slack_environment.expect_dm(LEAD, "is ready")
    await slack.wait("the feed", lambda: any("lockdown of shop lifted" in m["text"] for m in slack.messages(AUDIT)))
    feed = "\n".join(m["text"] for m in slack.messages(AUDIT))
    assert f"lockdown of shop — <@{ADMIN}>: 1 grant is ended" in feed
    assert f"lockdown of shop lifted — <@{SECOND}>" in feed


async def test_lockdown_of_a_person_and_of_everything(slack_environment: SlackEnvironment) -> None:
    two_admins(slack_environment)
    slack = slack_environment.slack
    await slack.command(ADMIN, f"lockdown <@{ADA}|ada>")
    await slack_environment.expect_reply(ADMIN, f"🔴 Access of <@{ADA}> is locked down. 0 grants are ended")
    await slack.command(ADMIN, f"lockdown <@{ADA}|ada>")
    await slack_environment.expect_reply(ADMIN, f"Access of <@{ADA}> is locked down already, by admin since")
    await slack.command(ADA, "request shop readonly 30m looking again")
    await slack_environment.expect_reply(ADA, "Access of @ada is locked down")
    await slack.command(SECOND, "lockdown")
    await slack_environment.expect_reply(SECOND, "Access to all databases is locked down")
    await expect_alert(slack_environment, "🔴 Lockdown of all databases by second · no grant was live.")
    await slack.command(SECOND, "unlock")
    await slack_environment.expect_reply(
        SECOND, f"✓ The lockdown of <@{ADA}> is lifted. The lockdown of all databases must be lifted by another admin."
    )


async def test_strangers_and_guests_are_refused(slack_environment: SlackEnvironment) -> None:
    two_admins(slack_environment)
    await granted(slack_environment)
    for who, words in ((STRANGER, "Only admins can lock down access."), (GUEST, "Only members of this workspace")):
        await slack_environment.slack.command(who, "lockdown")
        await slack_environment.expect_reply(who, words)
    for who, words in ((STRANGER, "Only admins can lift a lockdown."), (GUEST, "Only members of this workspace")):
        await slack_environment.slack.command(who, "unlock")
        await slack_environment.expect_reply(who, words)
    assert (await slack_environment.request()).state is State.ACTIVE
    assert await slack_environment.environment.ledger.lockdowns.in_force() == ()


async def test_what_is_not_understood_never_means_everything(slack_environment: SlackEnvironment) -> None:
    await granted(slack_environment)
    for wanted, words in (
        ("lockdown shp", "There is no database shp, so nothing was locked down. Did you mean shop?"),
        ("lockdown shop now", "It looks like /dbaccess lockdown DATABASE"),
        ("lockdown @ada", "with a person from the list that Slack shows"),
        ("lockdown \u200b", "There is no database"),
        ("unlock shop", "not locked down"),
        ("help lockdown", "/dbaccess lockdown [DATABASE or @user]"),
    ):
        await slack_environment.slack.command(ADMIN, wanted)
        await slack_environment.expect_reply(ADMIN, words)
    assert await slack_environment.environment.ledger.lockdowns.in_force() == ()


async def test_an_admin_is_refused_while_slack_does_not_say_who_it_is(slack_environment: SlackEnvironment) -> None:
    slack_environment.slack.failures["users.info"] = [{"error": "fatal_error"}] * 10
    await slack_environment.slack.command(ADMIN, "lockdown")
    await slack_environment.expect_reply(ADMIN, "Slack did not answer who you are, so nothing was done.")
    assert await slack_environment.environment.ledger.lockdowns.in_force() == ()
