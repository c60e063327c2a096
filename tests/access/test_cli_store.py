"""``dbaccess store`` on a real ledger: copies, restores, the return to normal; what it refuses and what it then leaves as it is."""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from bot.access.recovery import ASK_AGAIN
from storage.errors import LedgerUnavailable
from storage.ledger import Ledger
from storage.records import State, TaskKind
from storage.restore import NUMBERS_AHEAD
from tests.access.environment import HOUR, AccessEnvironment
from tests.access.test_cli import CommandLine
from tests.open_faults import require


@pytest.fixture
def command_line(environment: AccessEnvironment) -> CommandLine:
    """The command line on the ledger of the environment. Its database does not answer: nothing listens there."""
    return CommandLine(environment.folder)


@pytest.fixture
def copy(environment: AccessEnvironment) -> Path:
    return environment.folder / "copy"


@pytest.fixture
async def other(environment: AccessEnvironment, tmp_path: Path) -> AsyncIterator[Ledger]:
    """Another ledger, with a request of its own number."""
    found = Ledger(f"sqlite+aiosqlite:///{tmp_path}/other.db")
    await found.open(create=True)
    yield found
    await found.close()


async def test_copy_is_private_and_never_replaces_a_file(
    environment: AccessEnvironment, command_line: CommandLine, copy: Path
) -> None:
    await environment.ask()
    said, _ = command_line.run("store", "backup", str(copy))
    assert f"Copied ledger {environment.ledger.id} to {copy}: 1 request, as of" in said
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    before = copy.read_bytes()
    assert "exists, and a copy never replaces a file" in command_line.run("store", "backup", str(copy), expect=1)[1]
    assert copy.read_bytes() == before


async def test_restore_refuses_what_is_no_copy_and_changes_nothing(
    environment: AccessEnvironment, command_line: CommandLine, copy: Path
) -> None:
    request = await environment.ask()
    copy.write_text("nonsense")
    assert "is no copy of a ledger" in command_line.run("store", "restore", str(copy), expect=1)[1]
    assert "cannot be read" in command_line.run("store", "restore", str(copy.with_name("none")), expect=1)[1]
    assert (
        "is no copy of a ledger"
        in command_line.run("store", "restore", str(environment.ledger.database.path), expect=1)[1]
    )
    assert (await environment.now(request)).state is State.PENDING
    assert await environment.ledger.recovery.current() is None


async def test_restore_waits_for_no_running_bot(
    environment: AccessEnvironment, command_line: CommandLine, copy: Path
) -> None:
    command_line.run("store", "backup", str(copy))
    require(environment.ledger.acquire_run_lock(), "a bot runs")
    assert "a bot runs on this ledger" in command_line.run("store", "restore", str(copy), expect=1)[1]
    environment.ledger.release_run_lock()
    command_line.run("store", "restore", str(copy))


async def test_restore_of_another_ledger_needs_a_word(
    environment: AccessEnvironment, command_line: CommandLine, copy: Path, other: Ledger
) -> None:
    await environment.ask()
    store = f"sqlite+aiosqlite:///{other.database.path}"
    command_line.run("store", "backup", str(copy), DBACCESS_STORE_URL=store)
    says = command_line.run("store", "restore", str(copy), expect=1)[1]
    assert f"the ledger is {environment.ledger.id} and has 1 request; the copy is of ledger {other.id}" in says
    assert (await environment.ledger.requests.find())[0].state is State.PENDING
    said, unseen = command_line.run("store", "restore", str(copy), "--replace")
    assert f"Restored ledger {other.id}" in said
    assert "Not looked at: shop does not answer" in unseen
    (kept,) = environment.folder.glob("ledger.db.replaced-*")
    command_line.run("store", "restore", str(kept), "--replace")
    assert len(await environment.ledger.requests.find()) == 1, "what was replaced can be restored"


