"""Build the forms, and read what was submitted. Pure.

``private_metadata`` holds ids and the values a form was opened with. It never grants a permission.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from bot.access.errors import NotUnderstood
from bot.access.use_case_types import FormNeeded, RequestInput
from bot.durations import format_duration, parse_duration, short_duration
from bot.policy.catalog import CatalogEntry
from bot.policy.evaluation import REASON_MAX
from bot.slack import ids
from bot.slack.payload import object_part, objects_part, text_part, typed_part
from bot.slack.render.blocks import Block, context, section
from bot.slack.render.text import clean, escape, local_datetime, plain, truncate
from storage.records import Request, RequestKind

OPTIONS_MAX = 100
DATABASES_MAX = 1000
"""Ten groups of options. More would exceed Slack's size limit of a view."""

USUAL_DURATIONS = tuple(timedelta(minutes=m) for m in (15, 30, 60, 120, 240, 480, 1440))
METADATA_REASON = 1000
TICKET_MAX = 100


def request_form(catalog_entries: Sequence[CatalogEntry], wanted: RequestInput, *, problem: str = "") -> Block:
    """Build the request form. If a database is chosen, levels and durations are those of it. The submission is evaluated again."""
    databases = list(dict.fromkeys(o.database for o in catalog_entries))
    database = wanted.database if wanted.database in databases else (databases[0] if len(databases) == 1 else None)
    about = [o for o in catalog_entries if database is None or o.database == database]
    blocks: list[Block] = [section(f":warning: {escape(problem)}")] if problem else []
    if len(databases) > DATABASES_MAX:
        blocks.append(
            context(f"The first {DATABASES_MAX} databases are here; for others type `/dbaccess request DATABASE`.")
        )
    blocks += [
        {
            **_select("Database", ids.DATABASE, databases, database, _database_labels(catalog_entries)),
            "dispatch_action": True,
        },
        _select(
            "Level",
            _level_block_id(database),
            [o.level for o in about],
            _initial_level(about, wanted),
            _level_labels(about),
        ),
        _select("For how long", ids.DURATION, _duration_options(about, wanted), _initial_duration(about, wanted), {}),
        _reason_input(wanted),
        *_ticket_input(about),
        context(
            "Your request goes to the people the policy names. What was asked for is what is given, and for no longer."
        ),
    ]
    return {
        "type": "modal",
        "callback_id": ids.REQUEST_FORM,
        "title": plain("Ask for access", 24),
        "submit": plain("Ask", 24),
        "close": plain("Cancel", 24),
        "private_metadata": json.dumps(
            {"database": database, "level": _initial_level(about, wanted), "duration": _initial_duration(about, wanted)}
        ),
        "blocks": blocks,
    }


def form_for(needed: FormNeeded) -> Block:
    """Return the form that asks for the missing values."""
    if needed.grant is not None:
        return extension_form(needed.grant, needed.catalog_entries, needed.wanted)
    if needed.wanted.kind is RequestKind.BREAK_GLASS:
        return message_form("Type break-glass requests in one line: /dbaccess breakglass DATABASE LEVEL 30m REASON")
    return (
        request_form(needed.catalog_entries, needed.wanted)
        if needed.catalog_entries
        else message_form("There is nothing you may ask for.")
    )


def extension_form(grant: Request, catalog_entries: Sequence[CatalogEntry], wanted: RequestInput) -> Block:
    """Build the form for more time. The limit of the whole duration is checked at the submission."""
    about = [o for o in catalog_entries if (o.database, o.level) == (grant.database, grant.level)]
    ends = f" It ends {local_datetime(grant.expires_at)}." if grant.expires_at else ""
    line = f"More time for #{grant.id}: {escape(grant.level)} on {escape(grant.database)}.{ends} Open sessions live on."
    return {
        "type": "modal",
        "callback_id": ids.EXTEND_FORM,
        "title": plain(f"Extend #{grant.id}", 24),
        "submit": plain("Ask", 24),
        "close": plain("Cancel", 24),
        "private_metadata": json.dumps({"grant": grant.token, "duration": _initial_duration(about, wanted)}),
        "blocks": [
            section(line),
            _select(
                "For how long", ids.DURATION, _duration_options(about, wanted), _initial_duration(about, wanted), {}
            ),
            _reason_input(wanted),
            *_ticket_input(about),
        ],
    }


