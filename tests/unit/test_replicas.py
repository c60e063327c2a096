"""The running bots of a ledger, and the order of their configurations: an older one grants nothing while another bot has a newer one."""

from __future__ import annotations

from datetime import timedelta

import pytest

from storage.commands import ApproveRequest, DenyRequest, RevokeGrant, StartGrant
from storage.errors import ConfigurationOlder, NotPossible
from storage.ledger import Ledger
from storage.records import Cause, State, Verdict
from storage.replicas import FORGETS_EVERY, FORGOTTEN_AFTER, LIVE_WITHIN
from storage.transitions import Obstacle
from tests.unit.ledgers import HOUR, START, TARGET, TurnableClock, bring, draft, terms, vote

A_MINUTE = timedelta(minutes=1)
on_postgresql = pytest.mark.parametrize("ledger_url", ["postgresql"], indirect=True)


async def names(ledger: Ledger) -> list[str]:
    return [bot.worker for bot in await ledger.replicas.live()]


async def test_a_bot_is_live_from_its_first_heartbeat_until_it_leaves(ledger: Ledger, clock: TurnableClock) -> None:
    await ledger.replicas.heartbeat("aaa")
    assert await names(ledger) == [], "a command of the command line is no bot"
    ledger.replicas.join("bot-1", "1.2.3")
    await ledger.replicas.heartbeat("aaa")
    clock.turn(A_MINUTE)
    await ledger.replicas.heartbeat(None)
    (bot,) = await ledger.replicas.live()
    assert (bot.worker, bot.version, bot.digest) == ("bot-1", "1.2.3", None)
    assert (bot.started_at, bot.seen_at) == (START, START + A_MINUTE)
    await ledger.replicas.leave()
    assert await names(ledger) == []


@on_postgresql
async def test_a_killed_bot_is_live_for_two_beats_and_forgotten_after_ten_minutes(
    ledger: Ledger, replica: Ledger, clock: TurnableClock
) -> None:
    for one, name in ((ledger, "bot-1"), (replica, "bot-2")):
        one.replicas.join(name, "1.2.3")
        await one.replicas.heartbeat("aaa")
        clock.turn(timedelta(seconds=1))
    assert await names(ledger) == ["bot-1", "bot-2"]
    clock.turn(LIVE_WITHIN - timedelta(seconds=1))
    await ledger.replicas.heartbeat("aaa")
    assert await names(ledger) == ["bot-1"]
    assert len(await ledger.replicas.live(FORGOTTEN_AFTER)) == 2
    clock.turn(FORGOTTEN_AFTER)
    for _ in range(FORGETS_EVERY):
        await ledger.replicas.heartbeat("aaa")
    assert [bot.worker for bot in await ledger.replicas.live(timedelta(days=1))] == ["bot-1"]


@on_postgresql
async def test_changed_files_of_a_bot_with_the_newest_ones_are_the_newest(ledger: Ledger, replica: Ledger) -> None:
    ledger.replicas.join("bot-1", "1")
    replica.replicas.join("bot-2", "1")
    for digest in ("aaa", "bbb", "aaa"):  # back to the first, by changed files
        assert not await ledger.replicas.heartbeat(digest)
        assert await ledger.replicas.newest_configuration() == digest
        assert not await replica.replicas.heartbeat(digest)
    assert not await ledger.replicas.heartbeat("bbb")
    assert await replica.replicas.heartbeat("aaa"), "it did not load the change"
    assert replica.replicas.is_older
    assert not await replica.replicas.has_newest("aaa")
    assert not await ledger.replicas.heartbeat("bbb")
    assert not await replica.replicas.heartbeat("bbb")


@on_postgresql
async def test_a_configuration_that_no_bot_ever_had_is_the_newest(ledger: Ledger, replica: Ledger) -> None:
    ledger.replicas.join("bot-1", "1")
    await ledger.replicas.heartbeat("aaa")
    replica.replicas.join("bot-2", "2")
    assert not await replica.replicas.heartbeat("bbb")
    assert await ledger.replicas.heartbeat("aaa")
    assert not await ledger.replicas.heartbeat("ccc"), "a later change of the bot that was behind"
    assert await replica.replicas.heartbeat("bbb")


@on_postgresql
@pytest.mark.parametrize("stop", ["clean", "killed"])
async def test_a_deployment_can_be_rolled_back(
    ledger: Ledger, replica: Ledger, clock: TurnableClock, stop: str
) -> None:
    ledger.replicas.join("bot-1", "1")
    for digest in ("aaa", "bbb"):
        await ledger.replicas.heartbeat(digest)
    replica.replicas.join("bot-2", "1")
    assert await replica.replicas.heartbeat("aaa"), "a bot that starts with older files"
    if stop == "clean":
        await ledger.replicas.leave()
    else:
        clock.turn(LIVE_WITHIN)
    assert await replica.replicas.has_newest("aaa")
    assert await replica.replicas.newest_configuration() == "aaa"


@on_postgresql
async def test_an_older_configuration_grants_nothing_and_ends_everything(
    ledger: Ledger, replica: Ledger, clock: TurnableClock
) -> None:
    waiting, other = await bring(ledger, clock, State.PENDING), await bring(ledger, clock, State.PENDING, level="w")
    approved, live = await bring(ledger, clock, State.APPROVED), await bring(ledger, clock, State.ACTIVE, level="w")
    for one, name in ((ledger, "bot-1"), (replica, "bot-2")):
        one.replicas.join(name, "1")
        await one.replicas.heartbeat("aaa")
    await ledger.replicas.heartbeat("bbb")

    approve = ApproveRequest(
        actor="U01LEAD", decision=vote(waiting), username="jit_1", target=TARGET, configuration="aaa"
    )
    start = StartGrant(
        actor="bot",
        identity="server-1",
        unsettled_until=START + HOUR,
        requester_is_member=True,
        configuration="aaa",
    )
    for request, command in ((waiting, approve), (approved, start)):
        with pytest.raises(NotPossible) as refused:
            await replica.requests.advance(request.id, command)
        assert refused.value.obstacle is Obstacle.CONFIGURATION_OLDER
    with pytest.raises(ConfigurationOlder):
        await replica.requests.submit(draft(person="U9", terms=terms(policy_digest="aaa")))
    await ledger.requests.submit(draft(person="U9", terms=terms(policy_digest="bbb")))

    deny = DenyRequest(actor="U01LEAD", decision=vote(other, verdict=Verdict.DENY), note="no", configuration="aaa")
    assert (await replica.requests.advance(other.id, deny)).state is State.DENIED
    end = RevokeGrant(actor="U01ADMIN", cause=Cause.REVOKED, configuration="aaa")
    assert (await replica.requests.advance(live.id, end)).state is State.REVOKING


@pytest.mark.parametrize("ledger_url", ["sqlite"], indirect=True)
async def test_the_only_bot_on_sqlite_always_has_the_newest_configuration(ledger: Ledger, replica: Ledger) -> None:
    ledger.replicas.join("bot-1", "1")
    for digest in ("aaa", "bbb"):
        await ledger.replicas.heartbeat(digest)
    replica.replicas.join("bot-2", "1")  # after the first was killed
    assert not await replica.replicas.heartbeat("aaa")
    assert await names(replica) == ["bot-2"]
    assert await replica.replicas.has_newest("aaa")
