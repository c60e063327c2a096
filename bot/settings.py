"""The environment, read strictly. An empty variable counts as unset; a mistake names the variable and never its value."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from pydantic import Field, PrivateAttr, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

RIGHT = {
    "SLACK_BOT_TOKEN": "a bot token begins with xoxb-",
    "SLACK_APP_TOKEN": "an app-level token begins with xapp-",
    "SLACK_API_URL": "a URL that begins with http and ends in /api/",
    "DBACCESS_STORE_URL": "sqlite+aiosqlite:///FILE (a ? in its name is %3F) or postgresql+psycopg://…",
    "DBACCESS_USER_PREFIX": "a prefix is a small letter, up to 7 of [a-z0-9], and an underscore, such as jit_",
    "DBACCESS_HTTP_PORT": "a port is a number from 0 to 65535",
    "DBACCESS_LOG": "json or console",
    "DBACCESS_LOG_LEVEL": "debug, info, warning or error",
}


class SettingsError(Exception):
    """What is wrong with the environment, one line a variable."""


class Settings(BaseSettings):
    """One field a variable; see README for what each does."""

    model_config = SettingsConfigDict(
        env_ignore_empty=True, hide_input_in_errors=True, frozen=True, populate_by_name=True
    )

    slack_bot_token: SecretStr | None = Field(default=None, validation_alias="SLACK_BOT_TOKEN")
    slack_app_token: SecretStr | None = Field(default=None, validation_alias="SLACK_APP_TOKEN")
    slack_signing_secret: SecretStr | None = Field(default=None, validation_alias="SLACK_SIGNING_SECRET")
    slack_api_url: str | None = Field(default=None, validation_alias="SLACK_API_URL", pattern=r"^https?://\S+/api/$")
    config: Path = Field(default=Path("./config"), validation_alias="DBACCESS_CONFIG")
    store_url: SecretStr = Field(
        default=SecretStr("sqlite+aiosqlite:///dbaccess.db"), validation_alias="DBACCESS_STORE_URL"
    )
    user_prefix: str = Field(default="jit_", validation_alias="DBACCESS_USER_PREFIX", pattern=r"^[a-z][a-z0-9]{0,7}_$")
    http_host: str = Field(default="127.0.0.1", validation_alias="DBACCESS_HTTP_HOST")
    http_port: int = Field(default=8080, validation_alias="DBACCESS_HTTP_PORT", ge=0, le=65535)
    log: Literal["json", "console"] | None = Field(default=None, validation_alias="DBACCESS_LOG")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", validation_alias="DBACCESS_LOG_LEVEL"
    )

    _mistakes: tuple[str, ...] = PrivateAttr(default=())
    """Variables with a wrong value, in whose place the default stands: nothing that an end needs."""

    def secrets(self) -> tuple[str, ...]:
        """What must never be seen in a log."""
        held = (self.slack_bot_token, self.slack_app_token, self.slack_signing_secret, self.store_url)
        return tuple(s.get_secret_value() for s in held if s is not None)


NEEDED_BY_ENDS = frozenset({"DBACCESS_STORE_URL", "DBACCESS_USER_PREFIX"})


def read_settings(*, to_end: bool = False) -> Settings:
    """Raises SettingsError.

    ``to_end``: for what ends grants. A mistake that this does not need is kept for ``needed_for_slack``, which refuses to grant by it.
    """
    wrong = _not_text()
    try:
        found = Settings(**_defaults(wrong))
    except ValidationError as mistakes:
        names = [str(m["loc"][0]) for m in mistakes.errors(include_url=False, include_input=False)]
        wrong |= {n: f"has a wrong value; {RIGHT.get(n, 'see README')}" for n in names}
        found = Settings(**_defaults(wrong))
    wrong |= _wrong(found)
    lines = tuple(f"{name}: {words}" for name, words in wrong.items())
    if lines and (not to_end or NEEDED_BY_ENDS & set(wrong)):
        raise SettingsError("\n".join(lines))
    if lines:
        found = Settings(**_defaults(wrong))
        found._mistakes = lines  # noqa: SLF001 - its own module
    return found


def _defaults(names: Iterable[str]) -> dict[str, Any]:
    """What stands in the place of wrong values."""
    by_variable = {str(field.validation_alias): field.get_default() for field in Settings.model_fields.values()}
    return {name: by_variable[name] for name in names}


def _not_text() -> dict[str, str]:
    names = [str(field.validation_alias) for field in Settings.model_fields.values()]
    return {n: "is not text in UTF-8" for n in names if not _is_text(os.environ.get(n, ""))}


def _is_text(value: str) -> bool:
    return not any("\ud800" <= sign <= "\udfff" for sign in value)


def _wrong(found: Settings) -> dict[str, str]:
    begins = (("SLACK_BOT_TOKEN", found.slack_bot_token, "xoxb-"), ("SLACK_APP_TOKEN", found.slack_app_token, "xapp-"))
    names = [name for name, token, begin in begins if token and not token.get_secret_value().startswith(begin)]
    if not _is_store(found.store_url.get_secret_value()):
        names.append("DBACCESS_STORE_URL")
    return {name: f"has a wrong value; {RIGHT[name]}" for name in names}


def _is_store(url: str) -> bool:
    """A ledger is a file or a server; SQLite's other URLs mean memory, which forgets."""
    if url.startswith("sqlite+aiosqlite:///"):
        path, _, further = url.removeprefix("sqlite+aiosqlite:///").partition("?")
        path = unquote(path)
        return bool(path) and not further and "\0" not in path and not path.startswith(("file:", ":memory:"))
    try:
        return url.startswith("postgresql+psycopg://") and urlsplit(url).port != 0
    except ValueError:
        return False


def needed_for_slack(found: Settings) -> None:
    """Raises SettingsError where the bot could not connect, or where a variable has a wrong value."""
    lines = list(found._mistakes)  # noqa: SLF001 - its own module
    wrong = {line.partition(":")[0] for line in lines}
    if found.slack_bot_token is None and "SLACK_BOT_TOKEN" not in wrong:
        lines.append("SLACK_BOT_TOKEN: is not set; the bot token of the installed app, xoxb-…")
    if found.slack_app_token is None and "SLACK_APP_TOKEN" not in wrong:
        lines.append(
            "SLACK_APP_TOKEN: is not set; an app-level token with connections:write, xapp-… (HTTP mode comes with a later version)"
        )
    if lines:
        raise SettingsError("\n".join(lines))
