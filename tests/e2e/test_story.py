"""The main job, as its users live it: the real process, local-slack, a private PostgreSQL."""

from __future__ import annotations

import psycopg
import pytest

from tests.e2e.harness import (
    ALERTS,
    AUDIT,
    CARDS,
    LEAD,
    REQUESTER,
    World,
    buttons,
    is_dead,
    number,
    pasted,
    psql,
    text_of,
)


def test_the_whole_story(world: World) -> None:
    world.start()
    card = world.ask("shop readonly 40s looking at a refund")
    assert f"<@{REQUESTER}> asks for *readonly* on *shop* for 40 s." in text_of(card)
    world.click(LEAD, card, "Approve")
    message = world.dm_says("is ready")
    for name in ("Host", "Port", "Database", "Username", "Password"):
        assert f"*{name}*\\n`" in text_of(message)
    with psycopg.connect(pasted(message), autocommit=True) as session:
        assert session.execute("SELECT count(*) FROM shop.customers").fetchone() == (1000,)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute("DELETE FROM shop.customers")
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            psycopg.connect(pasted(message).replace(f"/{world.harness.database}", f"/{world.harness.other}"))
        read = psql(message, "SELECT current_user, count(*) FROM shop.customers")
        assert (read.returncode, read.stdout.split("|")[-1].strip()) == (0, "1000"), read.stderr
        written = psql(message, "DELETE FROM shop.customers")
        assert written.returncode != 0
        assert "permission denied" in written.stderr
        assert "Revoke" in buttons(world.card_says(card["ts"], "until"))
        ended = world.card_says(card["ts"], "Login blocked, 1 session ended")
        assert is_dead(session)
    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        psycopg.connect(pasted(message))
    world.no_users()
    assert "Read back from the server" in text_of(ended)
    assert not buttons(ended)
    closed = world.dm_says("ended")
    assert "Password" not in text_of(closed)
    for words in ("requested", "approved", "granted", "verified"):
        world.feed_says(words)
    request = world.request(number(card))
    assert request["state"] == "revoked"
    assert request["ended_because"] == "expired"
    assert world.stop() == 0
    assert not world.slack.messages(ALERTS)
    assert world.slack.messages(AUDIT)
    assert CARDS
