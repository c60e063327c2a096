"""Settings and logs: an error names the variable, and no secret is ever shown."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import structlog

from bot import logs
from bot.settings import Settings, SettingsError, check_slack_settings, read_settings

ROOT = Path(__file__).parent.parent.parent
VARIABLES = [str(f.validation_alias) for f in Settings.model_fields.values()]


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DBACCESS_USER_PREFIX", "")
    monkeypatch.setenv("SLACK_BOT_TOKEN", "")
    found = read_settings()
    assert (found.user_prefix, found.http_port, found.http_host, found.log_level) == ("jit_", 8080, "127.0.0.1", "info")
    assert found.store_url.get_secret_value() == "sqlite+aiosqlite:///dbaccess.db"
    assert found.slack_bot_token is None
    with pytest.raises(SettingsError, match="SLACK_BOT_TOKEN: is not set"):
        check_slack_settings(found)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SLACK_BOT_TOKEN", "xapp-Secret0Token"),
        ("SLACK_APP_TOKEN", "xoxb-Secret0Token"),
        ("SLACK_API_URL", "Secret0Token"),
        ("DBACCESS_STORE_URL", "mysql://u:Secret0Token@h/x"),
        ("DBACCESS_STORE_URL", "sqlite+aiosqlite:///:memory:"),
        ("DBACCESS_STORE_URL", "sqlite+aiosqlite:///%3Amemory%3A"),
        ("DBACCESS_STORE_URL", "sqlite+aiosqlite:///file:ledger?mode=memory&uri=true"),
        ("DBACCESS_STORE_URL", "sqlite+aiosqlite:///a%00b"),
        ("DBACCESS_USER_PREFIX", "Secret0Token"),
        ("DBACCESS_HTTP_PORT", "Secret0Token"),
        ("DBACCESS_HTTP_PORT", "70000"),
        ("DBACCESS_LOG", "Secret0Token"),
        ("DBACCESS_LOG_LEVEL", "Secret0Token"),
    ],
)
def test_error_names_the_variable_and_never_its_value(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"^{name}: has a wrong value; ") as caught:
        read_settings()
    assert "Secret0Token" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_logs_hold_no_secret_and_no_local_variables(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLACK_BOT_TOKEN", "xoxb-Secret0Token")
    monkeypatch.setenv("DBACCESS_STORE_URL", "postgresql+psycopg://u:Secret0Store@h/x")
    monkeypatch.setenv("DBACCESS_LOG_LEVEL", "debug")
    before = logging.getLogger().handlers[:]
    try:
        for kind in ("json", "console"):
            monkeypatch.setenv("DBACCESS_LOG", kind)
            logs.configure(read_settings())
            password = "Secret0Local"
            try:
                raise ValueError(  # noqa: TRY301 - what is logged must be caught
                    "xoxb-Secret0Token and postgresql://u:Secret0Url@h/x"
                )
            except ValueError:
                structlog.get_logger("x").exception(
                    "it failed", url="postgresql+psycopg://u:Secret0Store@h/x", more=["xapp-Secret0App"]
                )
            noisy = logging.getLogger("slack_bolt.AsyncApp")
            noisy.setLevel(logging.DEBUG)
            noisy.debug("payload %s", password)
            logging.getLogger("x").warning("to %s", "postgresql://u:Secret0Url@h/x")
        shown = capsys.readouterr().err
    finally:
        logging.getLogger().handlers[:] = before
        structlog.reset_defaults()
    assert shown.count("it failed") == 2
    assert "Secret0" not in shown


@pytest.mark.parametrize(
    ("variable", "value"),
    [("SLACK_BOT_TOKEN", "xoxp-1"), ("DBACCESS_HTTP_PORT", "99999"), ("DBACCESS_LOG", "text"), ("SLACK_API_URL", "x")],
)
def test_invalid_variable_that_ending_does_not_need_only_stops_grants(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv("SLACK_BOT_TOKEN", "xoxb-1")
    monkeypatch.setenv("SLACK_APP_TOKEN", "xapp-1")
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=variable):
        read_settings()
    found = read_settings(to_end=True)
    with pytest.raises(SettingsError, match=f"^{variable}: has a wrong value; [^\n]+$") as no:
        check_slack_settings(found)
    assert value not in str(no.value).partition(";")[0]


@pytest.mark.parametrize("variable", ["DBACCESS_STORE_URL", "DBACCESS_USER_PREFIX"])
def test_invalid_variable_that_ending_needs_is_reported_at_once(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "-")
    with pytest.raises(SettingsError, match=variable):
        read_settings(to_end=True)
