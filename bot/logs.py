"""Logs: JSON for machines, lines for people. No local variables in tracebacks, no secret that the process knows."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
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


def set_up(settings: Settings) -> None:
    """For the whole process. The libraries' own logs stay at warning: at debug some print whole payloads."""
    as_json = settings.log == "json" or (settings.log is None and not sys.stderr.isatty())
    plain = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        scrubbing(settings.secrets()),
    ]
    renderer: Any = structlog.processors.JSONRenderer(ensure_ascii=False) if as_json else plain
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
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
    root.setLevel(settings.log_level.upper())


def _is_ours_or_serious(record: logging.LogRecord) -> bool:
    """A filter of the handler and no level of a logger: Bolt sets its own loggers' levels, and at debug they print payloads."""
    return record.levelno >= logging.WARNING or not record.name.startswith(QUIET)


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