def grant_token(view: Mapping[str, Any]) -> str:
    """Return the token of the grant that an extension form was opened for."""
    return text_part(_metadata(view), "grant") or ""


def password_form(request: Request, blocks: Sequence[Block] | None = None) -> Block:
    """Build the password form. Without ``blocks`` it says that the database was asked for a password."""
    return {
        "type": "modal",
        "callback_id": "password",
        "title": plain(f"Password of #{request.id}", 24),
        "close": plain("Close", 24),
        "blocks": list(blocks or [section("One moment: the database is asked for a fresh password.")]),
    }


def message_form(text: str) -> Block:
    """Build a form that only shows a text."""
    return {
        "type": "modal",
        "callback_id": "nothing",
        "title": plain("Ask for access", 24),
        "close": plain("Close", 24),
        "blocks": [section(escape(text))],
    }


def _level_block_id(database: str | None) -> str:
    """Return a block id for each database. With one id the client would keep the level chosen for another database."""
    return f"{ids.LEVEL}:{database}" if database else ids.LEVEL


def _select(label: str, block_id: str, values: Sequence[str], initial: str | None, labels: Mapping[str, str]) -> Block:
    options = [_option(value, labels.get(value, value)) for value in dict.fromkeys(values)][:DATABASES_MAX]
    element: Block = {
        "type": "static_select",
        "action_id": block_id.partition(":")[0],
        "placeholder": plain(f"{label} …", 150),
        **({"options": options} if len(options) <= OPTIONS_MAX else {"option_groups": _grouped(options)}),
    }
    initial_option = next((option for option in options if option["value"] == initial), None)
    if initial_option is not None:
        element["initial_option"] = initial_option
    return {"type": "input", "block_id": block_id, "label": plain(label, 2000), "element": element}


def _grouped(options: Sequence[Block]) -> list[Block]:
    """Split into groups, because Slack accepts 100 options in a group. A search in the client covers all groups."""
    parts = [options[i : i + OPTIONS_MAX] for i in range(0, len(options), OPTIONS_MAX)]
    return [{"label": plain(f"{p[0]['value'][:30]} … {p[-1]['value'][:30]}", 75), "options": list(p)} for p in parts]


def _option(value: str, label: str) -> Block:
    return {"text": plain(label, 75), "value": value}


def _database_labels(catalog_entries: Sequence[CatalogEntry]) -> dict[str, str]:
    return {o.database: f"{o.database} — {o.description}" if o.description else o.database for o in catalog_entries}


def _level_labels(catalog_entries: Sequence[CatalogEntry]) -> dict[str, str]:
    """Return the labels of the levels. A description is added only if all databases describe the level alike."""
    descriptions: dict[str, set[str]] = {}
    for entry in catalog_entries:
        descriptions.setdefault(entry.level, set()).add(entry.level_description)
    common = {level: next(iter(texts)) for level, texts in descriptions.items() if len(texts) == 1}
    return {level: f"{level} — {common[level]}" if common.get(level) else level for level in descriptions}


def _initial_level(catalog_entries: Sequence[CatalogEntry], wanted: RequestInput) -> str | None:
    levels = list(dict.fromkeys(o.level for o in catalog_entries))
    return wanted.level if wanted.level in levels else (levels[0] if len(levels) == 1 else None)


def _duration_options(catalog_entries: Sequence[CatalogEntry], wanted: RequestInput) -> list[str]:
    longest = max((o.max_duration for o in catalog_entries), default=timedelta(hours=1))
    usual = {d for d in USUAL_DURATIONS if d <= longest} | {o.duration for o in catalog_entries} | {longest}
    return [short_duration(d) for d in sorted(usual | ({wanted.duration} if wanted.duration else set()))]


def _initial_duration(catalog_entries: Sequence[CatalogEntry], wanted: RequestInput) -> str | None:
    if wanted.duration:
        return short_duration(wanted.duration)
    return short_duration(min(o.duration for o in catalog_entries)) if catalog_entries else None


def _reason_input(wanted: RequestInput) -> Block:
    element: Block = {"type": "plain_text_input", "action_id": ids.VALUE, "multiline": True, "max_length": REASON_MAX}
    if wanted.reason:
        element["initial_value"] = truncate(wanted.reason, METADATA_REASON)
    hint = plain("What should an auditor read in a year?", 2000)
    return {"type": "input", "block_id": ids.WHY, "label": plain("Why", 2000), "hint": hint, "element": element}


