"""Logs: JSON for machines, lines for people. No local variables in tracebacks, no secret that the process knows."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from datetime import datetime
from typing import Any

import structlog

from bot.settings import Settings

QUIET = (
    "slack_sdk",
    "slack_bolt",
    "sqlalchemy",
    "aiosqlite",
    "aiohttp",
    "apscheduler",
    "alembic",
    "asyncio",
    "psycopg",
)
URL_PASSWORD = re.compile(r"(://[^\s:/@]*:)[^\s@/]+@")
TOKEN = re.compile(r"xox[a-z]-[A-Za-z0-9-]+|xapp-[A-Za-z0-9-]+")


shows_tracebacks = False
"""On a terminal; a log for machines has them in any case."""


def begin() -> None:
    """Before the settings are read: lines for people, and only what is wrong."""
    _configure(as_json=False, level="error", secrets=())


def set_up(settings: Settings) -> None:
    """For the whole process. The libraries' own logs stay at warning: at debug some print whole payloads."""
    as_json = settings.log == "json" or (settings.log is None and not sys.stderr.isatty())
    _configure(as_json=as_json, level=settings.log_level, secrets=settings.secrets())


def _configure(*, as_json: bool, level: str, secrets: tuple[str, ...]) -> None:
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        *([] if as_json else [_without_traceback]),
        scrubbing(secrets),
    ]
    renderer: Any = structlog.processors.JSONRenderer(ensure_ascii=False) if as_json else _Lines()
    structlog.configure(
        processors=[
            *([] if as_json else [_lines_alone(level)]),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    handler.addFilter(_is_ours_or_serious)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


LINES: dict[str, str] = {
    "bot_ready": "ready: workspace {workspace}, {databases} databases, {rules} rules, ledger {ledger}",
    "grant_live": "#{request} live: {who}, {access_level} on {database}, until {until}",
    "grant_ended": "#{request} ended: {who}, {access_level} on {database}, {why}{sessions}",
    "request_denied": "#{request} denied: {who}, {access_level} on {database}, by {by}",
    "request_refused": "refused: {who}, {access_level} on {database}: {why}",
    "click_refused": "#{request} refused click: {who}, {verb}",
    "configuration_loaded": "reloaded: {databases} databases, {rules} rules",
    "configuration_refused": "reload refused, the last good configuration stays in force: {problems}",
}
"""What happens, as a person at the terminal reads it: an event's line, from its facts."""


class _Lines:
    """For a terminal: a line for each event in ``LINES``, and structlog's own form for all others."""

    def __init__(self) -> None:
        self._plain = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)

    def __call__(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        line = LINES.get(str(event.get("event")))
        return str(self._plain(logger, method, event)) if line is None else line_of(line, event)


def line_of(line: str, facts: MutableMapping[str, Any]) -> str:
    """One line, whatever names and reasons hold: what cannot be printed is left out."""
    shown = {name: _shown(name, value) for name, value in facts.items()}
    return "".join(sign for sign in line.format_map(shown) if sign.isprintable())


def _shown(name: str, value: Any) -> str:
    if name == "sessions":
        return "" if value is None else f", {value} session{'' if value == 1 else 's'} ended"
    if name == "until" and value is not None:
        return _until(datetime.fromisoformat(value).astimezone(), datetime.now().astimezone())
    if isinstance(value, list):
        return " · ".join(map(str, value))
    return "-" if value is None else str(value)


def _until(end: datetime, now: datetime) -> str:
    """The time here, with the day where it is another one."""
    return end.strftime("%H:%M" if end.date() == now.date() else "%Y-%m-%d %H:%M")


def _lines_alone(level: str) -> Any:
    """A processor for terminals: at ``info`` the lines, and what is wrong; the rest is for ``debug``."""

    def drop(_logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if level == "info" and method == "info" and event.get("event") not in LINES:
            raise structlog.DropEvent
        return event

    return drop


def _without_traceback(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if not shows_tracebacks:
        event.pop("exception", None)
    return event


def _is_ours_or_serious(record: logging.LogRecord) -> bool:
    """A filter of the handler and no level of a logger: Bolt sets its own loggers' levels, and at debug they print payloads."""
    return record.levelno >= logging.WARNING or not record.name.startswith(QUIET)


def scrubbed(text: str) -> str:
    """Without what looks like a token or a URL's password."""
    return str(_clean(text, ()))


def scrubbing(secrets: tuple[str, ...]) -> Any:
    """A processor that blanks what it knows to be secret, and whatever looks like a token or a URL's password."""

    def scrub(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {key: _clean(value, secrets) for key, value in event.items()}

    return scrub


def _clean(value: Any, secrets: tuple[str, ...]) -> Any:
    if isinstance(value, list | tuple):
        return [_clean(part, secrets) for part in value]
    if not isinstance(value, str):
        return value
    for secret in secrets:
        value = value.replace(secret, "…")
    return TOKEN.sub("…", URL_PASSWORD.sub(r"\1…@", value))
