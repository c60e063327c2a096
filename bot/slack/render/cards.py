"""Render the approval card in every state of its request. Pure. All text of people is escaped or quoted."""

from __future__ import annotations

from adapters.base import Enforced
from bot.access.descriptions import END_REASONS, describe_notes, describe_receipt
from bot.durations import format_duration
from bot.notifications.notices import (
    CardNotice,
)
from bot.slack import ids
from bot.slack.render.blocks import (
    Block,
    RenderedMessage,
    actions,
    button,
    context,
    header,
    quote,
    section,
    with_confirmation,
)
from bot.slack.render.text import (
    TEXT_MAX,
    escape,
    link,
    local_datetime,
    local_time,
    mention,
    one_line,
    person_mention,
    truncate,
    utc_datetime,
)
from storage.records import Cause, Decision, Request, RequestKind, State, Verdict

REASON_IN_TEXT = 300
APPROVERS_SHOWN = 20
TITLES = {
    RequestKind.ACCESS: "Access request",
    RequestKind.BREAK_GLASS: "Break-glass access",
    RequestKind.EXTENSION: "More time",
}
APPROVALS_SHOWN = 9
WARNINGS_SHOWN, WARNING_MAX = 2, 250
RECEIPT_MAX, NOTES_MAX = 1300, 1200
"""Characters of a receipt and of its notes: together with the rest of the section, fewer than Slack takes."""
STAGE_NAMES_SHOWN = 5


def level_and_database(request: Request) -> str:
    """``*readonly* on *orders-prod*``, escaped."""
    return f"*{escape(request.level)}* on *{escape(request.database)}*"


def card_message(notice: CardNotice) -> RenderedMessage:
    """Render the approval card for the current state of the request."""
    request = notice.request
    blocks = [header(f"{TITLES[request.kind]} #{request.id}"), section(_headline(notice)), quote(request.reason)]
    blocks += _terms_blocks(notice) if request.state in (State.PENDING, State.APPROVED, State.ACTIVE) else []
    blocks += _outcome_blocks(notice)
    blocks += _warning_blocks(notice) + _button_blocks(request)
    return RenderedMessage(text=_card_text(notice), blocks=blocks)


def _headline(notice: CardNotice) -> str:
    request, who = notice.request, person_mention(notice.request.requester_id, notice.request.requester_name)
    lasts = format_duration(request.effective_duration)
    if request.kind is RequestKind.EXTENSION:
        return _extension_headline(notice, who, lasts)
    if request.state is State.ACTIVE and request.expires_at:
        return f"{who} has {level_and_database(request)} until {local_datetime(request.expires_at)}."
    if request.state is State.APPROVED:
        return f"{who} gets {level_and_database(request)} for {lasts}; it is being prepared."
    return (
        f"{who} asks for {level_and_database(request)} for {lasts}."
        if request.state is State.PENDING
        else f"{who} asked for {level_and_database(request)} for {lasts}."
    )


def _extension_headline(notice: CardNotice, who: str, lasts: str) -> str:
    request, grant = notice.request, notice.grant
    ends = (
        f", ends {local_datetime(grant.expires_at)}"
        if grant and grant.expires_at and grant.state is State.ACTIVE
        else ""
    )
    asks = "asks" if request.state is State.PENDING else "asked"
    return f"{who} {asks} for {lasts} more of {level_and_database(request)} (#{request.parent_id}{ends})."


def _terms_blocks(notice: CardNotice) -> list[Block]:
    request = notice.request
    about = [escape(notice.reaches), enforcement_text(notice)]
    rule = [f"Rule: {escape(request.terms.rule)}"]
    if request.state is State.PENDING:
        rule += [f"Can decide: {_approver_mentions(notice)}", f"Lapses {local_datetime(request.lapses_at)}"]
    if request.ticket:
        shown = link(notice.ticket_url, request.ticket) if notice.ticket_url else escape(request.ticket)
        rule.append(f"Ticket: {shown}")
    return [context(" · ".join(part for part in about if part)), context(" · ".join(rule))]


def _warning_blocks(notice: CardNotice) -> list[Block]:
    """What may outlive the grant, right above the buttons. Only while somebody may still decide or end it."""
    if notice.request.state not in (State.PENDING, State.APPROVED, State.ACTIVE) or not notice.warnings:
        return []
    return [context(*(f"⚠ {one_line(warning, WARNING_MAX)}" for warning in notice.warnings[:WARNINGS_SHOWN]))]


