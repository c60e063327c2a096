"""The checks after all kills: nobody is left, every end came in time, nothing was lost, and no secret is anywhere."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import select

from bot.jobs.job import LEASE
from storage.audit_kinds import AuditKind
from storage.lifecycle import TRANSITIONS
from storage.records import State, TaskKind
from storage.schema import audit_events, messages, requests, tasks
from storage.transitions import Transition
from tests.contract.postgresql.harness import BOT_PASSWORD
from tests.fake_slack.workspace import APP_TOKEN, BOT_TOKEN
from tests.nightly.fleet import Fleet
from tests.nightly.stories import OVER, Story
from tests.nightly.users import UserWatch

MARGIN_SECONDS = 8.0
"""The time that an end may take where nothing explains more. Far above the usual tenths of a second: the machine is busy."""
BEGINS_THE_END = (AuditKind.REVOKING, AuditKind.FAILED)
RULES = defaultdict[str, list[Any]](list)
for _transition, _rule in TRANSITIONS.items():
    RULES[str(_rule.audit)].append((_transition, _rule))


@dataclass(frozen=True)
class Finding:
    """One thing that must not be."""

    about: str
    what: str

    def __str__(self) -> str:
        return f"{self.about}: {self.what}"


def percentile(values: Sequence[float], percent: float) -> float:
    """The value below which this share of the values lies; 0 without values."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else 0.0


