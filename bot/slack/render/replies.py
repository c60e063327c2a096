"""Render the replies to commands, clicks and forms. Pure. Only the person who acted sees them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from bot.access.descriptions import count, describe_state
from bot.access.errors import AccessError, Refused
from bot.access.use_case_types import RequestOutcome, StatusView
from bot.durations import format_duration
from bot.policy.catalog import CatalogEntry
from bot.policy.explain import explain_evaluation
from bot.policy.questions import Evaluation
from bot.slack import ids
from bot.slack.render.blocks import Block, RenderedMessage, actions, button, context, section
from bot.slack.render.cards import end_reason, first_stage_approvers, receipt_text
from bot.slack.render.text import TEXT_MAX, escape, local_datetime, mention, one_line, person_mention, truncate
from storage.audit_kinds import AuditKind
from storage.records import LIVE, AuditEvent, Request, RequestKind, State, Verdict

LISTED_MAX = 15
ENTRIES_MAX = 40
ENTRY_LINE_MAX = 240
ENTRIES_IN_A_SECTION = 10
NAMED_MAX = 10
TROUBLE_MAX = 500
VERDICTS = {Verdict.APPROVE: "Approved", Verdict.DENY: "Denied", Verdict.SIGN_OFF: "Signed off"}

COMMANDS = {
    "request": (
        "request [DATABASE [LEVEL] [DURATION] [REASON…]]",
        "ask for access; what you leave out is asked for in a form",
    ),
    "breakglass": (
        "breakglass DATABASE [LEVEL] [DURATION] REASON…",
        "access now, review afterwards, where a break-glass rule allows it; loud",
    ),
    "extend": ("extend ID [DURATION] [REASON…]", "ask for more time on your live grant"),
    "review": ("review ID", "sign off a break-glass grant"),
    "list": ("list [DATABASE or @user]", "waiting requests and live grants: yours, or those you may see"),
    "status": ("status ID", "one request: state, who decided, sessions seen, time left"),
    "cancel": ("cancel ID", "withdraw your waiting request"),
    "done": ("done ID", "give your grant back early"),
    "revoke": ("revoke ID", "end someone's grant: its approvers, those who could have approved it, admins"),
    "lockdown": (
        "lockdown [DATABASE or @user]",
        "end all matching grants now and refuse new ones, break-glass too (admins); without an argument, of everything",
    ),
    "unlock": (
        "unlock [DATABASE or @user]",
        "lift a lockdown that another admin set; without an argument, all of them",
    ),
    "databases": ("databases", "what you may ask for, with levels and longest durations"),
    "explain": ("explain DATABASE [LEVEL] [DURATION] [@user]", "which rule answers, and why; nothing is requested"),
    "help": ("help [COMMAND]", "this"),
}
CHANGE_TEXTS: dict[str, str] = {
    AuditKind.REQUESTED: "Your request was made (#{}).",
    AuditKind.DECIDED: "Your approval of #{} was recorded.",
    AuditKind.APPROVED: "Your approval of #{} was recorded.",
    AuditKind.APPLIED: "Your approval of #{} was recorded.",
    AuditKind.DENIED: "#{} was denied.",
    AuditKind.CANCELLED: "#{} was withdrawn.",
    AuditKind.REVOKING: "#{} is being ended.",
    AuditKind.SIGNED_OFF: "#{} was signed off.",
}
LOCKDOWN_TEXTS: dict[str, str] = {
    AuditKind.LOCKDOWN_SET: "The lockdown is in force.",
    AuditKind.LOCKDOWN_LIFTED: "The lockdown is lifted.",
}
"""The parts of the reply to an unexpected error about the person's own audit events."""
PLANNED_COMMANDS = ("pending", "report")


def text_reply(text: str) -> RenderedMessage:
    """Reply with a plain text, escaped."""
    return RenderedMessage(text=truncate(escape(text), TEXT_MAX), blocks=[section(escape(text))])


