"""Logs: JSON for machines, one line per event for people. No log shows local variables or a secret that the process knows."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from datetime import datetime
from typing import Any

import structlog

from bot.settings import Settings

QUIET_LOGGERS = (
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
"""Whether the console shows tracebacks. JSON logs always contain them."""


def configure_early() -> None:
    """Configure logs before the settings are read: console lines, errors only."""
    _configure(as_json=False, level="error", secrets=())


def configure(settings: Settings) -> None:
    """Configure logs for the whole process. Library loggers stay at warning, because some print whole payloads at debug."""
    as_json = settings.log == "json" or (settings.log is None and not sys.stderr.isatty())
    _configure(as_json=as_json, level=settings.log_level, secrets=settings.secrets())


def _configure(*, as_json: bool, level: str, secrets: tuple[str, ...]) -> None:
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        *([] if as_json else [_without_traceback]),
        secret_scrubber(secrets),
    ]
    renderer: Any = structlog.processors.JSONRenderer(ensure_ascii=False) if as_json else _ConsoleRenderer()
    structlog.configure(
        processors=[
            *([] if as_json else [_drop_details(level)]),
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
    handler.addFilter(_is_own_or_serious)
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
    "command_refused": "refused command: {who}, {verb}",
    "lockdown_set": "lockdown of {scope} by {by}: {grants} grants are ended",
    "lockdown_lifted": "lockdown of {scope} lifted by {by}",
    "configuration_loaded": "reloaded: {databases} databases, {rules} rules",
    "grants_stay_live": "stopped: {grants} live grants stay. Until the next start ends them: {enforced}",
    "configuration_refused": "reload refused, the last good configuration stays in force: {problems}",
}
"""Event → its line on the console, filled with the event's fields."""


class _ConsoleRenderer:
    """Renders an event in ``LINES`` as its line, and every other event in structlog's own form."""

    def __init__(self) -> None:
        self._plain = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)

    def __call__(self, logger: Any, method: str, event: MutableMapping[str, Any]) -> str:
        line = LINES.get(str(event.get("event")))
        return str(self._plain(logger, method, event)) if line is None else line_of(line, event)


def line_of(line: str, facts: MutableMapping[str, Any]) -> str:
    """Fill a line with an event's fields. Unprintable characters are removed, so the result is always one line."""
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
    """The local time; with the date where it is not today."""
    return end.strftime("%H:%M" if end.date() == now.date() else "%Y-%m-%d %H:%M")


def _drop_details(level: str) -> Any:
    """A processor for the console: at ``info`` it drops events that are not in ``LINES``, except warnings and errors."""

    def drop(_logger: Any, method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if level == "info" and method == "info" and event.get("event") not in LINES:
            raise structlog.DropEvent
        return event

    return drop


def _without_traceback(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if not shows_tracebacks:
        event.pop("exception", None)
    return event


def _is_own_or_serious(record: logging.LogRecord) -> bool:
    """Keep a record of our own code, or a warning. A filter, because Bolt sets the levels of its loggers, which print payloads at debug."""
    return record.levelno >= logging.WARNING or not record.name.startswith(QUIET_LOGGERS)


def scrub(text: str) -> str:
    """The text without anything that looks like a token or a password in a URL."""
    return str(_clean(text, ()))


def secret_scrubber(secrets: tuple[str, ...]) -> Any:
    """A processor that removes the given secrets, and anything that looks like a token or a password in a URL."""

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
