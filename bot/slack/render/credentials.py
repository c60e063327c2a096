"""Render the credential message: being prepared, with the credentials, and after the end. Pure. ``text`` never has the password."""

from __future__ import annotations

from bot.access.descriptions import END_REASONS, count
from bot.access.use_case_types import ShownPassword
from bot.durations import format_duration
from bot.notifications.notices import ClosedNotice, CredentialsNotice, PreparingNotice
from bot.slack import ids
from bot.slack.render.blocks import Block, RenderedMessage, actions, button, context, fields, preformatted, section
from bot.slack.render.cards import receipt_text
from bot.slack.render.text import TEXT_MAX, escape, inline_code, local_datetime, truncate, utc_datetime
from storage.records import Request, RequestKind, State


def preparing_message(notice: PreparingNotice) -> RenderedMessage:
    """Render the message before the user is created. Posting it proves that the credentials can be delivered."""
    line = f"Your access to {escape(notice.request.database)} is being prepared (#{notice.request.id})."
    if notice.trouble:
        line = f"{line} {escape(notice.trouble)}"
    return RenderedMessage(text=truncate(line, TEXT_MAX), blocks=[section(line)])


def credentials_message(notice: CredentialsNotice) -> RenderedMessage:
    """Render the credentials. With delivery ``dm`` this is the only message with a password."""
    request, endpoint = notice.request, notice.endpoint
    assert request.expires_at is not None, "written at START"
    assert request.username is not None, "frozen at the approval"
    ends = local_datetime(request.expires_at)
    password_button = (
        button("New password", ids.NEW_PASSWORD, request.token, about=f"for access {request.id}")
        if notice.password
        else button("Show password", ids.SHOW_PASSWORD, request.token, about=f"of access {request.id}")
    )
    extend = button("Extend", ids.EXTEND, request.token, about=f"access {request.id}")
    permissions = escape(str(request.terms.level.get("description") or request.level))
    note = f"{escape(endpoint.note)}. " if endpoint.note else ""
    where = "The credentials are in this message." if notice.password else "Its password is shown on demand."
    return RenderedMessage(
        text=f"Your access to {escape(request.database)} is ready (#{request.id}). It ends {utc_datetime(request.expires_at)}. {where}",
        blocks=[
            section(f"Your access to *{escape(request.database)}* is ready (#{request.id}). It ends {ends}."),
            *_login_blocks(notice, ends),
            *_claim_blocks(request),
            context(f"{note}You can: {permissions}. Everything you do is attributed to you."),
            actions(
                *([extend] if request.kind is not RequestKind.BREAK_GLASS else []),
                button("I'm done", ids.DONE, request.token, about=f"end access {request.id} now"),
                password_button,
            ),
        ],
    )


def _login_blocks(notice: CredentialsNotice, ends: str) -> list[Block]:
    """The fields, and the command to paste if the password is shown."""
    request, endpoint = notice.request, notice.endpoint
    username, password = request.username or "", notice.password
    shown = {
        "Host": inline_code(endpoint.host),
        "Port": inline_code(str(endpoint.port)),
        "Database": inline_code(endpoint.database),
        "Username": inline_code(username),
        **({"Password": inline_code(password)} if password else {}),
        "Expires": ends,
    }
    found = [fields(*(f"*{name}*\n{value}" for name, value in shown.items()))]
    return [*found, preformatted(endpoint.paste(username, password))] if password else found


def _claim_blocks(request: Request) -> list[Block]:
    if request.terms.claim_within is None or request.claimed_at is not None:
        return []
    return [context(f"It ends in {format_duration(request.terms.claim_within)} if nobody has the password shown.")]


def password_blocks(shown: ShownPassword) -> list[Block]:
    """Blocks of the form that shows a fresh password and the command to the requester, once."""
    request, endpoint = shown.request, shown.endpoint
    line = (
        f"Access #{request.id} to *{escape(request.database)}*. An earlier password has ended; open sessions live on."
    )
    return [
        section(line),
        section(f"*Password*\n{inline_code(shown.password)}"),
        preformatted(endpoint.paste(request.username or "", shown.password)),
        context(f"Shown {count(shown.times, 'time')}; each is on the record. It is gone when you close this."),
    ]


def closed_message(notice: ClosedNotice) -> RenderedMessage:
    """Render the message without the password. It has the receipt once the server was read back."""
    request = notice.request
    line = _closed_text(request)
    blocks = [section(line)]
    if request.state is State.REVOKED:
        blocks.append(actions(button("Ask again", ids.REQUEST_AGAIN, request.token, about=f"like access {request.id}")))
    return RenderedMessage(text=truncate(line, TEXT_MAX), blocks=blocks)


def _closed_text(request: Request) -> str:
    because = END_REASONS.get(request.ended_because, "ended") if request.ended_because else "ended"
    if request.state is not State.REVOKED or not request.receipt:
        return f"Your access to {escape(request.database)} is ending (#{request.id}): {because}."
    ended = f" {local_datetime(request.ended_at)}" if request.ended_at else ""
    return f"Your access to {escape(request.database)} ended{ended} (#{request.id}): {because}. {receipt_text(request)}"
