"""The cost of a grant in transactions of the ledger and in calls of Slack. Counts, not times."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from benchmarks.figures import Figure, Goal
from benchmarks.grants import approve, give_back, make_request
from benchmarks.rest import statements
from benchmarks.slack import Call, until
from benchmarks.world import ALERTS, AUDIT, CHANNELS, FIVE_GROUPS, REQUESTERS, World

GROUP = "Work of a grant"
WAITING = 20
SEQUENTIAL_CALLS = 3


async def measure_ledger_work(world: World) -> list[Figure]:
    """Transactions of one ``list``, of one approval and of a whole grant; and the calls of Slack that the requester waits for."""
    lister = REQUESTERS[2]
    for minutes in range(1, WAITING + 1):
        await make_request(world, lister, duration=f"{minutes}m")
    await world.until_idle()
    before, answers = len(statements(world)), len(world.slack.ephemeral_times)
    await world.slack.command(lister, "list")
    await until("the list is answered", lambda: len(world.slack.ephemeral_times) > answers)
    listed = statements(world)[before:]

    before = len(statements(world))
    waiting = await make_request(world, FIVE_GROUPS)
    await world.until_idle()
    at_click, known_calls = len(statements(world)), len(world.slack.timeline)
    usable = await approve(world, waiting)
    approved, called = statements(world)[at_click:], world.slack.timeline[known_calls:]
    await world.until_idle()
    await give_back(world, [usable])
    whole = statements(world)[before:]

    until_filled = called[: next(n for n, call in enumerate(called) if "*Password*" in call.text) + 1]
    calls = [call for call in until_filled if not _is_beside(call)]
    return [
        _counted(f"`list` of {WAITING} requests: transactions", _transactions(listed), listed),
        _counted("from the click of one of five groups to working credentials: transactions", _transactions(approved), approved),
        Figure(
            group=GROUP, name="from the click to working credentials: calls of Slack one after another", unit="", values=[longest_chain(calls)],
            goal=Goal(statistic="median", at_most=SEQUENTIAL_CALLS), more={"calls": [call.method for call in calls]},
        ),
        _counted("a whole grant, from request to end: transactions", _transactions(whole), whole),
        _counted("a whole grant, from request to end: statements", len(whole), whole),
    ]  # fmt: skip


def _transactions(lines: Sequence[str]) -> int:
    return sum(line.startswith("BEGIN") for line in lines)


def _counted(name: str, number: int, lines: Sequence[str]) -> Figure:
    named = Counter(line[:60] for line in lines).most_common(12)
    return Figure(group=GROUP, name=name, unit="", values=[number], more={"statements": dict(named)})


def _is_beside(call: Call) -> bool:
    """A message to a channel: the requester does not wait for it."""
    return call.method.startswith("chat.") and call.arguments.get("channel") in (*CHANNELS, AUDIT, ALERTS)


def longest_chain(calls: Sequence[Call]) -> int:
    """The number of calls of which each began after the one before it was answered."""
    chains: list[tuple[float, int]] = []
    for call in sorted(calls, key=lambda call: call.answered_at):
        before = max((length for answered_at, length in chains if answered_at <= call.received_at), default=0)
        chains.append((call.answered_at, before + 1))
    return max((length for _, length in chains), default=0)
