"""All other outcomes of a request, each with the real bot process: given back, revoked, lapsed, failed, outdated, and grants whose configuration is gone."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path

import psycopg

from tests.e2e.harness import ADMIN, ALERTS, BYSTANDER, CARDS, LEAD, REQUESTER, SECOND, Environment, is_dead, wait
from tests.e2e.messages import buttons, credentials, number, pasted_url, text_of


def test_requester_gives_access_back(environment: Environment) -> None:
    environment.start()
    card, message = environment.request_and_approve("shop readonly 1h looking at a refund")
    with psycopg.connect(pasted_url(message), autocommit=True) as session:
        environment.click(REQUESTER, message, "I'm done")
        environment.card_says(card["ts"], "1 session ended")
        assert is_dead(session)
    environment.wait_until_no_users()
    environment.dm_says("given back")
    assert environment.request(number(card))["ended_because"] == "done"


def test_access_is_given_back_while_the_user_holds_a_lock_on_its_own_role(environment: Environment) -> None:
    """A client without autocommit leaves ``ALTER ROLE me PASSWORD 'x'`` open. The end of the grant does not wait for it."""
    environment.start()
    card, message = environment.request_and_approve("shop readonly 1h looking at a refund")
    with (
        psycopg.connect(pasted_url(message)) as locking,
        psycopg.connect(pasted_url(message), autocommit=True) as other,
    ):
        locking.execute(f"ALTER ROLE {credentials(message)['Username']} PASSWORD 'x'".encode())
        environment.click(REQUESTER, message, "I'm done")
        environment.wait_until_no_users()
        assert is_dead(locking)
        assert is_dead(other)
    environment.card_says(card["ts"], "2 sessions ended")
    environment.dm_says("given back")


def test_only_approvers_and_admins_can_revoke(environment: Environment) -> None:
    environment.start()
    card, message = environment.request_and_approve("shop readonly 1h looking at a refund")
    environment.click(BYSTANDER, card, "Revoke")
    environment.answer_says(f"There is no request #{number(card)} that you may see.", BYSTANDER)
    assert environment.users()
    with psycopg.connect(pasted_url(message), autocommit=True) as session:
        environment.click(ADMIN, card, "Revoke")
        environment.card_says(card["ts"], f"revoked by <@{ADMIN}>")
        environment.card_says(card["ts"], "1 session ended")
        assert is_dead(session)
    environment.wait_until_no_users()
    environment.dm_says(f"Your access #{number(card)}")


def test_request_without_a_decision_lapses(environment: Environment) -> None:
    environment.policy["defaults"]["request_ttl"] = "20s"
    environment.start()
    card = environment.request_access("shop readonly 1h looking at a refund")
    lapsed = environment.card_says(card["ts"], "Lapsed")
    assert not buttons(lapsed)
    assert "Ask again" in buttons(environment.dm_says("has lapsed"))
    environment.slack.click(LEAD, CARDS, card["ts"], buttons(card)["Approve"])
    environment.answer_says("has lapsed: nobody decided in time", LEAD)
    assert environment.users() == []


def test_grant_gets_its_full_duration_after_the_server_was_down(environment: Environment) -> None:
    environment.start()
    card = environment.request_access("shop readonly 1h looking at a refund")
    environment.harness.server.stop()
    try:
        environment.click(LEAD, card, "Approve")
        environment.dm_says("does not answer. I keep trying; your time starts when it does.")
    finally:
        environment.harness.server.start()
    message = environment.dm_says("is ready")
    with psycopg.connect(pasted_url(message)) as session:
        left = session.execute(
            "SELECT extract(epoch FROM rolvaliduntil - now()) FROM pg_roles WHERE rolname = current_user"
        ).fetchone()
    assert left is not None
    assert 3540 < float(left[0]) <= 3600
    environment.slack.command(REQUESTER, CARDS, f"done {number(card)}")
    environment.wait_until_no_users()


def test_grant_fails_if_the_server_is_down_for_provision_within(environment: Environment) -> None:
    environment.policy["defaults"]["provision_within"] = "10s"
    environment.admin_url = environment.admin_url.replace(f":{environment.harness.server.port}/", ":1/")
    environment.cli("store", "upgrade", "--new")
    environment.start()
    card = environment.request_access("shop readonly 1h looking at a refund")
    environment.click(LEAD, card, "Approve")
    failed = environment.card_says(card["ts"], "Failed")
    assert "could not be reached in time" in text_of(failed)
    assert "Ask again" in buttons(environment.dm_says("could not be reached in time"))
    assert environment.request(number(card))["ended_because"] == "failed"


def test_ten_clicks_on_approve_are_one_decision(environment: Environment) -> None:
    environment.start()
    card = environment.request_access("shop readonly 1h looking at a refund")
    clicks = [threading.Thread(target=environment.click, args=(who, card, "Approve")) for who in (LEAD, SECOND) * 5]
    for click in clicks:
        click.start()
    for click in clicks:
        click.join()
    environment.dm_says("is ready")
    assert len(environment.users()) == 1
    history = json.loads(environment.cli("show", str(number(card)), "--json"))[0]["history"]
    assert [e["kind"] for e in history].count("request.approved") == 1
    assert sum("is ready" in text_of(m) for m in environment.slack.dm(REQUESTER)) == 1
    environment.answer_says("was approved by @", LEAD)
    environment.cli("revoke", str(number(card)))
    assert environment.users() == []


def test_approver_removed_after_the_card_was_posted_is_refused(environment: Environment) -> None:
    environment.start()
    card = environment.request_access("shop readonly 1h looking at a refund")
    environment.policy["rules"][0]["approvals"] = [{"from": [SECOND, ADMIN], "count": 1}]
    environment.write_config()
    environment.click(LEAD, card, "Approve")
    environment.answer_says("Only the approvers named by the rule", LEAD)
    assert environment.users() == []
    assert "Approve" in buttons(environment.card(card["ts"]))
    environment.click(SECOND, card, "Approve")
    environment.dm_says("is ready")
    environment.cli("revoke", "--all")


def test_request_is_outdated_if_its_level_changed_after_the_card_was_posted(environment: Environment) -> None:
    environment.start()
    card = environment.request_access("shop readonly 1h looking at a refund")
    environment.databases["databases"]["shop"]["levels"]["readonly"]["roles"] = ["shop_writer"]
    environment.write_config()
    environment.click(LEAD, card, "Approve")
    environment.answer_says("the level readonly was changed meanwhile", LEAD)
    outdated = environment.card_says(card["ts"], "Out of date")
    assert not buttons(outdated)
    assert "Ask again" in buttons(environment.dm_says("is out of date"))
    assert environment.users() == []


def test_grant_on_a_database_that_was_removed_from_the_configuration_is_revoked(environment: Environment) -> None:
    environment.start()
    card, _ = environment.request_and_approve("shop readonly 40s looking at a refund")
    environment.databases["databases"]["other"] = environment.databases["databases"].pop("shop")
    environment.policy["rules"][0]["databases"] = ["other"]
    environment.write_config()
    environment.restart(signal.SIGTERM)
    environment.card_says(card["ts"], "Ended")
    environment.wait_until_no_users()
    ended = environment.request(number(card))
    assert (ended["state"], ended["ended_because"]) == ("revoked", "expired")


def test_card_of_an_earlier_ledger_does_nothing(environment: Environment, tmp_path: Path) -> None:
    environment.start()
    old = environment.request_access("shop readonly 1h looking at a refund")
    environment.stop()
    environment.ledger_url = f"sqlite+aiosqlite:///{tmp_path}/second.db"
    environment.start()
    new = environment.request_access("shop readonly 2h something else entirely")
    assert number(new) == number(old) == 1
    environment.click(LEAD, old, "Approve")
    environment.answer_says("This card is out of date.", LEAD)
    assert environment.users() == []
    assert environment.request(1)["state"] == "pending"
    assert "Approve" in buttons(environment.card(old["ts"]))


def test_bot_with_invalid_configuration_ends_live_grants_and_makes_no_new_ones(environment: Environment) -> None:
    environment.start()
    card, _ = environment.request_and_approve("shop readonly 40s looking at a refund")
    environment.stop()
    environment.policy["rules"][0]["surprise"] = True
    environment.start(wait_ready=False)
    environment.card_says(card["ts"], "Ended")
    environment.wait_until_no_users()
    assert not environment.is_ready()
    environment.slack.command(SECOND, CARDS, "request shop readonly 1h looking at a refund")
    environment.answer_says("dbaccess grants nothing at the moment", SECOND)
    assert "configuration_invalid" in environment.log(), (
        "the alert channel is in the invalid file; the log has the error"
    )
    assert environment.stop() == 0
    environment.cli("run", expect=1)


def test_no_secret_is_in_ledger_logs_or_messages(environment: Environment) -> None:
    earlier = len(environment.harness.server.log_text())
    environment.start()
    card, message = environment.request_and_approve("shop readonly 1h looking at a refund")
    first = pasted_url(message).split(":")[2].split("@")[0]
    environment.click(REQUESTER, message, "New password")
    wait("a new password", lambda: first not in text_of(environment.dm_says("is ready")))
    second = pasted_url(environment.dm_says("is ready")).split(":")[2].split("@")[0]
    assert first != second
    psycopg.connect(pasted_url(environment.dm_says("is ready"))).close()
    environment.cli("revoke", str(number(card)))
    environment.dm_says("ended")
    environment.stop()
    secrets = [
        first,
        second,
        "xoxb-e2e-secret-token",
        "xapp-e2e-secret-token",
        environment.admin_url,
        environment.admin_url.split(":")[2].split("@")[0],
    ]
    places = {
        p.name: p.read_bytes().decode(errors="replace")
        for p in environment.folder.iterdir()
        if p.name.startswith(("ledger.db", "bot.log"))
    }
    places["server log"] = environment.harness.server.log_text()[
        earlier:
    ]  # administrators of other tests also write there
    places["notifications"] = json.dumps(
        [m.get("text") for c in (CARDS, "C01AUDIT", ALERTS) for m in environment.slack.messages(c)]
        + [m.get("text") for m in environment.slack.dm(REQUESTER)]
    )
    places["messages"] = json.dumps(environment.slack.dm(REQUESTER))
    assert len(places) >= 5
    for place, text in places.items():
        for secret in secrets:
            assert secret not in text, place
    assert f"{environment.prefix}1_requester" in places["server log"], (
        "the searched log is the one that the server wrote"
    )
