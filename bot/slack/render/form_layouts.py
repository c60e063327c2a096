"""The forms: ask, and deny. Pure. ``private_metadata`` carries ids and what was typed before, never a right."""

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
from bot.slack.render.blocks import Block, context, section
from bot.slack.render.text import clean, cut, escape, moment, plain
from storage.records import Request, RequestKind

OPTIONS_MAX = 100
DATABASES_MAX = 1000
"""Ten groups of options; more would make the view too large for Slack."""

USUAL = tuple(timedelta(minutes=m) for m in (15, 30, 60, 120, 240, 480, 1440))
METADATA_REASON = 1000
TICKET_MAX = 100


def request_form(catalog_entries: Sequence[CatalogEntry], wanted: RequestInput, *, problem: str = "") -> Block:
    """Database, Level, For how long, Why. Levels follow the database where one is chosen; everything is judged again on **Ask**."""
    databases = list(dict.fromkeys(o.database for o in catalog_entries))
    chosen = wanted.database if wanted.database in databases else (databases[0] if len(databases) == 1 else None)
    about = [o for o in catalog_entries if chosen is None or o.database == chosen]
    blocks: list[Block] = [section(f":warning: {escape(problem)}")] if problem else []
    if len(databases) > DATABASES_MAX:
        blocks.append(
            context(f"The first {DATABASES_MAX} databases are here; for others type `/dbaccess request DATABASE`.")
        )
    blocks += [
        {
            **_select("Database", ids.DATABASE, databases, chosen, _database_labels(catalog_entries)),
            "dispatch_action": True,
        },
        _select("Level", _level_block(chosen), [o.level for o in about], _level(about, wanted), _level_labels(about)),
        _select("For how long", ids.DURATION, _durations(about, wanted), _duration(about, wanted), {}),
        _why(wanted),
        *_ticket(about),
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
            {"database": chosen, "level": _level(about, wanted), "duration": _duration(about, wanted)}
        ),
        "blocks": blocks,
    }


def form_for(needed: FormNeeded) -> Block:
    """The form that asks for what was left out."""
    if needed.grant is not None:
        return extension_form(needed.grant, needed.catalog_entries, needed.wanted)
    if needed.wanted.kind is RequestKind.BREAK_GLASS:
        return nothing_form("Break-glass is typed whole: /dbaccess breakglass DATABASE LEVEL 30m REASON")
    return (
        request_form(needed.catalog_entries, needed.wanted)
        if needed.catalog_entries
        else nothing_form("There is nothing you may ask for.")
    )


def extension_form(grant: Request, catalog_entries: Sequence[CatalogEntry], wanted: RequestInput) -> Block:
    """For how long more, and Why. What may be asked for in all is judged on **Ask**."""
    about = [o for o in catalog_entries if (o.database, o.level) == (grant.database, grant.level)]
    ends = f" It ends {moment(grant.expires_at)}." if grant.expires_at else ""
    line = f"More time for #{grant.id}: {escape(grant.level)} on {escape(grant.database)}.{ends} Open sessions live on."
    return {
        "type": "modal",
        "callback_id": ids.EXTEND_FORM,
        "title": plain(f"Extend #{grant.id}", 24),
        "submit": plain("Ask", 24),
        "close": plain("Cancel", 24),
        "private_metadata": json.dumps({"grant": grant.token, "duration": _duration(about, wanted)}),
        "blocks": [
            section(line),
            _select("For how long", ids.DURATION, _durations(about, wanted), _duration(about, wanted), {}),
            _why(wanted),
            *_ticket(about),
        ],
    }


def grant_in(view: Mapping[str, Any]) -> str:
    """The token of the grant that the form of Extend is about."""
    return str(_opened(view).get("grant") or "")


def password_form(request: Request, blocks: Sequence[Block] | None = None) -> Block:
    """Opened at once, filled when the database has answered."""
    return {
        "type": "modal",
        "callback_id": "password",
        "title": plain(f"Password of #{request.id}", 24),
        "close": plain("Close", 24),
        "blocks": list(blocks or [section("One moment: the database is asked for a fresh password.")]),
    }


def nothing_form(words: str) -> Block:
    """There is nothing this person may ask for."""
    return {
        "type": "modal",
        "callback_id": "nothing",
        "title": plain("Ask for access", 24),
        "close": plain("Close", 24),
        "blocks": [section(escape(words))],
    }


def _level_block(database: str | None) -> str:
    """A block id of its own for each database: else the client keeps the choice made for another one."""
    return f"{ids.LEVEL}:{database}" if database else ids.LEVEL


def _select(label: str, block_id: str, values: Sequence[str], initial: str | None, labels: Mapping[str, str]) -> Block:
    options = [_option(value, labels.get(value, value)) for value in dict.fromkeys(values)][:DATABASES_MAX]
    element: Block = {
        "type": "static_select",
        "action_id": block_id.partition(":")[0],
        "placeholder": plain(f"{label} …", 150),
        **({"options": options} if len(options) <= OPTIONS_MAX else {"option_groups": _grouped(options)}),
    }
    picked = next((option for option in options if option["value"] == initial), None)
    if picked is not None:
        element["initial_option"] = picked
    return {"type": "input", "block_id": block_id, "label": plain(label, 2000), "element": element}


def _grouped(options: Sequence[Block]) -> list[Block]:
    """Slack takes a hundred options, or groups of so many; typing searches them all."""
    parts = [options[i : i + OPTIONS_MAX] for i in range(0, len(options), OPTIONS_MAX)]
    return [{"label": plain(f"{p[0]['value'][:30]} … {p[-1]['value'][:30]}", 75), "options": list(p)} for p in parts]


