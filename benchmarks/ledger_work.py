"""What a grant costs in transactions of the ledger and in calls of Slack. Counts, not times."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from benchmarks.figures import Figure, Goal
from benchmarks.grants import approve, give_back, make_request
from benchmarks.rest import statements
from benchmarks.slack import until
from benchmarks.world import FIVE_GROUPS, REQUESTERS, World

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
    at_click, calls = len(statements(world)), len(world.slack.timeline)
    usable = await approve(world, waiting)
    approved, called = statements(world)[at_click:], world.slack.timeline[calls:]
    await world.until_idle()
    await give_back(world, [usable])
    whole = statements(world)[before:]

    filled = next(n for n, call in enumerate(called) if call.method == "chat.update" and "Password" in call.text)
    steps = _sequential([(call.received_at, call.answered_at) for call in called[: filled + 1]])
    return [
        _counted(f"`list` of {WAITING} requests: transactions", _transactions(listed), listed),
        _counted("from the click of one of five groups to working credentials: transactions", _transactions(approved), approved),
        Figure(
            group=GROUP, name="from the click to working credentials: calls of Slack one after another", unit="", values=[steps],
            goal=Goal(statistic="median", at_most=SEQUENTIAL_CALLS), more={"calls": [call.method for call in called[: filled + 1]]},
        ),
        _counted("a whole grant, from request to end: transactions", _transactions(whole), whole),
        _counted("a whole grant, from request to end: statements", len(whole), whole),
    ]  # fmt: skip


def _transactions(lines: Sequence[str]) -> int:
    return sum(line.startswith("BEGIN") for line in lines)


def _counted(name: str, number: int, lines: Sequence[str]) -> Figure:
    named = Counter(line[:60] for line in lines).most_common(12)
    return Figure(group=GROUP, name=name, unit="", values=[number], more={"statements": dict(named)})


def _sequential(spans: Sequence[tuple[float, float]]) -> int:
    """How many of these calls can follow one another: the longest chain in which each begins after the one before was answered."""
    longest: list[tuple[float, int]] = []
    for begins, ends in sorted(spans, key=lambda span: span[1]):
        before = max((length for ended, length in longest if ended <= begins), default=0)
        longest.append((ends, before + 1))
    return max((length for _, length in longest), default=0)
