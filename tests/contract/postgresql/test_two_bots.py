"""Two bots with two ledgers on one server: many users at once, no failure."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from adapters.base import UserSpec
from tests.contract.postgresql.harness import EngineHarness, support, writer

USERS = 16


def other_bot(harness: EngineHarness) -> EngineHarness:
    """A bot with a ledger and a prefix of its own, and the same admin role and levels."""
    return replace(harness, ledger=f"b{harness.ledger}", prefix=f"b{harness.prefix}")


def test_many_creates_and_drops_of_two_bots_succeed(own_harness: EngineHarness) -> None:
    """All levels keep managed roles with privileges on the same table, whose access control list both bots change at once."""
    bots = (own_harness, other_bot(own_harness))
    specs = list[tuple[EngineHarness, UserSpec]]()
    for number in range(USERS):
        bot = bots[number % 2]
        specs.append((bot, bot.spec(support() if number % 4 < 2 else writer())))
    with ThreadPoolExecutor(USERS) as pool:
        list(pool.map(lambda each: each[0].adapter().create_user(each[1]), specs))
        for bot, spec in specs:
            bot.login(spec).close()
        removals = list(pool.map(lambda each: each[0].adapter().drop_user(each[1].username, each[1].level), specs))
    assert [removal.notes for removal in removals if removal.notes] == []
    with own_harness.superuser() as c:
        marks = [f"dbaccess ledger={bot.ledger} %" for bot in bots]
        query = "SELECT rolname FROM pg_roles WHERE shobj_description(oid, 'pg_authid') LIKE ANY(%s)"
        assert c.execute(query, (marks,)).fetchall() == []


def test_grants_and_ends_of_one_level_take_turns(own_harness: EngineHarness) -> None:
    """The last user of a managed role ends while the next one is created: the new user always has its privileges."""
    adapter = own_harness.adapter()
    first = own_harness.spec(support())
    adapter.create_user(first)
    with ThreadPoolExecutor(2) as pool:
        for _ in range(12):
            second = own_harness.spec(support())
            done = [
                pool.submit(adapter.drop_user, first.username, first.level),
                pool.submit(adapter.create_user, second),
            ]
            for each in done:
                each.result()
            with own_harness.login(second) as c:
                assert c.execute("SELECT count(*) FROM shop.customers").fetchone() == (1000,)
            first = second
    assert adapter.drop_user(first.username, first.level).notes == ()