def _option(value: str, label: str) -> Block:
    return {"text": plain(label, 75), "value": value}


def _database_labels(catalog_entries: Sequence[CatalogEntry]) -> dict[str, str]:
    return {o.database: f"{o.database} — {o.description}" if o.description else o.database for o in catalog_entries}


def _level_labels(catalog_entries: Sequence[CatalogEntry]) -> dict[str, str]:
    """With its description where all the databases mean the same by it."""
    meant: dict[str, set[str]] = {}
    for entry in catalog_entries:
        meant.setdefault(entry.level, set()).add(entry.level_description)
    alike = {level: next(iter(said)) for level, said in meant.items() if len(said) == 1}
    return {level: f"{level} — {alike[level]}" if alike.get(level) else level for level in meant}


def _level(catalog_entries: Sequence[CatalogEntry], wanted: RequestInput) -> str | None:
    levels = list(dict.fromkeys(o.level for o in catalog_entries))
    return wanted.level if wanted.level in levels else (levels[0] if len(levels) == 1 else None)


def _durations(catalog_entries: Sequence[CatalogEntry], wanted: RequestInput) -> list[str]:
    longest = max((o.max_duration for o in catalog_entries), default=timedelta(hours=1))
    usual = {d for d in USUAL if d <= longest} | {o.duration for o in catalog_entries} | {longest}
    return [short_duration(d) for d in sorted(usual | ({wanted.duration} if wanted.duration else set()))]


def _duration(catalog_entries: Sequence[CatalogEntry], wanted: RequestInput) -> str | None:
    if wanted.duration:
        return short_duration(wanted.duration)
    return short_duration(min(o.duration for o in catalog_entries)) if catalog_entries else None


def _why(wanted: RequestInput) -> Block:
    element: Block = {"type": "plain_text_input", "action_id": ids.VALUE, "multiline": True, "max_length": REASON_MAX}
    if wanted.reason:
        element["initial_value"] = cut(wanted.reason, METADATA_REASON)
    hint = plain("What should an auditor read in a year?", 2000)
    return {"type": "input", "block_id": ids.WHY, "label": plain("Why", 2000), "hint": hint, "element": element}


def _ticket(catalog_entries: Sequence[CatalogEntry]) -> list[Block]:
    """Where one is asked for."""
    if not any(entry.wants_ticket for entry in catalog_entries):
        return []
    element: Block = {"type": "plain_text_input", "action_id": ids.VALUE, "max_length": TICKET_MAX}
    label, is_optional = plain("Ticket", 2000), not all(entry.wants_ticket for entry in catalog_entries)
    return [{"type": "input", "block_id": ids.TICKET, "label": label, "optional": is_optional, "element": element}]


def deny_form(request: Request) -> Block:
    """**Why** and **Deny**."""
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


# What was submitted.


def chosen(view: Mapping[str, Any]) -> RequestInput:
    """The form's state. A client that does not submit what was not touched gets the value the form was opened with. Raises NotUnderstood."""
    state, opened = view.get("state", {}).get("values", {}), _opened(view)
    database = _picked(state, ids.DATABASE) or opened.get("database")
    level = _picked(state, _level_block_in(state, database)) or opened.get("level")
    duration = _picked(state, ids.DURATION) or opened.get("duration")
    return RequestInput(database=database, level=level, duration=_parsed(duration), reason=_reason(view))


def _reason(view: Mapping[str, Any]) -> str | None:
    """With the ticket behind it, where it does not name it already."""
    reason, ticket = why(view), _typed_in(view, ids.TICKET)
    return (f"{reason} {ticket}" if reason and ticket and ticket not in reason else reason) or None


def _level_block_in(state: Mapping[str, Any], database: str | None) -> str:
    """That of the database, or the one the client still shows when the form did not follow the database."""
    shown = [block_id for block_id in state if block_id.partition(":")[0] == ids.LEVEL]
    return _level_block(database) if _level_block(database) in shown else next(iter(shown), ids.LEVEL)


def _opened(view: Mapping[str, Any]) -> dict[str, Any]:
    try:
        found = json.loads(view.get("private_metadata") or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _picked(state: Mapping[str, Any], block_id: str) -> str | None:
    element: Mapping[str, Any] = next(iter(state.get(block_id, {}).values()), {})
    option = element.get("selected_option") or {}
    value = option.get("value")
    return value if isinstance(value, str) else None


def _parsed(duration: str | None) -> timedelta | None:
    if duration is None:
        return None
    try:
        return parse_duration(duration)
    except ValueError as wrong:
        raise NotUnderstood(duration, str(wrong)) from None


def why(view: Mapping[str, Any]) -> str:
    """The field **Why**."""
    return _typed_in(view, ids.WHY)


def _typed_in(view: Mapping[str, Any], block_id: str) -> str:
    """Cleaned as ``parse.words`` does, for the ledger's sake."""
    element: Mapping[str, Any] = next(iter(view.get("state", {}).get("values", {}).get(block_id, {}).values()), {})
    return clean(str(element.get("value") or "")).strip()


def level_block_of(view: Mapping[str, Any]) -> str:
    """The block of **Level** in this view, under which an error about it can be shown."""
    blocks = [str(b.get("block_id", "")) for b in view.get("blocks", ())]
    return next((b for b in blocks if b.partition(":")[0] == ids.LEVEL), ids.LEVEL)
