"""Lost, old and restored ledgers with the real process and a real PostgreSQL server: nothing is granted twice, no user is left."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from storage.restore import NUMBERS_AHEAD
from tests.e2e.harness import ALERTS, LEAD, REQUESTER, Environment, wait
from tests.e2e.messages import number, text_of


def alert_says(environment: Environment, text: str) -> None:
    wait(f"an alert says {text!r}", lambda: any(text in text_of(m) for m in environment.slack.messages(ALERTS)))


def refused_run(environment: Environment, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "bot.cli", *arguments],
        capture_output=True, text=True, check=False, env=environment.env, cwd=environment.folder, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1, done
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.fixture
def ledger(environment: Environment) -> Path:
    return environment.folder / "ledger.db"


def test_older_copy_neither_grants_nor_ends_what_it_does_not_know(environment: Environment) -> None:
    environment.start()
    known, _ = environment.request_and_approve("shop readonly 1h looking at refund one")
    copy = environment.folder / "copy"
    assert "Copied ledger" in environment.cli("store", "backup", str(copy))
    unknown, _ = environment.request_and_approve("shop readonly 2h looking at refund two")
    before = environment.users()
    assert "a bot runs on this ledger" in refused_run(environment, "store", "restore", str(copy))
    environment.stop()
    assert "--replace" in refused_run(environment, "store", "restore", str(copy))
    restored = environment.cli("store", "restore", str(copy), "--replace")
    assert "is kept in" in restored
    assert list(environment.folder.glob("ledger.db.replaced-*")) != []
    environment.start()
    alert_says(environment, "it was restored from a copy")
    environment.slack.command(REQUESTER, "C01DBACCESS", "request shop readonly 30m looking at refund three")
    environment.answer_says("in recovery mode since", REQUESTER)
    alert_says(environment, "no live grant has it")
    assert environment.users() == before, "the unknown user may be a live grant"
    assert "not ended in recovery mode" in environment.cli("sweep", "--fix", expect=1)
    assert environment.users() == before
    environment.cli("revoke", str(number(known)))
    assert len(environment.users()) == 1, "a grant that the ledger knows ends"
    assert "stays in recovery mode" in refused_run(environment, "store", "resume")
    assert "ended" in environment.cli("sweep", "--adopt")
    assert environment.users() == []
    assert "back to normal" in environment.cli("store", "resume")
    again, _ = environment.request_and_approve("shop readonly 1h looking at refund four")
    assert number(again) >= number(unknown) + NUMBERS_AHEAD
    assert environment.stop() == 0


def test_ledger_that_was_copied_back_by_hand_grants_nothing(environment: Environment, ledger: Path) -> None:
    environment.start()
    environment.request_and_approve("shop readonly 1h looking at refund one")
    environment.stop()
    shutil.copyfile(ledger, environment.folder / "by-hand")
    environment.start()
    environment.request_and_approve("shop readonly 2h looking at refund two")
    environment.stop(signal.SIGKILL)
    before = environment.users()
    for old in environment.folder.glob("ledger.db*"):
        old.unlink()
    shutil.copyfile(environment.folder / "by-hand", ledger)
    environment.start()
    alert_says(environment, "has the mark of this ledger")
    environment.slack.command(REQUESTER, "C01DBACCESS", "request shop readonly 3h looking at refund three")
    environment.answer_says("in recovery mode since", REQUESTER)
    assert environment.users() == before
    environment.stop()


def test_lost_ledger_is_not_begun_anew_unasked(environment: Environment, ledger: Path) -> None:
    environment.start()
    card, _ = environment.request_and_approve("shop readonly 1h looking at refund one")
    environment.stop()
    (left,) = environment.users()
    for old in environment.folder.glob("ledger.db*"):
        old.unlink()
    for command in (("run",), ("store", "upgrade")):
        says = refused_run(environment, *command)
        assert left in says
        assert "store restore FILE" in says
        assert "store upgrade --new" in says
        assert not ledger.exists()
    environment.cli("store", "upgrade", "--new")
    lost = environment.cli("sweep")
    assert "a foreign user, not touched" in lost
    lost_id = lost.partition("of ledger ")[2].partition(":")[0]
    assert "ended" in environment.cli("sweep", "--adopt", "--ledger", lost_id)
    assert environment.users() == []
    assert number(card) == 1


def test_ledger_is_not_begun_while_a_server_does_not_answer(environment: Environment, ledger: Path) -> None:
    up = environment.admin_url
    environment.admin_url = up.replace(f":{environment.harness.server.port}/", ":1/")
    environment.write_config()
    says = refused_run(environment, "run")
    assert "shop does not answer" in says
    assert "store upgrade --new" in says
    assert not ledger.exists()
    environment.cli("store", "upgrade", "--new")
    environment.start()
    card = environment.request_access("shop readonly 1h looking at refund one")
    environment.click(LEAD, card, "Approve")
    environment.dm_says("does not answer")
    environment.stop()
    environment.admin_url = up
    environment.start()
    environment.dm_says(f"is ready (#{number(card)})")
    environment.cli("revoke", "--all")
    environment.stop()


def test_observer_looks_and_changes_nothing(environment: Environment) -> None:
    environment.start()
    card, _ = environment.request_and_approve("shop readonly 10s looking at refund one")
    environment.stop(signal.SIGKILL)
    before = environment.users()
    with (environment.folder / "observer.log").open("ab") as log:
        observer = subprocess.Popen(
            [sys.executable, "-m", "bot.cli", "run", "--observe"],
            stdout=log, stderr=log, env=environment.env, cwd=environment.folder,
        )  # fmt: skip
    try:
        seen = environment.folder / "observer.log"
        wait("it has looked", lambda: "servers_observed" in seen.read_text())
        assert "nothing is ended, nothing is granted" in seen.read_text()
        time.sleep(12)  # the end of the grant passes
        with urllib.request.urlopen(f"http://127.0.0.1:{environment.http_port}/metrics", timeout=5) as answer:
            assert b"dbaccess_recovery_mode 0.0" in answer.read()
        assert environment.users() == before
        assert environment.request(number(card))["state"] == "active"
    finally:
        observer.send_signal(signal.SIGTERM)
        assert observer.wait(60) == 0
    environment.start()
    environment.wait_until_no_users()
    environment.stop()


def test_ledger_moves_from_sqlite_to_postgresql(environment: Environment) -> None:
    environment.start()
    live, _ = environment.request_and_approve("shop readonly 1h looking at refund one")
    environment.stop()
    copy = environment.folder / "copy"
    environment.cli("store", "backup", str(copy))
    server = environment.harness.server
    url = server.superuser_url(server.new_database())
    environment.ledger_url = url.replace("postgresql://", "postgresql+psycopg://")
    said = environment.cli("store", "restore", str(copy))
    assert "is kept in" not in said, "there was nothing to replace"
    environment.start()
    assert environment.users() != []
    assert "back to normal" in environment.cli("store", "resume")
    after, _ = environment.request_and_approve("shop readonly 2h looking at refund two")
    assert number(after) > number(live) + NUMBERS_AHEAD
    assert "user removed" in environment.cli("revoke", str(number(live)))
    second = environment.folder / "second"
    environment.cli("store", "backup", str(second))
    assert "2 requests" in environment.cli("store", "check")
    environment.cli("revoke", "--all")
    environment.wait_until_no_users()
    environment.stop()