def unexpected_error_text(reference: str, person_id: str, changes: Sequence[AuditEvent] | None) -> str:
    """Return the reply to an unexpected error: its reference, and the changes that are certain.

    ``changes`` are the audit events since the interaction began, or None if they are unknown. Events of other actors than
    ``person_id`` are not mentioned. "Nothing was changed" appears only if there is no event at all.
    """
    start = f"Something went wrong. Reference {reference}."
    if changes is None:
        return start
    own = [event for event in changes if event.actor == person_id]
    certain = [LOCKDOWN_TEXTS[e.kind] for e in own if e.kind in LOCKDOWN_TEXTS]
    of_requests = [event for event in own if event.request_id is not None]
    certain += [
        CHANGE_TEXTS.get(e.kind, "What you did to #{} was recorded.").format(e.request_id)
        for e in of_requests[:NAMED_MAX]
    ]
    if len(of_requests) > NAMED_MAX:
        certain.append(f"And {len(of_requests) - NAMED_MAX} more.")
    return " ".join([start, *certain] if changes else [start, "Nothing was changed."])


def refusal(error: AccessError) -> RenderedMessage:
    """Reply with the refusal, and with the people who can answer questions about it."""
    whom = error.whom if isinstance(error, Refused) else ()
    questions = f" Questions: {', '.join(mention(who) for who in whom)}." if whom else ""
    return _mrkdwn_reply(f"{escape(str(error))}{questions}")


def _mrkdwn_reply(text: str, *more: Block) -> RenderedMessage:
    return RenderedMessage(text=truncate(text, TEXT_MAX), blocks=[section(text), *more])


def request_reply(outcome: RequestOutcome) -> RenderedMessage:
    """Reply to a new request: who can decide it, and until when it waits."""
    request = outcome.request
    if request.kind is RequestKind.BREAK_GLASS and request.state is State.PENDING:
        return text_reply(
            f"Break-glass access is being prepared: #{request.id}. As soon as one of your reviewers is notified, the credentials come in a message of their own."
        )
    if request.state is State.APPLIED:
        return text_reply(f"#{request.id} was approved by the policy: #{request.parent_id} has more time.")
    if request.state in LIVE:
        again = "" if outcome.is_new else "You asked for this a moment ago. "
        return text_reply(
            f"{again}Request #{request.id} was approved by the policy. The credentials come in a message of their own."
        )
    if request.state is not State.PENDING:
        return text_reply(describe_state(request, ()))
    cancel = actions(button("Cancel", ids.CANCEL, request.token, about=f"request {request.id}"))
    if outcome.not_yet is not None:
        return _mrkdwn_reply(
            escape(f"Your request was made (#{request.id}). It is not granted yet: {outcome.not_yet}"), cancel
        )
    who = [mention(one) for one in first_stage_approvers(request)]
    more = f" and {len(who) - NAMED_MAX} more" if len(who) > NAMED_MAX else ""
    waiting = "is waiting" if outcome.is_new else "is waiting already: I did not ask again. It waits"
    text = (
        f"Request #{request.id} {waiting} for {', '.join(who[:NAMED_MAX])}{more}."
        f" I will tell you when it is decided; it lapses {local_datetime(request.lapses_at)}."
    )
    return _mrkdwn_reply(text, cancel)


def list_reply(requests: Sequence[Request], person_id: str) -> RenderedMessage:
    """List waiting requests and live grants. Requests of ``person_id`` have their buttons."""
    if not requests:
        return text_reply("There is nothing waiting and nothing live.")
    blocks: list[Block] = []
    for request in requests[:LISTED_MAX]:
        blocks.append(section(_list_line(request)))
        if request.requester_id == person_id and (own_button := _own_button(request)):
            blocks.append(actions(own_button))
    if len(requests) > LISTED_MAX:
        blocks.append(context(f"and {len(requests) - LISTED_MAX} more; name a database to see fewer"))
    return RenderedMessage(text=truncate("\n".join(_list_line(r) for r in requests), TEXT_MAX), blocks=blocks)


def _own_button(request: Request) -> Block | None:
    if request.state is State.PENDING:
        return button("Cancel", ids.CANCEL, request.token, about=f"request {request.id}")
    if request.state in (State.APPROVED, State.ACTIVE):
        return button("I'm done", ids.DONE, request.token, about=f"end access {request.id}")
    return None


