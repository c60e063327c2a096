"""The worked example for engine authors: built and installed as a package, found by name, and tested by the contract on a real Valkey."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from storage.ledger import Ledger
from tests.conftest import had
from tests.servers import redis

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "dbaccess-valkey"
DATABASES = """
databases:
  cache:
    engine: valkey
    admin_url: env:CACHE_URL
    levels: {readonly: {roles: [readonly]}}
"""
POLICY = """
admins: [U01ADMIN]
audit_channel: C01AUDIT
alert_channel: C01ALERTS
defaults: {channel: C01CARDS}
rules:
  - {name: cache, requesters: [anyone], databases: [cache], levels: ["*"], approvals: [{from: [U01LEAD, U01DBA], count: 1}]}
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but the installed example."""
    folder = tmp_path_factory.mktemp("installed")
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
        "--no-build-isolation",
    ]
    source = folder / "source"
    subprocess.run(["cp", "-r", EXAMPLE, source], check=True)
    subprocess.run([*command, "--target", folder / "site", source], check=True, capture_output=True)
    return folder / "site"


def run(installed: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": f"{installed}:{ROOT}", **env}
    return subprocess.run(
        [sys.executable, *arguments], env=variables, capture_output=True, text=True, check=False, timeout=300
    )


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "databases.yml").write_text(DATABASES)
    (tmp_path / "policy.yml").write_text(POLICY)
    return tmp_path


def test_installed_engine_is_found_by_name(installed: Path, config: Path) -> None:
    known = run(installed, "-m", "bot.cli", "policy", "check", str(config))
    assert known.returncode == 0, known.stdout + known.stderr
    unknown = run(Path("/nowhere"), "-m", "bot.cli", "policy", "check", str(config))
    assert "no engine valkey is installed" in unknown.stdout + unknown.stderr
    assert unknown.returncode == 1


def test_example_passes_its_own_tests(installed: Path) -> None:
    for server in had(lambda: redis.start(redis.VALKEY)):
        program = redis.command(server.flavour, server.flavour.program)
        done = run(
            installed, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-c", os.devnull, str(EXAMPLE / "tests"),
            VALKEY_SERVER=shlex.join(program),
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
        assert " passed" in done.stdout


async def make_ledger(url: str) -> None:
    ledger = Ledger(url)
    await ledger.open(create=True)
    await ledger.close()


def test_doctor_try_succeeds(installed: Path, config: Path) -> None:
    """The exit status is 1, because Slack is not configured here. The test looks at the findings of the database."""
    ledger_url = f"sqlite+aiosqlite:///{config}/ledger.db"
    asyncio.run(make_ledger(ledger_url))
    for server in had(lambda: redis.start(redis.VALKEY)):
        done = run(
            installed, "-m", "bot.cli", "doctor", "cache", "--try", "--json",
            DBACCESS_CONFIG=str(config), DBACCESS_STORE_URL=ledger_url, CACHE_URL=server.url(redis.TESTER, redis.PASSWORD),
        )  # fmt: skip
        assert redis.PASSWORD not in done.stdout + done.stderr
        found = json.loads(done.stdout)
        database = [one for one in found if one["section"] == "Database cache"]
        assert any("Valkey 8" in one["what"] for one in database), done.stdout
        steps = [one for one in found if one.get("database") == "cache"]
        assert len(steps) > 4
        assert all(one["ok"] for one in database + steps), done.stdout
        assert not [name for name in server.run("ACL", "USERS") if name.startswith("jit_")]
