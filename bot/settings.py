"""Settings from the environment. An empty variable counts as unset. An error names the variable and never its value."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from pydantic import Field, PrivateAttr, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

HINTS = {
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
    """The invalid variables, one per line."""


class Settings(BaseSettings):
    """One field per variable; see README for what each does."""

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

    _invalid: tuple[str, ...] = PrivateAttr(default=())
    """Errors of invalid variables that were replaced by their defaults. Ending a grant needs none of them."""

    def secrets(self) -> tuple[str, ...]:
        """The values that must never appear in a log."""
        held = (self.slack_bot_token, self.slack_app_token, self.slack_signing_secret, self.store_url)
        return tuple(s.get_secret_value() for s in held if s is not None)


REQUIRED_TO_END = frozenset({"DBACCESS_STORE_URL", "DBACCESS_USER_PREFIX"})


def read_settings(*, to_end: bool = False) -> Settings:
    """Read and check the environment. Raises SettingsError.

    ``to_end``: for commands that end grants. Only the variables that ending needs must then be valid. The other errors
    are kept for ``check_slack_settings``, so that nothing is granted while they exist.
    """
    wrong = _invalid_text()
    try:
        found = Settings(**_defaults(wrong))
    except ValidationError as invalid:
        names = [str(m["loc"][0]) for m in invalid.errors(include_url=False, include_input=False)]
        wrong |= {n: f"has a wrong value; {HINTS.get(n, 'see README')}" for n in names}
        found = Settings(**_defaults(wrong))
    wrong |= _invalid_values(found)
    lines = tuple(f"{name}: {words}" for name, words in wrong.items())
    if lines and (not to_end or REQUIRED_TO_END & set(wrong)):
        raise SettingsError("\n".join(lines))
    if lines:
        found = Settings(**_defaults(wrong))
        found._invalid = lines  # noqa: SLF001 - a private attribute of this module
    return found


def _defaults(names: Iterable[str]) -> dict[str, Any]:
    """The defaults that replace invalid values."""
    by_variable = {str(field.validation_alias): field.get_default() for field in Settings.model_fields.values()}
    return {name: by_variable[name] for name in names}


def _invalid_text() -> dict[str, str]:
    names = [str(field.validation_alias) for field in Settings.model_fields.values()]
    return {n: "is not text in UTF-8" for n in names if not _is_text(os.environ.get(n, ""))}


def _is_text(value: str) -> bool:
    return not any("\ud800" <= sign <= "\udfff" for sign in value)


def _invalid_values(found: Settings) -> dict[str, str]:
    begins = (("SLACK_BOT_TOKEN", found.slack_bot_token, "xoxb-"), ("SLACK_APP_TOKEN", found.slack_app_token, "xapp-"))
    names = [name for name, token, begin in begins if token and not token.get_secret_value().startswith(begin)]
    if not _is_ledger_url(found.store_url.get_secret_value()):
        names.append("DBACCESS_STORE_URL")
    return {name: f"has a wrong value; {HINTS[name]}" for name in names}


def _is_ledger_url(url: str) -> bool:
    """Return whether the URL names a file or a server. Other URLs of SQLite mean a database in memory, which is lost."""
    if url.startswith("sqlite+aiosqlite:///"):
        path, _, further = url.removeprefix("sqlite+aiosqlite:///").partition("?")
        path = unquote(path)
        return bool(path) and not further and "\0" not in path and not path.startswith(("file:", ":memory:"))
    try:
        return url.startswith("postgresql+psycopg://") and urlsplit(url).port != 0
    except ValueError:
        return False


def check_slack_settings(found: Settings) -> None:
    """Raises SettingsError where a variable that the connection to Slack needs is missing, or any variable is invalid."""
    lines = list(found._invalid)  # noqa: SLF001 - a private attribute of this module
    wrong = {line.partition(":")[0] for line in lines}
    if found.slack_bot_token is None and "SLACK_BOT_TOKEN" not in wrong:
        lines.append("SLACK_BOT_TOKEN: is not set; the bot token of the installed app, xoxb-…")
    if found.slack_app_token is None and "SLACK_APP_TOKEN" not in wrong:
        lines.append(
            "SLACK_APP_TOKEN: is not set; an app-level token with connections:write, xapp-… (HTTP mode comes with a later version)"
        )
    if lines:
        raise SettingsError("\n".join(lines))