def _ticket_input(catalog_entries: Sequence[CatalogEntry]) -> list[Block]:
    """Return the ticket field if a rule needs a ticket. It is optional if only some rules do."""
    if not any(entry.wants_ticket for entry in catalog_entries):
        return []
    element: Block = {"type": "plain_text_input", "action_id": ids.VALUE, "max_length": TICKET_MAX}
    label, is_optional = plain("Ticket", 2000), not all(entry.wants_ticket for entry in catalog_entries)
    return [{"type": "input", "block_id": ids.TICKET, "label": label, "optional": is_optional, "element": element}]


def deny_form(request: Request) -> Block:
    """Build the form with the field **Why** and the button **Deny**."""
    element: Block = {"type": "plain_text_input", "action_id": ids.VALUE, "multiline": True, "max_length": REASON_MAX}
    label = f"{request.requester_name} asked for {request.level} on {request.database} for {format_duration(request.terms.duration)}."
    return {
        "type": "modal",
        "callback_id": ids.DENY_FORM,
        "title": plain(f"Deny #{request.id}", 24),
        "submit": plain("Deny", 24),
        "close": plain("Cancel", 24),
        "private_metadata": request.token,
        "blocks": [
            section(escape(label)),
            {"type": "input", "block_id": ids.WHY, "label": plain("Why", 2000), "element": element},
        ],
    }


# Submitted values.


def submitted(view: Mapping[str, Any]) -> RequestInput:
    """Return the submitted values. Some clients leave out untouched fields, which get the value the form was opened with. Raises NotUnderstood."""
    state, opened = object_part(view, "state", "values"), _metadata(view)
    database = _selected(state, ids.DATABASE) or text_part(opened, "database")
    level = _selected(state, _submitted_level_block_id(state, database)) or text_part(opened, "level")
    duration = _selected(state, ids.DURATION) or text_part(opened, "duration")
    return RequestInput(
        database=database, level=level, duration=_parse_duration(duration), reason=_submitted_reason(view)
    )


def _submitted_reason(view: Mapping[str, Any]) -> str | None:
    """Return the reason. The ticket is appended unless the reason contains it."""
    reason, ticket = reason_text(view), _text_in(view, ids.TICKET)
    return (f"{reason} {ticket}" if reason and ticket and ticket not in reason else reason) or None


def _submitted_level_block_id(state: Mapping[str, Any], database: str | None) -> str:
    """Return the block id of the database's levels, or the submitted one if the form was not updated after the database changed."""
    shown = [block_id for block_id in state if block_id.partition(":")[0] == ids.LEVEL]
    return _level_block_id(database) if _level_block_id(database) in shown else next(iter(shown), ids.LEVEL)


def _metadata(view: Mapping[str, Any]) -> dict[str, Any]:
    try:
        found = json.loads(text_part(view, "private_metadata") or "{}")
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _selected(state: Mapping[str, Any], block_id: str) -> str | None:
    return text_part(_element(state, block_id), "selected_option", "value")


def _element(state: Mapping[str, Any], block_id: str) -> Any:
    """The submitted element of a block. A block has one."""
    return next(iter(object_part(state, block_id).values()), None)


def _parse_duration(duration: str | None) -> timedelta | None:
    if duration is None:
        return None
    try:
        return parse_duration(duration)
    except ValueError as error:
        raise NotUnderstood(duration, str(error)) from None


def reason_text(view: Mapping[str, Any]) -> str:
    """Return the text of the field **Why**."""
    return _text_in(view, ids.WHY)


def _text_in(view: Mapping[str, Any], block_id: str) -> str:
    """Return the text of a field, cleaned as in ``parse.split_command``: the ledger cannot store all characters."""
    element = _element(object_part(view, "state", "values"), block_id)
    return clean(typed_part(element, "value") or "").strip()


def level_block_id(view: Mapping[str, Any]) -> str:
    """Return the id of the **Level** block in this view, so that an error can be shown at it."""
    blocks = [str(block.get("block_id", "")) for block in objects_part(view, "blocks")]
    return next((b for b in blocks if b.partition(":")[0] == ids.LEVEL), ids.LEVEL)
