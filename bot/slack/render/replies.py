"""Answers to commands, seen by one person alone. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from bot.access.descriptions import count, describe_state
from bot.access.errors import AccessError, Refused
from bot.access.use_case_types import RequestOutcome, StatusView
from bot.durations import format_duration
from bot.policy.asking import Answer
from bot.policy.catalog import CatalogEntry
from bot.policy.wording import explained
from bot.slack import ids
from bot.slack.render.blocks import Block, RenderedMessage, actions, button, context, section
from bot.slack.render.cards import approvers, ended_by, receipt_line
from bot.slack.render.text import TEXT_MAX, cut, escape, moment, named, one_line, person
from storage.audit_log import AuditKind
from storage.records import LIVE, AuditEvent, Request, RequestKind, State, Verdict

LISTED_MAX = 15
ENTRIES_MAX = 40
OFFER_LINE_MAX = 240
ENTRIES_IN_A_SECTION = 10
NAMED_MAX = 10
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
    "databases": ("databases", "what you may ask for, with levels and longest durations"),
    "explain": ("explain DATABASE [LEVEL] [DURATION] [@user]", "which rule answers, and why; nothing is requested"),
    "help": ("help [COMMAND]", "this"),
}
CHANGED: dict[str, str] = {
    AuditKind.REQUESTED: "Your request was made (#{}).",
    AuditKind.DECIDED: "Your approval of #{} was recorded.",
    AuditKind.APPROVED: "Your approval of #{} was recorded.",
    AuditKind.APPLIED: "Your approval of #{} was recorded.",
    AuditKind.DENIED: "#{} was denied.",
    AuditKind.CANCELLED: "#{} was withdrawn.",
    AuditKind.REVOKING: "#{} is being ended.",
    AuditKind.SIGNED_OFF: "#{} was signed off.",
}
"""What an event of one's own says to oneself."""
LATER = ("pending", "report", "lockdown", "unlock")


def said(text: str) -> RenderedMessage:
    """Plain words, escaped."""
    return RenderedMessage(text=cut(escape(text), TEXT_MAX), blocks=[section(escape(text))])


def in_trouble(reference: str, mine: str, changes: Sequence[AuditEvent] | None) -> str:
    """Something nobody foresaw: its reference, and what is certain. ``changes`` is None where nothing is.

    What somebody else may have changed (``mine`` is not its actor) is not said, and neither is that nothing was changed.
    """
    begin = f"Something went wrong. Reference {reference}."
    if changes is None:
        return begin
    own = [event for event in changes if event.actor == mine and event.request_id is not None]
    certain = [CHANGED.get(e.kind, "What you did to #{} was recorded.").format(e.request_id) for e in own]
    return " ".join([begin, *certain] if changes else [begin, "Nothing was changed."])


def refused(no: AccessError) -> RenderedMessage:
    """The sentence, and who can be asked about it."""
    whom = no.whom if isinstance(no, Refused) else ()
    questions = f" Questions: {', '.join(named(who) for who in whom)}." if whom else ""
    return _written(f"{escape(str(no))}{questions}")


def _written(text: str, *more: Block) -> RenderedMessage:
    return RenderedMessage(text=cut(text, TEXT_MAX), blocks=[section(text), *more])


def asked(answer: RequestOutcome) -> RenderedMessage:
    """Who is asked, and until when."""
    request = answer.request
    if request.kind is RequestKind.BREAK_GLASS and request.state is State.PENDING:
        return said(
            f"Break-glass access is being prepared: #{request.id}. As soon as one of your reviewers is notified, the credentials come in a message of their own."
        )
    if request.state is State.APPLIED:
        return said(f"#{request.id} was approved by the policy: #{request.parent_id} has more time.")
    if request.state in LIVE:
        return said(
            f"Request #{request.id} was approved by the policy. The credentials come in a message of their own."
        )
    if request.state is not State.PENDING:
        return said(describe_state(request, ()))
    cancel = actions(button("Cancel", ids.CANCEL, request.token, about=f"request {request.id}"))
    if answer.not_yet is not None:
        return _written(
            escape(f"Your request was made (#{request.id}). It is not granted yet: {answer.not_yet}"), cancel
        )
    who = [named(one) for one in approvers(request)]
    more = f" and {len(who) - NAMED_MAX} more" if len(who) > NAMED_MAX else ""
    waiting = "is waiting" if answer.is_new else "is waiting already: I did not ask again. It waits"
    text = (
        f"Request #{request.id} {waiting} for {', '.join(who[:NAMED_MAX])}{more}."
        f" I will tell you when it is decided; it lapses {moment(request.lapses_at)}."
    )
    return _written(text, cancel)