async def check(
    findings: list[Finding],
    figures: dict[str, Any],
    fleet: Fleet,
    stories: Sequence[Story],
    watch: UserWatch,
    *,
    shows: int = 5,
) -> None:
    """Add everything that must not be to ``findings``, and the counts to ``figures``. ``shows``: for so many requests the command line is asked too."""
    with fleet.ledger.connect() as connection:
        rows = connection.execute(select(requests).order_by(requests.c.id)).all()
        events = connection.execute(select(audit_events).order_by(audit_events.c.id)).all()
        places = connection.execute(select(messages).where(messages.c.ts.is_not(None))).all()
        left = connection.execute(select(tasks)).all()
    history: dict[int, list[Any]] = defaultdict(list)
    for event in events:
        history[event.request_id].append(event)
    lateness, explained = lateness_of(fleet, rows, history, watch)
    findings += explained
    findings += nobody_left(fleet)
    findings += await sessions_alive(stories)
    findings += numbers_once(fleet, rows)
    findings += histories(rows, history)
    findings += finished(rows, left)
    findings += cards(fleet, rows, places)
    findings += people_informed(fleet, rows)
    findings += secrets_kept(fleet, rows, events)
    findings += [Finding("Slack", problem[:300]) for problem in fleet.slack.faults[:20]]
    figures |= counts(fleet, rows, stories, lateness)
    findings += await command_line_agrees(fleet, rows[:: max(1, len(rows) // shows)] if shows else [], history)
    findings += [Finding("process", f"exit status {status}") for status in await fleet.stop() if status]


def counts(fleet: Fleet, rows: Sequence[Any], stories: Sequence[Story], lateness: Sequence[float]) -> dict[str, Any]:
    states: dict[str, int] = defaultdict(int)
    for row in rows:
        states[row.state] += 1
    asked = {story.reason for story in stories}
    return {
        "requests": len(rows),
        "states": dict(states),
        "grants": sum(1 for row in rows if row.started_at is not None),
        "late p50 s": round(percentile(lateness, 50), 2),
        "late p99 s": round(percentile(lateness, 99), 2),
        "late most s": round(max(lateness, default=0.0), 2),
        "people tried again": sum(story.repeats for story in stories),
        "requests made twice": sum(1 for row in rows if row.reason in asked)
        - len({row.reason for row in rows} & asked),
        "cards posted twice": sum(len(places) - 1 for places in fleet.slack.cards.values()),
        "sessions held": sum(1 for story in stories if story.session is not None),
        "Slack calls": sum(fleet.slack.counts.values()),
        "passwords delivered": len(fleet.slack.passwords),
    }


# Ends.


def lateness_of(
    fleet: Fleet, rows: Sequence[Any], history: Mapping[int, Sequence[Any]], watch: UserWatch
) -> tuple[list[float], list[Finding]]:
    """How long each user was there after the end that was due, in seconds, and those that no kill explains."""
    lateness, findings = list[float](), list[Finding]()
    for row in rows:
        due, gone = due_of(row, history[row.id]), watch.last_seen.get(row.username or "")
        if due is None or gone is None:
            continue
        lateness.append(max(0.0, gone - due))
        allowed = allowed_until(fleet, due, gone)
        if gone > allowed:
            findings.append(
                Finding("late", f"#{row.id} was {gone - due:.1f} s late, {allowed - due:.1f} s are explained")
            )
    return lateness, findings


def due_of(row: Any, events: Sequence[Any]) -> float | None:
    """When the grant had to end: at its expiry, or when somebody ended it before."""
    begun = [seconds(event.at) for event in events if event.kind in BEGINS_THE_END]
    if row.expires_at is None:
        return min(begun, default=None)
    return min([*begun, seconds(row.expires_at)])


def seconds(at: datetime) -> float:
    return at.timestamp()


def allowed_until(fleet: Fleet, due: float, gone: float) -> float:
    """The end of what the kills explain: the time until a bot is ready again, and the lease of a killed replica."""
    allowed = due + MARGIN_SECONDS
    is_alone = len(fleet.bots) == 1
    lease = 0.0 if is_alone else LEASE.total_seconds()
    for outage in fleet.outages:
        if outage.killed_at <= gone and outage.ready_at >= due - lease:
            ready = outage.ready_at if is_alone else outage.killed_at
            allowed = max(allowed, ready + lease + MARGIN_SECONDS)
    return allowed


async def sessions_alive(stories: Sequence[Story]) -> list[Finding]:
    """The sessions that requesters hold and that the server has not closed."""
    dead = await asyncio.gather(*(asyncio.to_thread(story.session_is_dead) for story in stories))
    return [Finding("session alive", str(story)) for story, is_dead in zip(stories, dead, strict=True) if not is_dead]


def nobody_left(fleet: Fleet) -> Iterator[Finding]:
    for name in sorted(fleet.users())[:20]:
        yield Finding("user left", name)
    for name in sorted(fleet.sessions())[:20]:
        yield Finding("session left", name)


# Numbers, histories, tasks.


def numbers_once(fleet: Fleet, rows: Sequence[Any]) -> Iterator[Finding]:
    """Each number belongs to one request for ever, on the cards too, and each user name to one grant."""
    names = [row.username for row in rows if row.username]
    if len(names) != len(set(names)):
        yield Finding("user name", "was used twice")
    reasons = {row.id: row.reason for row in rows}
    for number, shown in fleet.slack.reasons.items():
        if shown - {reasons.get(number)}:
            yield Finding(
                "number", f"#{number} was on the cards of {sorted(shown)}, the ledger has {reasons.get(number)}"
            )


def histories(rows: Sequence[Any], history: Mapping[int, Sequence[Any]]) -> Iterator[Finding]:
    """The events of each request are a path of the state machine that leads to its state."""
    for row in rows:
        kinds = [event.kind for event in history[row.id]]
        reached, wrong = path_of(kinds)
        if wrong:
            yield Finding("history", f"#{row.id}: {wrong} in {kinds}")
        elif row.state not in reached:
            yield Finding("history", f"#{row.id} is {row.state}, its events {kinds} lead to {sorted(reached)}")


def path_of(kinds: Sequence[str]) -> tuple[set[str], str]:
    """The states that these events can lead to, and the first event that was not possible."""
    if not kinds or RULES[kinds[0]][0][0] is not Transition.REQUEST:
        return set(), "no request at the beginning"
    states: set[State] = {State.PENDING}
    for kind in kinds[1:]:
        if kind not in RULES:
            continue
        after = {rule.target or state for _, rule in RULES[kind] for state in states if state in rule.sources}
        if not after:
            return {str(state) for state in states}, f"{kind} from {sorted(states)}"
        states = after
    return {str(state) for state in states}, ""


def finished(rows: Sequence[Any], left: Sequence[Any]) -> Iterator[Finding]:
    for row in rows:
        if row.state not in OVER:
            yield Finding("not over", f"#{row.id} is {row.state}")
        if row.started_at is not None and row.state == "revoked" and not row.receipt:
            yield Finding("receipt", f"#{row.id} has none")
    unfinished = [
        f"{task.kind} of #{task.request_id}: {task.last_error}" for task in left if task.kind != TaskKind.REVIEW
    ]
    for what in unfinished[:20]:
        yield Finding("task left", what[:300])


# Messages.


def cards(fleet: Fleet, rows: Sequence[Any], places: Sequence[Any]) -> Iterator[Finding]:
    """Each request has its card, in its final state. Repeats that a kill left are not in the ledger, and are only counted."""
    of: dict[int, list[Any]] = defaultdict(list)
    for place in places:
        of[place.request_id].append(place)
    for row in rows:
        own = [place for place in of[row.id] if place.purpose == "card"]
        if not own:
            yield Finding("card", f"#{row.id} has none")
        for place in own:
            labels = fleet.slack.labels(place.channel, place.ts)
            if labels & {"Approve", "Deny", "Revoke"}:
                yield Finding("card", f"#{row.id} is {row.state} and still has {sorted(labels)}")


def people_informed(fleet: Fleet, rows: Sequence[Any]) -> Iterator[Finding]:
    """The requester knows how each request ended."""
    for row in rows:
        number = f"#{row.id}"
        if row.state != "cancelled" and row.kind != "extension" and not fleet.slack.says(row.requester_id, number):
            yield Finding("requester", f"{row.requester_id} was not told of {number}, which is {row.state}")


def secrets_kept(fleet: Fleet, rows: Sequence[Any], events: Sequence[Any]) -> Iterator[Finding]:
    """No password is left in Slack, and none was ever in the ledger or in a log."""
    slack = json.dumps(fleet.slack.workspace.messages) + json.dumps(fleet.slack.workspace.ephemerals)
    rest = fleet.log_text() + str(rows) + str(events)
    for password in fleet.slack.passwords:
        if password in slack:
            yield Finding("password", "is left in a Slack message")
        if password in rest:
            yield Finding("password", "is in a log or the ledger")
    for secret in (BOT_PASSWORD, BOT_TOKEN, APP_TOKEN):
        if secret in rest or secret in slack:
            yield Finding("secret", "of the bot is in a log, the ledger or Slack")


async def command_line_agrees(fleet: Fleet, rows: Sequence[Any], history: Mapping[int, Sequence[Any]]) -> list[Finding]:
    """``dbaccess show`` has the same events as the ledger."""
    findings = []
    for row in rows:
        shown = json.loads(await fleet.command_line("show", str(row.id), "--json"))[0]["history"]
        if [event["kind"] for event in shown] != [event.kind for event in history[row.id]]:
            findings.append(Finding("show", f"#{row.id} shows other events than the ledger has"))
    return findings
