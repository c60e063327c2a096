"""The credential message through its life: being prepared, filled, closed. Its ``text`` never holds the password. Pure."""

from __future__ import annotations

from bot.access.descriptions import END_REASONS, count, describe_receipt
from bot.access.use_case_types import ShownPassword
from bot.durations import format_duration
from bot.notifications.notices import ClosedNotice, CredentialsNotice, PreparingNotice
from bot.slack import ids
from bot.slack.render.blocks import Block, RenderedMessage, actions, button, context, fields, preformatted, section
from bot.slack.render.text import TEXT_MAX, code, cut, escape, in_words, moment, second
from storage.records import Request, RequestKind, State


def preparing(notice: PreparingNotice) -> RenderedMessage:
    """Posted before there is a user: it proves that the credentials can be delivered."""
    line = f"Your access to {escape(notice.request.database)} is being prepared (#{notice.request.id})."
    if notice.trouble:
        line = f"{line} {escape(notice.trouble)}"
    return RenderedMessage(text=cut(line, TEXT_MAX), blocks=[section(line)])


def filled(notice: CredentialsNotice) -> RenderedMessage:
    """The only thing drawn that holds a secret."""
    request, endpoint = notice.request, notice.endpoint
    assert request.expires_at is not None, "written at START"
    assert request.username is not None, "frozen at the approval"
    ends = moment(request.expires_at)
    fresh = (
        button("New password", ids.NEW_PASSWORD, request.token, about=f"for access {request.id}")
        if notice.password
        else button("Show password", ids.SHOW_PASSWORD, request.token, about=f"of access {request.id}")
    )
    extend = button("Extend", ids.EXTEND, request.token, about=f"access {request.id}")
    can = escape(str(request.terms.level.get("description") or request.level))
    note = f"{escape(endpoint.note)}. " if endpoint.note else ""
    where = "The credentials are in this message." if notice.password else "Its password is shown on demand."
    return RenderedMessage(
        text=f"Your access to {escape(request.database)} is ready (#{request.id}). It ends {in_words(request.expires_at)}. {where}",
        blocks=[
            section(f"Your access to *{escape(request.database)}* is ready (#{request.id}). It ends {ends}."),
            *_login(notice, ends),
            *_claim(request),
            context(f"{note}You can: {can}. Everything you do is attributed to you."),
            actions(
                *([extend] if request.kind is not RequestKind.BREAK_GLASS else []),
                button("I'm done", ids.DONE, request.token, about=f"end access {request.id} now"),
                fresh,
            ),
        ],
    )


def _login(notice: CredentialsNotice, ends: str) -> list[Block]:
    """The fields, and the command where the password is in it."""
    request, endpoint = notice.request, notice.endpoint
    username, password = request.username or "", notice.password
    shown = {
        "Host": code(endpoint.host),
        "Port": code(str(endpoint.port)),
        "Database": code(endpoint.database),
        "Username": code(username),
        **({"Password": code(password)} if password else {}),
        "Expires": ends,
    }
    found = [fields(*(f"*{name}*\n{value}" for name, value in shown.items()))]
    return [*found, preformatted(endpoint.paste(username, password))] if password else found


def _claim(request: Request) -> list[Block]:
    if request.terms.claim_within is None or request.claimed_at is not None:
        return []
    return [context(f"It ends in {format_duration(request.terms.claim_within)} if nobody has the password shown.")]


def shown_password(shown: ShownPassword) -> list[Block]:
    """For the modal of the requester alone: the password and the command, once."""
    request, endpoint = shown.request, shown.endpoint
    line = (
        f"Access #{request.id} to *{escape(request.database)}*. An earlier password has ended; open sessions live on."
    )
    return [
        section(line),
        section(f"*Password*\n{code(shown.password)}"),
        preformatted(endpoint.paste(request.username or "", shown.password)),
        context(f"Shown {count(shown.times, 'time')}; each is on the record. It is gone when you close this."),
    ]


def closed(notice: ClosedNotice) -> RenderedMessage:
    """The password is gone from the message; when the server was read back the receipt comes."""
    request = notice.request
    line = _closing(request)
    blocks = [section(line)]
    if request.state is State.REVOKED:
        blocks.append(actions(button("Ask again", ids.REQUEST_AGAIN, request.token, about=f"like access {request.id}")))
    return RenderedMessage(text=cut(line, TEXT_MAX), blocks=blocks)


def _closing(request: Request) -> str:
    because = END_REASONS.get(request.ended_because, "ended") if request.ended_because else "ended"
    if request.state is not State.REVOKED or not request.receipt:
        return f"Your access to {escape(request.database)} is ending (#{request.id}): {because}."
    at = request.receipt.read_back_at
    ended = f" {moment(request.ended_at)}" if request.ended_at else ""
    proof = f" Read back from the server at {second(at)}." if at else ""
    words = escape(describe_receipt(request.receipt))
    return f"Your access to {escape(request.database)} ended{ended} (#{request.id}): {because}. {words}{proof}"