def _list_line(request: Request) -> str:
    who = person_mention(request.requester_id, request.requester_name)
    return f"*#{request.id}* {escape(request.level)} on {escape(request.database)} — {who}: {_state_text(request)}"


def _state_text(request: Request) -> str:
    if request.state is State.PENDING:
        return f"waiting, lapses {local_datetime(request.lapses_at)}"
    if request.state is State.ACTIVE and request.expires_at:
        return f"live until {local_datetime(request.expires_at)}"
    return {State.APPROVED: "approved, being prepared", State.REVOKING: "ending"}.get(
        request.state, request.state.value
    )


def status_reply(view: StatusView, now: datetime) -> RenderedMessage:
    """Show one request with its decisions, and its open sessions if the server answered."""
    request = view.request
    who, lasts = (
        person_mention(request.requester_id, request.requester_name),
        format_duration(request.effective_duration),
    )
    parts = [
        f"*#{request.id}* {escape(request.level)} on {escape(request.database)} for {lasts} — {who}: *{_state_text(request)}*",
        f"Why: {one_line(request.reason, 500)}",
        *(
            f"{VERDICTS[d.verdict]} by {person_mention(d.person_id, d.person_name)} {local_datetime(d.at)}"
            for d in view.decisions
        ),
    ]
    if request.state is State.ACTIVE and request.expires_at:
        seen = (
            "sessions not known: the server did not answer"
            if view.sessions is None
            else f"{count(view.sessions, 'session')} open"
        )
        parts.append(
            f"{format_duration(max(request.expires_at - now, request.expires_at - request.expires_at))} left, {seen}; user `{escape(request.username or '')}`"
        )
    if request.ended_because:
        parts.append(f"Ended: {end_reason(request)}. {receipt_text(request)}")
    if view.trouble:
        parts.append(f"Not ended yet: {one_line(view.trouble, TROUBLE_MAX)}")
    return _mrkdwn_reply(
        "\n".join(parts),
        context(f"{count(len(view.events), 'event')} in the audit trail; rule: {escape(request.terms.rule)}"),
    )


def databases_reply(catalog_entries: Sequence[CatalogEntry]) -> RenderedMessage:
    """List the databases and levels that the person may request."""
    if not catalog_entries:
        return text_reply(
            "There is nothing you may ask for. The policy names nobody else to ask; talk to your administrators."
        )
    lines = [_entry_line(entry) for entry in catalog_entries[:ENTRIES_MAX]]
    parts = [lines[i : i + ENTRIES_IN_A_SECTION] for i in range(0, len(lines), ENTRIES_IN_A_SECTION)]
    blocks = [section("\n".join(part)) for part in parts]
    if len(catalog_entries) > ENTRIES_MAX:
        blocks.append(context(f"and {len(catalog_entries) - ENTRIES_MAX} more: `/dbaccess request` lists them all"))
    return RenderedMessage(text=truncate("\n".join(lines), TEXT_MAX), blocks=blocks)


def _entry_line(entry: CatalogEntry) -> str:
    means = f": {one_line(entry.level_description, ENTRY_LINE_MAX)}" if entry.level_description else ""
    lasts = format_duration(entry.max_duration)
    return truncate(f"*{escape(entry.database)}* {escape(entry.level)} — up to {lasts}{means}", ENTRY_LINE_MAX)


def explain_reply(evaluation: Evaluation) -> RenderedMessage:
    """Show which rule applies, and why."""
    return text_reply("\n".join(explain_evaluation(evaluation)))


def help_reply(command: str | None) -> RenderedMessage:
    """Show the usage of all commands, or of one."""
    if command in PLANNED_COMMANDS:
        return text_reply(f"{command} comes with a later version.")
    found = {command: COMMANDS[command]} if command in COMMANDS else COMMANDS
    lines = [f"`/dbaccess {usage}` {does}" for usage, does in found.values()]
    return _mrkdwn_reply(
        "\n".join(lines), context("Durations look like 30m, 2h or 1h30m. Nobody approves their own request.")
    )


def end_reply(request: Request) -> RenderedMessage:
    """Reply to the person who ended a grant."""
    return text_reply(f"#{request.id} is being ended. The receipt follows once the server has been read back.")
