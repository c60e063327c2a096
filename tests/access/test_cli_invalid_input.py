"""The command line with invalid arguments and settings: it prints a message and exits with a status, never a traceback."""

from __future__ import annotations

import logging
import os
import random
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import structlog
import yaml

from bot import cli
from bot.cli import common, listing
from tests.soak import IS_SOAK, rounds

Ran: TypeAlias = tuple[int, str, str]
DATABASES = {
    "databases": {"shop": {"engine": "postgresql", "admin_url": "env:NOWHERE", "levels": {"readonly": {"roles": ["r"]}}}}
}  # fmt: skip
POLICY = {
    "defaults": {"channel": "C0CARDS"},
    "rules": [
        {
            "name": "[/shop] [red]",
            "requesters": ["U0ADA"],
            "databases": ["shop"],
            "levels": ["*"],
            "approvals": [{"from": ["U0LEAD", "U0SECOND"]}],
            "hours": {"days": "mon-fri", "from": "08:00", "to": "19:00", "tz": "Asia/Tokyo"},
        }
    ],
    "tests": [{"ask": "U0ADA shop readonly 1h", "expect": "waiting"}],
}
NAMES = ["", " ", "-", "x", "'", "%s", "{x}", "[/]", "[red]x[/red]", "\x1b[31m", "a\nb", "😀", "\udcff", "x" * 5000]
NUMBERS = ["#", "#1", "0", "-1", "1.5", "nan", "inf", "1e400", "٣", "999999999999999999", "9" * 40, "99999999999", "9" * 9 + "d"]  # fmt: skip
TIMES = ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00", "1969-12-31T23:59:59Z", "2026-11-23", "2026-11-23T10:00:00+01:00"]  # fmt: skip
PLACES = ["/", "../..", "/nonexistent/x", "/dev/null", "folder", "binary", "empty", "nul.yml", "deep.yml", "config", "config/policy.yml"]  # fmt: skip
RIGHT = ["shop", "readonly", "U0ADA", "1h", "a@b.c", "S0LEADS", "--json", "--all", "--at", "--help", "--"]
ODD = [*NAMES, *NUMBERS, *TIMES, *PLACES, *RIGHT]
COMMANDS = [
    "", "list", "list --all", "list --database", "list --person", "show", "show --json", "revoke", "revoke --wait 0",
    "revoke --all --gone", "revoke --database", "revoke --person", "revoke --all --wait", "revoke 1 --gone", "sweep",
    "policy", "policy check", "policy check --json", "policy test", "policy test --junit", "policy test --json",
    "policy explain", "policy explain U0ADA", "policy explain U0ADA shop", "policy explain U0ADA shop readonly",
    "policy explain U0ADA shop readonly 1h --at", "policy replay", "policy replay config/policy.yml --since",
    "policy schema", "doctor", "run", "store", "--version",
]  # fmt: skip
STORES = [
    "x", "postgresql+psycopg://", "postgresql+psycopg://h:99999/x", "postgresql+psycopg://[::1/x",
    "postgresql+psycopg://u:Secret0Word@127.0.0.1:1/x", "postgresql+psycopg://u:Secret0Word@127.0.0.1:1/x?nonsense=1",
    "postgresql+psycopg://u:Secret0Word@127.0.0.1:1/x?connect_timeout=abc", "sqlite+aiosqlite:////proc/x/y", "sqlite+aiosqlite:////dev/null",
    "sqlite+aiosqlite:///folder", "sqlite+aiosqlite:///binary", "sqlite+aiosqlite:///x?timeout=abc", "sqlite+aiosqlite:///\udcff",
]  # fmt: skip
SETTINGS = {
    "DBACCESS_STORE_URL": STORES,
    "DBACCESS_CONFIG": ["", "/nonexistent", "/dev/null", "binary", "folder", "\udcff"],
    "DBACCESS_HTTP_HOST": ["999.1.1.1", "\udcff"],
    "DBACCESS_HTTP_PORT": ["-1", "x"],
    "DBACCESS_LOG": ["x", "json", "console"],
    "DBACCESS_LOG_LEVEL": ["x"],
    "DBACCESS_USER_PREFIX": ["x"],
    "SLACK_BOT_TOKEN": ["xoxb-x", "\udcff"],
    "SLACK_API_URL": ["x", "http:///api/", "http://[/api/"],
    "USER": ["", "\udcff"],
    "COLUMNS": ["0", "-1", "x"],
}


SETTINGS_MATTER = [
    "list", "show 1", "sweep", "store check", "store upgrade", "revoke --all --wait 0", "policy check", "policy test",
    "policy explain U0ADA shop", "policy replay config/policy.yml", "doctor", "run",
]  # fmt: skip


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Any]:
    """Runs the console script in this process. Writes the files before each call, because ``--junit`` may overwrite any of them."""
    for name in [n for n in os.environ if n.startswith(("SLACK_", "DBACCESS_"))]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DBACCESS_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("DBACCESS_STORE_URL", f"sqlite+aiosqlite:///{tmp_path}/ledger.db")
    saved, handlers, hook = structlog.get_config(), logging.getLogger().handlers[:], threading.excepthook

    def run(*arguments: str, **env: str) -> Ran:
        write_files(tmp_path)
        common.is_running = False
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(sys, "argv", ["dbaccess", *arguments])
            for name, value in env.items():
                patched.setenv(name, value)
            try:
                cli.main()
                status: int | str | None = 0
            except SystemExit as end:
                status = end.code or 0
        assert isinstance(status, int)
        return (status, *capsys.readouterr())

    yield run
    structlog.configure(**saved)
    logging.getLogger().handlers[:] = handlers
    threading.excepthook = hook
    common.is_running = False