async def test_return_to_normal_names_what_is_left_and_closes_what_waited(
    environment: AccessEnvironment, command_line: CommandLine, copy: Path
) -> None:
    """A request that waited may have been granted, and its grant ended, after the copy."""
    waiting = await environment.ask(duration=2 * HOUR)
    approved = await environment.approve(await environment.ask())
    command_line.run("store", "backup", str(copy))
    command_line.run("store", "restore", str(copy))
    assert command_line.json("store", "check")[0]["recovery_since"] is not None
    assert "in recovery mode since" in command_line.run("store", "check")[0]
    says = command_line.run("store", "resume", expect=1)[1]
    assert "shop does not answer" in says
    assert "stays in recovery mode" in says
    assert (await environment.now(waiting)).state is State.PENDING
    said, _ = command_line.run("store", "resume", "--accept")
    assert "back to normal" in said
    assert "Requests from before that were closed: 2" in said
    waiting, approved = await environment.now(waiting), await environment.now(approved)
    assert (waiting.state, waiting.ended_note) == (State.OUTDATED, ASK_AGAIN)
    assert approved.state is State.REVOKING
    assert TaskKind.REVOKE in [task.kind for task in await environment.ledger.tasks.all(request_id=approved.id)]
    assert command_line.json("store", "check")[0]["recovery_since"] is None
    assert "is not in recovery mode" in command_line.run("store", "resume")[0]
    assert (await environment.ask(duration=3 * HOUR)).id > approved.id + NUMBERS_AHEAD


async def test_adopting_another_ledger_needs_its_purpose(command_line: CommandLine) -> None:
    assert "--ledger needs --adopt" in command_line.run("sweep", "--ledger", "abc", expect=2)[1]


async def test_lost_ledger_comes_back_from_its_copy(command_line: CommandLine, copy: Path, tmp_path: Path) -> None:
    command_line.run("store", "backup", str(copy))
    lost = {"DBACCESS_STORE_URL": f"sqlite+aiosqlite:///{tmp_path}/new folder/ledger.db".replace(" ", "%20")}
    command_line.run("store", "restore", str(copy.with_name("none")), expect=1, **lost)
    assert not (tmp_path / "new folder" / "ledger.db").exists()
    assert "Restored ledger" in command_line.run("store", "restore", str(copy), **lost)[0]
    assert command_line.run("store", "check", **lost)[0].startswith("The ledger")


async def test_nothing_is_called_well_while_the_servers_are_not_known(command_line: CommandLine, copy: Path) -> None:
    command_line.run("store", "backup", str(copy))
    nowhere = {"DBACCESS_CONFIG": str(copy.with_name("nowhere"))}
    assert "databases.yml" in command_line.run("sweep", expect=1, **nowhere)[1]
    unseen = command_line.run("store", "restore", str(copy), **nowhere)[1]
    assert "Not looked at: the configuration has errors" in unseen
    says = command_line.run("store", "resume", expect=1, **nowhere)[1]
    assert "the configuration has errors" in says
    assert "stays in recovery mode" in says


def test_answers_name_the_next_step(command_line: CommandLine) -> None:
    lost = {"DBACCESS_STORE_URL": f"sqlite+aiosqlite:///{command_line.folder}/lost.db"}
    assert "`dbaccess store restore FILE`" in command_line.run("list", expect=1, **lost)[1]
    assert "dbaccess sweep" in command_line.run("store", "upgrade", "--new", **lost)[0]
    adopts = command_line.run("sweep", "--adopt", "--ledger", "abc", expect=1)[1]
    assert "No user of ledger abc was found." in adopts
    assert "is well: 0 requests, 0 live, 0 tasks." in command_line.run("store", "check", **lost)[0]


async def test_ledger_of_another_operating_system_user_is_named(
    environment: AccessEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.database.os.access", lambda *_: False)
    with pytest.raises(LedgerUnavailable, match="may not read"):
        await environment.ledger.database.check_schema()
