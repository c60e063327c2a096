"""The state of a level is read before the grant, kept in the ledger, and given to the end. Nothing about it holds an end up."""

from __future__ import annotations

import sqlite3

import pytest

from adapters.base import AdapterError, Blocked, Rejected, ServerDown
from adapters.level_state import LevelState
from storage.records import Cause, Request, State
from tests.access.environment import AccessEnvironment


def change_stored_state(environment: AccessEnvironment, request: Request, text: str | None) -> None:
    with sqlite3.connect(environment.store.removeprefix("sqlite+aiosqlite:///")) as connection:
        connection.execute("UPDATE requests SET level_state = ? WHERE id = ?", (text, request.id))


async def end(environment: AccessEnvironment, request: Request) -> Request:
    await environment.turn(hours=2)
    ended = await environment.now(request)
    assert (ended.state, environment.server.users) == (State.REVOKED, {})
    return ended


async def test_the_receipt_names_what_changed_during_the_grant(environment: AccessEnvironment) -> None:
    environment.server.facts = [("members", "lea")]
    calls: list[str] = []
    environment.server.step = calls.append
    request = await environment.granted()
    assert calls.index("before level_state") < calls.index("before create")
    environment.server.facts.append(("members", "friend"))
    ended = await end(environment, request)
    assert environment.server.states_before == [LevelState.of([("members", "lea")])]
    assert ended.receipt is not None
    assert ended.receipt.notes == ("Changed while the grant was live: members: new friend.",)


async def test_a_retry_after_the_start_keeps_the_state_before_the_user(environment: AccessEnvironment) -> None:
    """The user may exist after START, so that a later state may have its changes."""
    environment.server.facts = [("members", "lea")]
    environment.server.loses_answers = True
    request = await environment.approve(await environment.ask())
    await environment.drain()
    started = await environment.now(request)
    assert (started.state, started.started_at is not None) == (State.APPROVED, True)
    environment.server.facts.append(("members", "friend"))
    await environment.turn(minutes=2)
    live = await environment.now(request)
    assert (live.state, live.level_state) == (State.ACTIVE, started.level_state)


@pytest.mark.parametrize("error", [ServerDown("no answer"), Blocked("a lock is held by 4711"), KeyError("a fault")])
async def test_without_the_state_nothing_is_granted_yet(environment: AccessEnvironment, error: Exception) -> None:
    environment.server.errors["level_state"] = error
    request = await environment.approve(await environment.ask())
    await environment.turn(minutes=5)
    waiting = await environment.now(request)
    assert (waiting.state, waiting.started_at, environment.server.users) == (State.APPROVED, None, {})
    environment.server.errors.clear()
    await environment.turn(minutes=2)
    assert (await environment.now(request)).state is State.ACTIVE


async def test_a_refused_state_fails_the_grant(environment: AccessEnvironment) -> None:
    environment.server.errors["level_state"] = Rejected("the role can log in", remedy="ALTER ROLE reader NOLOGIN")
    request = await environment.approve(await environment.ask())
    await environment.drain()
    assert (await environment.now(request)).ended_because is Cause.FAILED


@pytest.mark.parametrize("error", [ServerDown("no answer"), Rejected("no"), AdapterError("what"), KeyError("a fault")])
async def test_a_state_that_cannot_be_read_never_stops_an_end(environment: AccessEnvironment, error: Exception) -> None:
    request = await environment.granted()
    environment.server.errors["level_state"] = error
    await end(environment, request)
    assert (await environment.now(request)).state is State.REVOKED


@pytest.mark.parametrize("text", [None, "", "null", "{", "[]", '{"members": "lea"}', "[" * 100_000, "\x00"])
async def test_a_stored_state_that_cannot_be_read_never_stops_an_end(
    environment: AccessEnvironment, text: str | None
) -> None:
    request = await environment.granted()
    change_stored_state(environment, request, text)
    await end(environment, request)
    assert environment.server.states_before == [None]


async def test_a_large_and_hostile_state_is_stored(environment: AccessEnvironment) -> None:
    names = ("\x00", "\ud800", "a\nb", *(f"role {number} {'x' * 500}" for number in range(10_000)))
    environment.server.facts = [("members", name) for name in names]
    request = await environment.granted()
    environment.server.facts.append(("members", "one more"))
    ended = await end(environment, request)
    assert ended.receipt is not None
    assert "10003 before and 10004 after" in ended.receipt.notes[0]