def enforcement_text(notice: CardNotice) -> str:
    """Say what the database server enforces at the end, and what only dbaccess enforces."""
    lasts = format_duration(notice.request.effective_duration)
    return {
        Enforced.LOGIN.value: f"After {lasts} {notice.engine} refuses the login by itself; dbaccess ends open sessions.",
        Enforced.SESSIONS.value: f"After {lasts} {notice.engine} ends login and sessions by itself, also without dbaccess.",
    }.get(
        notice.enforced, f"After {lasts} dbaccess ends login and sessions; {notice.engine} does not end them by itself."
    )


def first_stage_approvers(request: Request) -> list[str]:
    """Return the approvers of the first stage without the requester, who never decides."""
    stages = request.terms.stages[:1]
    return list(dict.fromkeys(who for s in stages for who in s.approvers if who != request.requester_id))


def _approver_mentions(notice: CardNotice) -> str:
    people = [who for who in notice.waits_for if who != notice.request.requester_id] or first_stage_approvers(
        notice.request
    )
    more = f" and {len(people) - APPROVERS_SHOWN} more" if len(people) > APPROVERS_SHOWN else ""
    return ", ".join(mention(who) for who in people[:APPROVERS_SHOWN]) + more


def _stage_lines(notice: CardNotice) -> list[str]:
    """One line for each stage: who approved it, and how many approvals it still needs."""
    return [_stage_line(notice, number) for number in range(len(notice.request.terms.stages))]


def _stage_line(notice: CardNotice, number: int) -> str:
    stage = notice.request.terms.stages[number]
    who = ", ".join(mention(name) for name in stage.approvers[:STAGE_NAMES_SHOWN])
    made = [d for d in notice.decisions if d.verdict is Verdict.APPROVE and d.stage == number]
    by = ", ".join(
        f"{person_mention(d.person_id, d.person_name)} {local_datetime(d.at)}" for d in made[:STAGE_NAMES_SHOWN]
    )
    by += f" and {len(made) - STAGE_NAMES_SHOWN} more" if len(made) > STAGE_NAMES_SHOWN else ""
    missing = stage.count - len(made)
    if missing > 0:
        return f"· {who} — {by + '; ' if by else ''}waiting for {missing}"
    return f"✓ {who} — {by}"


def _outcome_blocks(notice: CardNotice) -> list[Block]:
    request = notice.request
    if request.state is State.PENDING and len(request.terms.stages) > 1:
        return [context(line) for line in _stage_lines(notice)[:APPROVALS_SHOWN]]
    lines = [
        f"✓ approved by {person_mention(d.person_id, d.person_name)} {local_datetime(d.at)}"
        for d in notice.decisions
        if d.verdict is Verdict.APPROVE
    ]
    if request.kind is RequestKind.BREAK_GLASS:
        lines.append(_review_line(notice))
    elif request.state is State.PENDING:
        stages = request.terms.stages
        made, needed = len(lines), sum(stage.count for stage in stages)
        return [context(*lines[:APPROVALS_SHOWN], f"waiting for {needed - made} of {needed}")]
    ended, quoted = _end_text(request, notice.decisions)
    blocks: list[Block] = [context(*lines[:APPROVALS_SHOWN])] if lines else []
    blocks += [section(ended)] if ended else []
    return blocks + ([quote(quoted)] if quoted else [])


def _review_line(notice: CardNotice) -> str:
    signed = next((d for d in notice.decisions if d.verdict is Verdict.SIGN_OFF), None)
    if signed is not None:
        return f"✓ signed off by {person_mention(signed.person_id, signed.person_name)} {local_datetime(signed.at)}"
    review = notice.request.terms.review
    who = ", ".join(mention(name) for name in review.reviewers[:STAGE_NAMES_SHOWN]) if review else "-"
    return f"Access first, review after: {who} must sign it off"


