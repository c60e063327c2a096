"""Ask for access, withdraw a waiting request, and what the clock does with one nobody decides."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from bot.access.context import NO_DIRECTORY, Context
from bot.access.errors import Refused, TooLate, Unknown
from bot.access.ports import DirectoryUnavailable, Person
from bot.access.words import why_not
from bot.access.work import Work
from bot.policy import judge
from storage.errors import NoSuchRequest, NotPossible
from storage.lifecycle import Change, Move
from storage.records import Cause, Draft, Kind, Request


@dataclass(frozen=True, kw_only=True)
class Typed:
    """An ask as it was typed, or as the form had it; what is None was left out."""

    database: str | None = None
    level: str | None = None
    duration: timedelta | None = None
    reason: str | None = None
    kind: Kind = Kind.ACCESS


@dataclass(frozen=True, kw_only=True)
class Asked:
    """``is_new`` is False where the same ask was waiting already: its number is the answer."""

    request: Request
    is_new: bool


class FormNeeded(Exception):
    """Something was left out that only the form can ask for; ``typed`` fills it in."""

    def __init__(self, typed: Typed, offers: tuple[judge.Offer, ...], missing: str) -> None:
        super().__init__(f"{missing} is missing")
        self.typed = typed
        self.offers = offers
        self.missing = missing


async def ask(context: Context, person: Person, typed: Typed) -> Asked:
    """Judge the ask by today's policy and put it on the record. Raises Refused, or FormNeeded."""
    config = context.in_force()
    answer = judge.may_ask(config, await _question(context, person, typed))
    if isinstance(answer, judge.Missing):
        raise FormNeeded(typed, judge.offers(config, person.id), answer.what)
    if isinstance(answer, judge.Refused):
        raise Refused(answer.reason, about=answer.about)
    draft = await _draft(context, person, typed, answer)
    request, is_new = await context.ledger.ask(draft)
    return Asked(request=request, is_new=is_new)


async def _question(context: Context, person: Person, typed: Typed) -> judge.Ask:
    return judge.Ask(
        person_id=person.id,
        database=typed.database,
        level=typed.level,
        duration=typed.duration,
        reason=typed.reason,
        kind=typed.kind,
        at=await context.ledger.now(),
    )


async def _draft(context: Context, person: Person, typed: Typed, answer: judge.Allowed) -> Draft:
    assert typed.database is not None, "judged as complete"
    return Draft(
        kind=typed.kind,
        team_id=await _team(context),
        requester_id=person.id,
        requester_name=person.name,
        database=typed.database,
        level=str(answer.terms.level["name"]),
        reason=(typed.reason or "").strip(),
        terms=answer.terms,
    )


async def _team(context: Context) -> str:
    try:
        return await context.directory.team_id()
    except DirectoryUnavailable:
        raise Refused(NO_DIRECTORY) from None


async def cancel(context: Context, person: Person, request_id: int) -> Request:
    """The requester withdraws what nobody has decided. Raises Unknown for everybody else, TooLate where it was decided."""
    try:
        request = await context.ledger.request(request_id)
    except NoSuchRequest:
        raise Unknown(f"#{request_id}") from None
    if request.requester_id != person.id:
        raise Unknown(f"#{request_id}")
    try:
        return await context.ledger.advance(request_id, Move.CANCEL, Change(actor=person.id, cause=Cause.CANCELLED))
    except NotPossible as lost:
        raise TooLate(why_not(lost)) from None


async def lapse(_context: Context, work: Work) -> None:
    """Effect of the ``lapse`` task: the time to decide is over."""
    request = await work.request()
    if request.state.is_over or request.state.is_live:
        return
    await work.advance(request, Move.LAPSE, Change(actor="clock", cause=Cause.LAPSED))
