"""A notice in, text and blocks out. Pure; every text of a person is escaped or quoted.

Plain words, the fact first: what happened, until when, what one can do.
"""

from __future__ import annotations

from functools import singledispatch

from bot.access.ports import Notice
from bot.durations import format_duration
from bot.notifications.notices import (
    AlertNotice,
    EndingSoonNotice,
    GrantedNotice,
    ReminderNotice,
    ReviewNotice,
    StateChangeNotice,
)
from bot.slack import ids
from bot.slack.render import cards, credentials, feed
from bot.slack.render.blocks import RenderedMessage, actions, button, quote, section
from bot.slack.render.cards import APPROVERS_SHOWN, REASON_IN_TEXT, ended_by, receipt_line, sign_off_button, what
from bot.slack.render.text import TEXT_MAX, cut, escape, in_words, moment, named, one_line, person
from storage.records import Cause, RequestKind, State, Verdict

ALERT_MAX = 2500


@singledispatch
def render(notice: Notice) -> RenderedMessage:
    """Blocks and text of a notice. Raises NotImplementedError for what nobody drew."""
    raise NotImplementedError(type(notice).__name__)


render.register(cards.card)
render.register(credentials.preparing)
render.register(credentials.filled)
render.register(credentials.closed)
render.register(feed.lines)


@render.register
def turn(notice: StateChangeNotice) -> RenderedMessage:
    """One line to the requester, and a way on where there is one."""
    request = notice.request
    line, quoted = _turn_words(notice)
    blocks = [section(line), *([quote(quoted)] if quoted else [])]
    if request.state in (State.DENIED, State.LAPSED, State.OUTDATED) or request.ended_because is Cause.FAILED:
        blocks.append(
            actions(button("Ask again", ids.REQUEST_AGAIN, request.token, about=f"like request {request.id}"))
        )
    return RenderedMessage(text=cut(f"{line} {one_line(quoted, REASON_IN_TEXT)}".strip(), TEXT_MAX), blocks=blocks)


def _turn_words(notice: StateChangeNotice) -> tuple[str, str]:
    request, thing = notice.request, what(notice.request)
    if notice.trouble:
        return escape(notice.trouble), ""
    if request.state is State.DENIED and notice.decision:
        by = person(notice.decision.person_id, notice.decision.person_name)
        return f"Your request #{request.id} for {thing} was denied by {by}.", notice.decision.reason or ""
    if request.ended_because is Cause.FAILED:
        return (
            f"Your request #{request.id} for {thing} failed. {escape(request.ended_note or '')} You can ask again.",
            "",
        )
    ended = {
        State.LAPSED: f"Your request #{request.id} for {thing} has lapsed: {escape(request.ended_note or 'nobody decided in time.')} You can ask again.",
        State.DENIED: f"Your request #{request.id} for {thing} was refused. {escape(request.ended_note or '')}",
        State.APPLIED: _applied(notice),
        State.CANCELLED: f"Your request #{request.id} for {thing} is withdrawn.",
        State.OUTDATED: f"Your request #{request.id} for {thing} is out of date: {escape(request.ended_note or '')} Please ask again.",
        State.REVOKED: f"Your access #{request.id} to {thing} has ended: {ended_by(request)}. {receipt_line(request)}",
    }
    return ended.get(request.state, f"Your request #{request.id} is {request.state}."), ""


def _applied(notice: StateChangeNotice) -> str:
    request, grant = notice.request, notice.grant
    until = f" It now ends {moment(grant.expires_at)}." if grant and grant.expires_at else ""
    return f"#{request.id} was approved: your access #{request.parent_id} to {what(request)} has more time.{until} Open sessions live on."


@render.register
def review(notice: ReviewNotice) -> RenderedMessage:
    """To those who sign off."""
    request = notice.request
    who = person(request.requester_id, request.requester_name)
    line = f"Break-glass access #{request.id} of {who} to {what(request)} is not signed off, and its time is over."
    return RenderedMessage(
        text=cut(line, TEXT_MAX), blocks=[section(line), quote(request.reason), actions(sign_off_button(request))]
    )


@render.register
def reminder(notice: ReminderNotice) -> RenderedMessage:
    """Beside the card: who is waited for, and until when."""
    request, thing = notice.request, what(notice.request)
    who = ", ".join(named(name) for name in notice.waits_for[:APPROVERS_SHOWN] if name != request.requester_id)
    begun = "may be decided by more people now" if notice.is_escalation else "still waits"
    line = (
        f"#{request.id} {begun}: {person(request.requester_id, request.requester_name)} asks for {thing}."
        f" Can decide: {who}. It lapses {moment(request.lapses_at)}."
    )
    return RenderedMessage(text=cut(line, TEXT_MAX), blocks=[section(line)])


@render.register
def ending_soon(notice: EndingSoonNotice) -> RenderedMessage:
    """To the requester: the end comes, and what can be done about it."""
    request = notice.request
    assert request.expires_at is not None, "a live grant has its end"
    line = (
        f"Your access #{request.id} to {what(request)} ends {moment(request.expires_at)}. Open sessions end then, too."
    )
    offered = [button("I'm done", ids.DONE, request.token, about=f"end access {request.id} now")]
    if request.kind is not RequestKind.BREAK_GLASS:
        offered.insert(0, button("Extend", ids.EXTEND, request.token, about=f"access {request.id}"))
    text = f"Your access #{request.id} ends {in_words(request.expires_at)}."
    return RenderedMessage(text=text, blocks=[section(line), actions(*offered)])


@render.register
def granted(notice: GrantedNotice) -> RenderedMessage:
    """Told, not asked."""
    request = notice.request
    who, lasts = (
        person(request.requester_id, request.requester_name),
        format_duration(request.effective_duration),
    )
    made = [person(d.person_id, d.person_name) for d in notice.decisions if d.verdict is Verdict.APPROVE]
    by = f"approved by {', '.join(made)}" if made else "approved by the policy, nobody was asked"
    line = f"#{request.id}: {who} was given {what(request)} for {lasts}, {by}. Rule: {escape(request.terms.rule)}."
    return RenderedMessage(text=cut(line, TEXT_MAX), blocks=[section(line), quote(request.reason)])


@render.register
def alert(notice: AlertNotice) -> RenderedMessage:
    """What is wrong, since when, what was tried, what to do now."""
    since = f" Since {moment(notice.since)}" if notice.since else ""
    tries = f", {notice.tries} tries." if notice.tries else "." if since else ""
    steps = "\n".join(f"{number}. {escape(step)}" for number, step in enumerate(notice.steps, 1))
    blocks = [section(f":warning: *{cut(escape(notice.what), ALERT_MAX)}*{since}{tries}")]
    if steps:
        blocks.append(section(cut(steps, ALERT_MAX)))
    return RenderedMessage(text=cut(escape(notice.what), TEXT_MAX), blocks=blocks)
