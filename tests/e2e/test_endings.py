"""All the other ways a request can go, each with the real process."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path

import psycopg

from tests.e2e.harness import (
    ADMIN,
    ALERTS,
    BYSTANDER,
    CARDS,
    LEAD,
    REQUESTER,
    SECOND,
    World,
    buttons,
    credentials,
    is_dead,
    number,
    pasted,
    text_of,
    wait,
)


def test_done(world: World) -> None:
    world.start()
    card, message = world.granted("shop readonly 1h looking at a refund")
    with psycopg.connect(pasted(message), autocommit=True) as session:
        world.click(REQUESTER, message, "I'm done")
        world.card_says(card["ts"], "1 session ended")
        assert is_dead(session)
    world.no_users()
    world.dm_says("given back")
    assert world.request(number(card))["ended_because"] == "done"


def test_done_while_the_user_holds_its_own_role_locked(world: World) -> None:
    """An open ``ALTER ROLE me PASSWORD 'x'``, as a client without autocommit leaves it: the end does not wait for it."""
    world.start()
    card, message = world.granted("shop readonly 1h looking at a refund")
    with psycopg.connect(pasted(message)) as locking, psycopg.connect(pasted(message), autocommit=True) as other:
        locking.execute(f"ALTER ROLE {credentials(message)['Username']} PASSWORD 'x'".encode())
        world.click(REQUESTER, message, "I'm done")
        world.no_users()
        assert is_dead(locking)
        assert is_dead(other)
    world.card_says(card["ts"], "2 sessions ended")
    world.dm_says("given back")


def test_revoke_is_for_approvers_and_admins(world: World) -> None:
    world.start()
    card, message = world.granted("shop readonly 1h looking at a refund")
    world.click(BYSTANDER, card, "Revoke")
    world.told(f"There is no request #{number(card)} that you may see.", BYSTANDER)
    assert world.users()
    with psycopg.connect(pasted(message), autocommit=True) as session:
        world.click(ADMIN, card, "Revoke")
        world.card_says(card["ts"], f"revoked by <@{ADMIN}>")
        world.card_says(card["ts"], "1 session ended")
        assert is_dead(session)
    world.no_users()
    world.dm_says(f"Your access #{number(card)}")


def test_a_request_nobody_decides_lapses(world: World) -> None:
    world.policy["defaults"]["request_ttl"] = "20s"
    world.start()
    card = world.ask("shop readonly 1h looking at a refund")
    lapsed = world.card_says(card["ts"], "Lapsed")
    assert not buttons(lapsed)
    assert "Ask again" in buttons(world.dm_says("has lapsed"))
    world.slack.click(LEAD, CARDS, card["ts"], buttons(card)["Approve"])
    world.told("has lapsed: nobody decided in time", LEAD)
    assert world.users() == []


def test_an_unreachable_database_gets_its_full_time_on_return(world: World) -> None:
    world.start()
    card = world.ask("shop readonly 1h looking at a refund")
    world.harness.server.stop()
    try:
        world.click(LEAD, card, "Approve")
        world.dm_says("does not answer. I keep trying; your time starts when it does.")
    finally:
        world.harness.server.start()
    message = world.dm_says("is ready")
    with psycopg.connect(pasted(message)) as session:
        left = session.execute(
            "SELECT extract(epoch FROM rolvaliduntil - now()) FROM pg_roles WHERE rolname = current_user"
        ).fetchone()
    assert left is not None
    assert 3540 < float(left[0]) <= 3600
    world.slack.command(REQUESTER, CARDS, f"done {number(card)}")
    world.no_users()


def test_an_unreachable_database_fails_after_provision_within(world: World) -> None:
    world.policy["defaults"]["provision_within"] = "10s"
    world.admin_url = world.admin_url.replace(f":{world.harness.server.port}/", ":1/")
    world.start()
    card = world.ask("shop readonly 1h looking at a refund")
    world.click(LEAD, card, "Approve")
    failed = world.card_says(card["ts"], "Failed")
    assert "could not be reached in time" in text_of(failed)
    assert "Ask again" in buttons(world.dm_says("could not be reached in time"))
    assert world.request(number(card))["ended_because"] == "failed"


def test_ten_clicks_are_one_decision(world: World) -> None:
    world.start()
    card = world.ask("shop readonly 1h looking at a refund")
    clicks = [threading.Thread(target=world.click, args=(who, card, "Approve")) for who in (LEAD, SECOND) * 5]
    for click in clicks:
        click.start()
    for click in clicks:
        click.join()
    world.dm_says("is ready")
    assert len(world.users()) == 1
    history = json.loads(world.cli("show", str(number(card)), "--json"))[0]["history"]
    assert [e["kind"] for e in history].count("request.approved") == 1
    assert sum("is ready" in text_of(m) for m in world.slack.dm(REQUESTER)) == 1
    world.told("was approved by @", LEAD)
    world.cli("revoke", str(number(card)))
    assert world.users() == []


def test_an_approver_removed_between_card_and_click_is_refused(world: World) -> None:
    world.start()
    card = world.ask("shop readonly 1h looking at a refund")
    world.policy["rules"][0]["approvals"] = [{"from": [SECOND, ADMIN], "count": 1}]
    world.write_config()
    world.click(LEAD, card, "Approve")
    world.told("Only the approvers named by the rule", LEAD)
    assert world.users() == []
    assert "Approve" in buttons(world.card(card["ts"]))
    world.click(SECOND, card, "Approve")
    world.dm_says("is ready")
    world.cli("revoke", "--all")


def test_a_level_changed_between_card_and_click_is_outdated(world: World) -> None:
    world.start()
    card = world.ask("shop readonly 1h looking at a refund")
    world.databases["databases"]["shop"]["levels"]["readonly"]["roles"] = ["shop_writer"]
    world.write_config()
    world.click(LEAD, card, "Approve")
    world.told("the level readonly was changed meanwhile", LEAD)
    outdated = world.card_says(card["ts"], "Out of date")
    assert not buttons(outdated)
    assert "Ask again" in buttons(world.dm_says("is out of date"))
    assert world.users() == []


def test_a_database_removed_while_a_grant_lives_is_still_revoked(world: World) -> None:
    world.start()
    card, _ = world.granted("shop readonly 40s looking at a refund")
    world.databases["databases"]["other"] = world.databases["databases"].pop("shop")
    world.policy["rules"][0]["databases"] = ["other"]
    world.write_config()
    world.restart(signal.SIGTERM)
    world.card_says(card["ts"], "Ended")
    world.no_users()
    ended = world.request(number(card))
    assert (ended["state"], ended["ended_because"]) == ("revoked", "expired")


def test_a_ledger_begun_anew_under_old_cards_does_nothing(world: World, tmp_path: Path) -> None:
    world.start()
    old = world.ask("shop readonly 1h looking at a refund")
    world.stop()
    world.store = f"sqlite+aiosqlite:///{tmp_path}/anew.db"
    world.start()
    new = world.ask("shop readonly 2h something else entirely")
    assert number(new) == number(old) == 1
    world.click(LEAD, old, "Approve")
    world.told("This card is out of date.", LEAD)
    assert world.users() == []
    assert world.request(1)["state"] == "pending"
    assert "Approve" in buttons(world.card(old["ts"]))


def test_broken_files_with_a_live_grant_end_it_and_grant_nothing(world: World) -> None:
    world.start()
    card, _ = world.granted("shop readonly 40s looking at a refund")
    world.stop()
    world.policy["rules"][0]["surprise"] = True
    world.start(wait_ready=False)
    world.card_says(card["ts"], "Ended")
    world.no_users()
    assert not world.is_ready()
    world.slack.command(SECOND, CARDS, "request shop readonly 1h looking at a refund")
    world.told("dbaccess grants nothing at the moment", SECOND)
    assert "live grants are ended, nothing is granted" in world.log(), (
        "which channel is for alerts stands in the file that is broken"
    )
    assert world.stop() == 0
    world.cli("run", expect=1)


def test_no_secret_is_kept_anywhere(world: World) -> None:
    earlier = len(world.harness.server.log_text())
    world.start()
    card, message = world.granted("shop readonly 1h looking at a refund")
    first = pasted(message).split(":")[2].split("@")[0]
    world.click(REQUESTER, message, "New password")
    wait("a new password", lambda: first not in text_of(world.dm_says("is ready")))
    second = pasted(world.dm_says("is ready")).split(":")[2].split("@")[0]
    assert first != second
    psycopg.connect(pasted(world.dm_says("is ready"))).close()
    world.cli("revoke", str(number(card)))
    world.dm_says("ended")
    world.stop()
    secrets = [
        first,
        second,
        "xoxb-e2e-secret-token",
        "xapp-e2e-secret-token",
        world.admin_url,
        world.admin_url.split(":")[2].split("@")[0],
    ]
    kept = {
        p.name: p.read_bytes().decode(errors="replace")
        for p in world.folder.iterdir()
        if p.name.startswith(("ledger.db", "bot.log"))
    }
    kept["server log"] = world.harness.server.log_text()[earlier:]  # other tests' own administrators write there too
    kept["notifications"] = json.dumps(
        [m.get("text") for c in (CARDS, "C01AUDIT", ALERTS) for m in world.slack.messages(c)]
        + [m.get("text") for m in world.slack.dm(REQUESTER)]
    )
    kept["messages"] = json.dumps(world.slack.dm(REQUESTER))
    assert len(kept) >= 5
    for place, text in kept.items():
        for secret in secrets:
            assert secret not in text, place
    assert f"{world.prefix}1_requester" in kept["server log"], "the log that was searched is the one that was written"