def write_files(folder: Path) -> None:
    for name in ("config", "folder"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "config" / "databases.yml").write_text(yaml.safe_dump(DATABASES))
    (folder / "config" / "policy.yml").write_text(yaml.safe_dump(POLICY))
    (folder / "binary").write_bytes(bytes(range(256)) * 8)
    (folder / "empty").write_text("")
    (folder / "nul.yml").write_text("a: \0\n")
    (folder / "deep.yml").write_text("[" * 5000)


def assert_answered(ran: Ran, *arguments: object) -> None:
    status, out, err = ran
    assert status in (0, 1, 2), arguments
    assert "Traceback" not in out + err, (arguments, out, err)
    assert "Something went wrong" not in err, (arguments, err)
    assert "Secret0Word" not in out + err, arguments
    assert status == 0 or out or err, arguments


@pytest.mark.parametrize("command", COMMANDS)
def test_invalid_argument_is_answered_without_traceback(shell: Callable[..., Ran], command: str) -> None:
    dice = random.Random(command)
    for made in (False, True):
        if made:
            assert shell("store", "upgrade", "--new")[0] == 0
        for odd in ODD if IS_SOAK else dice.sample(ODD, 6):
            assert_answered(shell(*command.split(), odd), command, odd)


def test_several_invalid_arguments_are_answered_without_traceback(shell: Callable[..., Ran]) -> None:
    dice = random.Random(5)
    shell("store", "upgrade", "--new")
    for _ in range(rounds(60)):
        arguments = [*dice.choice(COMMANDS).split(), *dice.choices(ODD, k=dice.randrange(2, 5))]
        assert_answered(shell(*arguments), arguments)


@pytest.mark.parametrize("name", SETTINGS)
def test_invalid_settings_are_answered_without_traceback(shell: Callable[..., Ran], name: str) -> None:
    for value in SETTINGS[name]:
        for command in SETTINGS_MATTER:
            assert_answered(shell(*command.split(), **{name: value}), name, value, command)


@pytest.mark.parametrize("time", TIMES[:3])
def test_time_outside_the_allowed_years_is_reported(shell: Callable[..., Ran], time: str) -> None:
    status, _, err = shell("policy", "explain", "U0ADA", "shop", "readonly", "--at", time)
    assert (status, err) == (
        2,
        '--at: a time is needed, such as "2026-11-23T10:00:00+01:00", from 1971 to 2999\n',
    )


@pytest.mark.parametrize("time", TIMES[:3])
def test_time_of_a_test_outside_the_allowed_years_is_reported(
    shell: Callable[..., Ran], time: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(POLICY, "tests", [{"ask": "U0ADA shop readonly 1h", "expect": "waiting", "at": time}])
    status, _, err = shell("policy", "test")
    assert status == 1
    assert re.search(r"policy\.yml:\d+: error: tests\.at: a time with its zone is needed, such as", err)


def test_junit_file_that_cannot_be_written_is_reported(shell: Callable[..., Ran]) -> None:
    for place in ("folder", "/nonexistent/x"):
        status, _, err = shell("policy", "test", "--junit", place)
        assert (status, err.startswith(f"{place}: cannot be written")) == (1, True)


def test_argument_that_is_not_utf8_is_wrong_usage(shell: Callable[..., Ran]) -> None:
    assert shell("list", "--person", "\udcff") == (2, "", "Argument 3 is not text in UTF-8.\n")


class Unexpected(Exception):
    """An error that the command line does not expect."""


async def fail(**_about: object) -> None:
    in_sight = "Local0Variable"
    raise Unexpected(f"postgresql://u:Secret0Word@h/x {len(in_sight)}")


def test_unexpected_error_is_one_line(shell: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "_fetch_requests", fail)
    status, out, err = shell("list")
    assert (status, out) == (1, "")
    assert re.fullmatch(
        r"Something went wrong \(Unexpected\)\. Reference [0-9A-F]{4}-[0-9A-F]{4}; run again with --debug to see more\.\n", err
    )  # fmt: skip


def test_debug_shows_the_traceback_without_local_variables(
    shell: Callable[..., Ran], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listing, "_fetch_requests", fail)
    status, _, err = shell("--debug", "list")
    assert status == 1
    assert "Traceback (most recent call last)" in err
    assert "Unexpected: postgresql://u:…@h/x" in err
    assert "Local0Variable" not in err
    assert "Secret0Word" not in err


def test_debug_shows_the_traceback_of_an_expected_error(shell: Callable[..., Ran]) -> None:
    status, _, err = shell("--debug", "list")
    assert status == 1
    assert "Traceback" in err
    assert err.endswith("if it was lost, run `dbaccess store restore FILE` with a copy\n")
