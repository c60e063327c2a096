"""Three real bots on one PostgreSQL ledger. Whichever gets a click does the work, and what a killed one began is finished by the others."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from bot.jobs.job import LEASE
from tests.e2e.harness import LEAD, SECOND, Environment, wait
from tests.e2e.messages import number, text_of
from tests.servers.postgresql import PostgresServer, free_port

REPLICAS = 3
ROUNDS = 6
LEASE_SECONDS = LEASE.total_seconds()


@dataclass
class Replicas:
    """The bots, and the database of their ledger."""

    bots: list[Environment]
    server: PostgresServer
    database: str

    @property
    def first(self) -> Environment:
        return self.bots[0]

    def start(self) -> None:
        for bot in self.bots:
            bot.start()

    def running(self) -> list[Environment]:
        return [bot for bot in self.bots if bot.bot is not None]

    def connections(self) -> int:
        """The connections to the ledger."""
        with self.server.admin() as connection:
            query = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s"
            row = connection.execute(query, (self.database,)).fetchone()
        assert row is not None
        return int(str(row[0]))

    def live(self) -> int:
        """The bots that the ledger knows as running."""
        with self.server.admin(self.database) as connection:
            row = connection.execute("SELECT count(*) FROM bots").fetchone()
        assert row is not None
        return int(str(row[0]))

    def claims_of_ends(self) -> int:
        """The ends that a replica has claimed."""
        with self.server.admin(self.database) as connection:
            row = connection.execute(
                "SELECT count(*) FROM tasks WHERE kind = 'revoke' AND claim IS NOT NULL"
            ).fetchone()
        assert row is not None
        return int(str(row[0]))


@pytest.fixture
def replicas(environment: Environment, postgresql15: PostgresServer, tmp_path: Path) -> Iterator[Replicas]:
    database = postgresql15.new_database("e2e_ledger")
    url = postgresql15.superuser_url(database).replace("postgresql://", "postgresql+psycopg://")
    bots = list[Environment]()
    for n in range(REPLICAS):
        (folder := tmp_path / f"replica{n}").mkdir()
        bots.append(replace(environment, folder=folder, http_port=free_port(), ledger_url=url))
    bots[0].write_config()
    bots[0].cli("store", "upgrade")
    found = Replicas(bots, postgresql15, database)
    yield found
    for bot in found.running():
        bot.stop(signal.SIGKILL)


@pytest.mark.timeout(600)
def test_any_replica_does_the_work_and_connections_stay_flat(replicas: Replicas) -> None:
    replicas.start()
    first = replicas.first
    assert replicas.live() == REPLICAS
    before = 0
    for n in range(ROUNDS):
        card = first.request_access(f"shop readonly {20 + n}m looking at refund {n}")
        first.click(LEAD, card, "Approve")
        first.dm_says(f"is ready (#{number(card)})")
        first.click(LEAD, first.card_says(card["ts"], "Revoke"), "Revoke")
        wait("it has ended", lambda card=card: first.request(number(card))["state"] == "revoked")
        before = before or replicas.connections()
    assert replicas.connections() <= before + REPLICAS, "each replica may open one that it had not needed before"
    said = [text_of(message) for message in first.slack.dm("U01REQUESTER")]
    assert len([text for text in said if "#1)" in text]) <= 1, "one credential message"
    assert [bot.stop() for bot in replicas.bots] == [0] * REPLICAS
    assert replicas.live() == 0


@pytest.mark.timeout(900)
def test_the_others_go_on_with_what_a_killed_replica_had_begun(replicas: Replicas) -> None:
    """Every replica is killed once, while grants are made and while they end. None outlives its end."""
    replicas.start()
    numbers = list[int]()
    for n, killed in enumerate(replicas.bots):
        alive = next(bot for bot in replicas.bots if bot is not killed)
        card = alive.request_access(f"shop readonly {15 + n}s looking at refund {n}")
        numbers.append(number(card))
        alive.click(SECOND if n % 2 else LEAD, card, "Approve")
        killed.stop(signal.SIGKILL)
        if alive.request(numbers[-1])["state"] == "pending":  # the click was lost with the process
            wait("the click reaches a living replica", lambda a=alive, c=card: _clicked(a, c))
        killed.start()
    replicas.bots[-1].stop(signal.SIGKILL)
    for request_id in numbers:
        wait(
            f"#{request_id} is over",
            lambda request_id=request_id: replicas.first.request(request_id)["state"] == "revoked",
            300,
        )
    replicas.first.wait_until_no_users()
    assert numbers == sorted(set(numbers)), "no number is used twice"


@pytest.mark.timeout(600)
def test_an_end_that_a_killed_replica_had_begun_does_not_wait_for_its_lease(replicas: Replicas) -> None:
    """It is killed while the server makes it wait. Another one ends the grant long before the lease of 90 seconds runs out."""
    first, other = replicas.bots[:2]
    first.start()
    card = first.request_access("shop readonly 1h looking at refund 5")
    first.click(LEAD, card, "Approve")
    first.dm_says("is ready")
    username = first.request(number(card))["username"]
    with replicas.server.admin() as holder:
        with holder.transaction():
            holder.execute(f"ALTER ROLE {username} CONNECTION LIMIT 5".encode())
            first.click(LEAD, first.card_says(card["ts"], "Revoke"), "Revoke")
            wait("the end is claimed", lambda: replicas.claims_of_ends() == 1)
            first.stop(signal.SIGKILL)
        assert replicas.claims_of_ends() == 1
    other.start()
    wait("it is over", lambda: other.request(number(card))["state"] == "revoked", LEASE_SECONDS / 2)
    other.wait_until_no_users()


def _clicked(bot: Environment, card: dict[str, object]) -> bool:
    """Whether the request is decided. A click that went to the killed process is made again."""
    state = bot.request(number(card))["state"]
    if state == "pending":
        bot.click(LEAD, bot.card(str(card["ts"])), "Approve")
    return state != "pending"
