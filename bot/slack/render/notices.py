"""Render a notice as text and blocks. Pure. All text of people is escaped or quoted.

Each message begins with the fact: what happened, until when, and what the reader can do.
"""

from __future__ import annotations

from functools import singledispatch

from bot.access.ports import Notice
from bot.durations import format_duration
from bot.notifications.notices import (
    EndingSoonNotice,
    GrantedNotice,
    ReminderNotice,
    ReviewNotice,
    StateChangeNotice,
)
from bot.slack import ids
from bot.slack.render import alerts, cards, credentials, feed, lockdowns
from bot.slack.render.blocks import RenderedMessage, actions, button, quote, section
from bot.slack.render.cards import (
    APPROVERS_SHOWN,
    REASON_IN_TEXT,
    end_reason,
    level_and_database,
    receipt_text,
    sign_off_button,
)
from bot.slack.render.text import (
    TEXT_MAX,
    escape,
    local_datetime,
    mention,
    one_line,
    person_mention,
    truncate,
    utc_datetime,
)
from storage.records import Cause, RequestKind, State, Verdict


@singledispatch
def render(notice: Notice) -> RenderedMessage:
    """Render a notice. Raises NotImplementedError for a class of notices without a renderer."""
    raise NotImplementedError(type(notice).__name__)


render.register(cards.card_message)
render.register(credentials.preparing_message)
render.register(credentials.credentials_message)
render.register(credentials.closed_message)
render.register(feed.feed_message)
render.register(lockdowns.lockdown_message)
render.register(alerts.alert_message)


@render.register
def outcome_message(notice: StateChangeNotice) -> RenderedMessage:
    """Tell the requester what became of the request. **Ask again** follows if a new request can help."""
    request = notice.request
    line, quotation = _outcome_text(notice)
    blocks = [section(line), *([quote(quotation)] if quotation else [])]
    if request.state in (State.DENIED, State.LAPSED, State.OUTDATED) or request.ended_because is Cause.FAILED:
        blocks.append(
            actions(button("Ask again", ids.REQUEST_AGAIN, request.token, about=f"like request {request.id}"))
        )
    return RenderedMessage(
        text=truncate(f"{line} {one_line(quotation, REASON_IN_TEXT)}".strip(), TEXT_MAX), blocks=blocks
    )


def _outcome_text(notice: StateChangeNotice) -> tuple[str, str]:
    request, thing = notice.request, level_and_database(notice.request)
    if notice.trouble:
        return escape(notice.trouble), ""
    if request.state is State.DENIED and notice.decision:
        by = person_mention(notice.decision.person_id, notice.decision.person_name)
        return f"Your request #{request.id} for {thing} was denied by {by}.", notice.decision.reason or ""
    if request.ended_because is Cause.FAILED:
        return (
            f"Your request #{request.id} for {thing} failed. {escape(request.ended_note or '')} You can ask again.",
            "",
        )
    ended = {
        State.LAPSED: f"Your request #{request.id} for {thing} has lapsed: {escape(request.ended_note or 'nobody decided in time.')} You can ask again.",
        State.DENIED: f"Your request #{request.id} for {thing} was refused. {escape(request.ended_note or '')}",
        State.APPLIED: _applied_text(notice),
        State.CANCELLED: f"Your request #{request.id} for {thing} is withdrawn.",
        State.OUTDATED: f"Your request #{request.id} for {thing} is out of date: {escape(request.ended_note or '')} Please ask again.",
        State.REVOKED: f"Your access #{request.id} to {thing} has ended: {end_reason(request)}. {receipt_text(request)}",
    }
    return ended.get(request.state, f"Your request #{request.id} is {request.state}."), ""


def _applied_text(notice: StateChangeNotice) -> str:
    request, grant = notice.request, notice.grant
    until = f" It now ends {local_datetime(grant.expires_at)}." if grant and grant.expires_at else ""
    return f"#{request.id} was approved: your access #{request.parent_id} to {level_and_database(request)} has more time.{until} Open sessions live on."


@render.register
def review_message(notice: ReviewNotice) -> RenderedMessage:
    """Tell the reviewers that the time for their sign-off is over."""
    request = notice.request
    who = person_mention(request.requester_id, request.requester_name)
    line = f"Break-glass access #{request.id} of {who} to {level_and_database(request)} is not signed off, and its time is over."
    return RenderedMessage(
        text=truncate(line, TEXT_MAX), blocks=[section(line), quote(request.reason), actions(sign_off_button(request))]
    )


@render.register
def reminder_message(notice: ReminderNotice) -> RenderedMessage:
    """Remind the approvers in the thread of the card: who can decide, and until when."""
    request, thing = notice.request, level_and_database(notice.request)
    who = ", ".join(mention(name) for name in notice.waits_for[:APPROVERS_SHOWN] if name != request.requester_id)
    begun = "may be decided by more people now" if notice.is_escalation else "still waits"
    line = (
        f"#{request.id} {begun}: {person_mention(request.requester_id, request.requester_name)} asks for {thing}."
        f" Can decide: {who}. It lapses {local_datetime(request.lapses_at)}."
    )
    return RenderedMessage(text=truncate(line, TEXT_MAX), blocks=[section(line)])


@render.register
def ending_soon_message(notice: EndingSoonNotice) -> RenderedMessage:
    """Warn the requester before the end of the access."""
    request = notice.request
    assert request.expires_at is not None, "a live grant has its end"
    line = f"Your access #{request.id} to {level_and_database(request)} ends {local_datetime(request.expires_at)}. Open sessions end then, too."
    buttons = [button("I'm done", ids.DONE, request.token, about=f"end access {request.id} now")]
    if request.kind is not RequestKind.BREAK_GLASS:
        buttons.insert(0, button("Extend", ids.EXTEND, request.token, about=f"access {request.id}"))
    text = f"Your access #{request.id} ends {utc_datetime(request.expires_at)}."
    return RenderedMessage(text=text, blocks=[section(line), actions(*buttons)])


@render.register
def granted_message(notice: GrantedNotice) -> RenderedMessage:
    """Tell the people whom the rule notifies that somebody was given access."""
    request = notice.request
    who, lasts = (
        person_mention(request.requester_id, request.requester_name),
        format_duration(request.effective_duration),
    )
    made = [person_mention(d.person_id, d.person_name) for d in notice.decisions if d.verdict is Verdict.APPROVE]
    by = f"approved by {', '.join(made)}" if made else "approved by the policy, nobody was asked"
    line = f"#{request.id}: {who} was given {level_and_database(request)} for {lasts}, {by}. Rule: {escape(request.terms.rule)}."
    return RenderedMessage(text=truncate(line, TEXT_MAX), blocks=[section(line), quote(request.reason)])