def listed(requests: Sequence[Request], mine: str) -> RenderedMessage:
    """Waiting requests and live grants, with the buttons of their requester."""
    if not requests:
        return said("There is nothing waiting and nothing live.")
    blocks: list[Block] = []
    for request in requests[:LISTED_MAX]:
        blocks.append(section(_listed_line(request)))
        if request.requester_id == mine and (offered := _own_button(request)):
            blocks.append(actions(offered))
    if len(requests) > LISTED_MAX:
        blocks.append(context(f"and {len(requests) - LISTED_MAX} more; name a database to see fewer"))
    return RenderedMessage(text=cut("\n".join(_listed_line(r) for r in requests), TEXT_MAX), blocks=blocks)


def _own_button(request: Request) -> Block | None:
    if request.state is State.PENDING:
        return button("Cancel", ids.CANCEL, request.token, about=f"request {request.id}")
    if request.state in (State.APPROVED, State.ACTIVE):
        return button("I'm done", ids.DONE, request.token, about=f"end access {request.id}")
    return None


def _listed_line(request: Request) -> str:
    who = person(request.requester_id, request.requester_name)
    return f"*#{request.id}* {escape(request.level)} on {escape(request.database)} — {who}: {_state_words(request)}"


def _state_words(request: Request) -> str:
    if request.state is State.PENDING:
        return f"waiting, lapses {moment(request.lapses_at)}"
    if request.state is State.ACTIVE and request.expires_at:
        return f"live until {moment(request.expires_at)}"
    return {State.APPROVED: "approved, being prepared", State.REVOKING: "ending"}.get(
        request.state, request.state.value
    )


def status(view: StatusView, now: datetime) -> RenderedMessage:
    """One request, with what the server knows of it."""
    request = view.request
    who, lasts = (
        person(request.requester_id, request.requester_name),
        format_duration(request.effective_duration),
    )
    parts = [
        f"*#{request.id}* {escape(request.level)} on {escape(request.database)} for {lasts} — {who}: *{_state_words(request)}*",
        f"Why: {one_line(request.reason, 500)}",
        *(f"{VERDICTS[d.verdict]} by {person(d.person_id, d.person_name)} {moment(d.at)}" for d in view.decisions),
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
        parts.append(f"Ended: {ended_by(request)}. {receipt_line(request)}")
    return _written(
        "\n".join(parts),
        context(f"{count(len(view.events), 'event')} in the audit trail; rule: {escape(request.terms.rule)}"),
    )


def databases(catalog_entries: Sequence[CatalogEntry]) -> RenderedMessage:
    """What one may ask for."""
    if not catalog_entries:
        return said(
            "There is nothing you may ask for. The policy names nobody else to ask; talk to your administrators."
        )
    lines = [_entry_line(entry) for entry in catalog_entries[:ENTRIES_MAX]]
    parts = [lines[i : i + ENTRIES_IN_A_SECTION] for i in range(0, len(lines), ENTRIES_IN_A_SECTION)]
    blocks = [section("\n".join(part)) for part in parts]
    if len(catalog_entries) > ENTRIES_MAX:
        blocks.append(context(f"and {len(catalog_entries) - ENTRIES_MAX} more: `/dbaccess request` lists them all"))
    return RenderedMessage(text=cut("\n".join(lines), TEXT_MAX), blocks=blocks)


def _entry_line(entry: CatalogEntry) -> str:
    means = f": {one_line(entry.level_description, OFFER_LINE_MAX)}" if entry.level_description else ""
    lasts = format_duration(entry.max_duration)
    return cut(f"*{escape(entry.database)}* {escape(entry.level)} — up to {lasts}{means}", OFFER_LINE_MAX)


def explanation(answer: Answer) -> RenderedMessage:
    """The answer and the path to it."""
    return said("\n".join(explained(answer)))


def help_for(command: str | None) -> RenderedMessage:
    """All commands, or one."""
    if command in LATER:
        return said(f"{command} comes with a later version.")
    found = {command: COMMANDS[command]} if command in COMMANDS else COMMANDS
    lines = [f"`/dbaccess {usage}` {does}" for usage, does in found.values()]
    return _written(
        "\n".join(lines), context("Durations look like 30m, 2h or 1h30m. Nobody approves their own request.")
    )


def ended(request: Request) -> RenderedMessage:
    """Said to whoever ended a grant."""
    return said(f"#{request.id} is being ended. The receipt follows once the server has been read back.")