def _end_text(request: Request, decisions: tuple[Decision, ...]) -> tuple[str, str]:
    """Return how the request ended, and the reason that somebody gave for it."""
    at = local_datetime(request.ended_at) if request.ended_at else ""
    denied = next((d for d in decisions if d.verdict is Verdict.DENY), None)
    if denied is not None:
        return (
            f"*Denied* {local_datetime(denied.at)} by {person_mention(denied.person_id, denied.person_name)}",
            denied.reason or "",
        )
    simple = {
        State.APPLIED: f"*Applied* {at}: #{request.parent_id} has {format_duration(request.effective_duration)} more",
        State.DENIED: f"*Refused* {at}: {escape(request.ended_note or '')}",
        State.CANCELLED: f"*Withdrawn* {at} by {person_mention(request.requester_id, request.requester_name)}",
        State.LAPSED: f"*Lapsed* {at}: {escape(request.ended_note or 'nobody decided in time')}",
        State.OUTDATED: f"*Out of date* {at}: {escape(request.ended_note or '')}",
        State.REVOKING: f"*Ending*: {end_reason(request)}. The login is being blocked and sessions ended.",
    }
    if request.state is State.REVOKED:
        failed = request.ended_because is Cause.FAILED
        note = request.ended_note if failed else ""
        return f"*{'Failed' if failed else 'Ended'}* {at}: {end_reason(request)}. {receipt_text(request)}", note or ""
    return simple.get(request.state, ""), ""


def end_reason(request: Request) -> str:
    """Say why the grant ended and who ended it, escaped."""
    because = END_REASONS.get(request.ended_because, "ended") if request.ended_because else "ended"
    by_a_person = request.ended_because in (Cause.DONE, Cause.REVOKED, Cause.GONE)
    return f"{because} by {person_mention(request.ended_by)}" if by_a_person and request.ended_by else because


def receipt_text(request: Request) -> str:
    """Describe the receipt and the time at which the server was read back. Empty without a receipt."""
    if not request.receipt:
        return ""
    at, notes = request.receipt.read_back_at, describe_notes(request.receipt)
    proof = f" · verified {local_time(at)}." if at else "."
    line = truncate(escape(describe_receipt(request.receipt)), RECEIPT_MAX) + proof
    return f"{line} {truncate(escape(notes), NOTES_MAX)}" if notes else line


def _button_blocks(request: Request) -> list[Block]:
    about = f"request {request.id}"
    if request.state is State.PENDING and request.kind is RequestKind.BREAK_GLASS:
        return []  # nobody approves it: it waits until a reviewer was notified
    if request.state is State.PENDING:
        approve = button("Approve", ids.APPROVE, request.token, style="primary", about=about)
        approve_with_dialog = with_confirmation(
            approve,
            f"Approve #{request.id}?",
            f"{request.requester_name} gets {request.level} on {request.database} for {format_duration(request.terms.duration)}.",
            "Approve",
        )
        return [actions(approve_with_dialog, button("Deny", ids.DENY, request.token, style="danger", about=about))]
    buttons = [sign_off_button(request)] if request.needs_review else []
    if request.state in (State.APPROVED, State.ACTIVE):
        buttons.append(revoke_button(request))
    return [actions(*buttons)] if buttons else []


def _card_text(notice: CardNotice) -> str:
    """All facts of the card in one line, for notifications and screen readers."""
    request = notice.request
    who, thing = (
        person_mention(request.requester_id, request.requester_name),
        f"{escape(request.level)} on {escape(request.database)}",
    )
    lasts, why = format_duration(request.effective_duration), one_line(request.reason, REASON_IN_TEXT)
    if request.state is State.PENDING:
        return truncate(
            f"#{request.id}: {who} asks for {thing} for {lasts}: {why} Can decide: {_approver_mentions(notice)}",
            TEXT_MAX,
        )
    until = f" until {utc_datetime(request.expires_at)}" if request.state is State.ACTIVE and request.expires_at else ""
    return truncate(
        f"#{request.id} is {request.state}: {who}, {thing}{until}. {_end_text(request, notice.decisions)[0]}", TEXT_MAX
    )


def revoke_button(request: Request) -> Block:
    revoke = button("Revoke", ids.REVOKE, request.token, style="danger", about=f"request {request.id}")
    return with_confirmation(
        revoke, f"Revoke #{request.id}?", "The user is removed and its sessions end at once.", "Revoke"
    )


def sign_off_button(request: Request) -> Block:
    return button("Sign off", ids.SIGN_OFF, request.token, style="primary", about=f"break-glass access {request.id}")
