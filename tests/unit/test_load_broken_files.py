"""Each file in ``broken/`` marks its invalid lines: ``#!`` at the end of a line is followed by the expected message."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bot.access.files import Files
from tests.unit.config import problems_of, write_config

HERE = Path(__file__).parent / "broken"
FILES = sorted(HERE.glob("*/*.yml"))
OTHER_POLICY = """
defaults: {channel: C01DBACCESS}
rules:
  - name: everything
    requesters: [U01ASKER]
    databases: [orders-*]
    levels: [readonly]
    approvals: [{from: [U01LEAD, U02LEAD]}]
"""
SECRET = "hunter2"


def expected(text: str) -> list[tuple[int, bool, str]]:
    """Line, whether it is an error, and message, in the order of the file."""
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        for words in line.split("#! ")[1:]:
            is_error = not words.startswith("warning: ")
            found.append((number, is_error, words.removeprefix("warning: ").strip()))
    return found


def test_there_are_many_broken_files() -> None:
    assert len(FILES) >= 90
    assert all(expected(path.read_text()) for path in FILES)


@pytest.mark.parametrize("path", FILES, ids=[f"{path.parent.name}-{path.stem}" for path in FILES])
def test_broken_file_is_reported_line_by_line(path: Path, tmp_path: Path) -> None:
    text, kind = path.read_text(), path.parent.name
    problems = (
        problems_of(tmp_path, databases=text, policy=OTHER_POLICY)
        if kind == "databases"
        else problems_of(tmp_path, policy=text)
    )
    shown = "\n".join(map(str, problems))
    wanted = expected(text)
    assert [(p.line, p.is_error) for p in problems] == [(line, is_error) for line, is_error, _ in wanted], shown
    assert {p.file for p in problems} == {str(tmp_path / f"{kind}.yml")}
    missing = [words for line, _, words in wanted if not any(words in p.what for p in problems if p.line == line)]
    assert not missing, shown
    assert SECRET not in shown


@pytest.mark.parametrize("path", FILES, ids=[f"{path.parent.name}-{path.stem}" for path in FILES])
def test_broken_file_is_reported_alike_without_its_marks(path: Path, tmp_path: Path) -> None:
    """The marks are comments. Without them the same problems are reported, so no mark can make itself true."""
    text, kind = path.read_text(), path.parent.name
    bare = "\n".join(line.split("  #! ")[0] for line in text.splitlines())
    both = [
        problems_of(tmp_path, databases=t, policy=OTHER_POLICY)
        if kind == "databases"
        else problems_of(tmp_path, policy=t)
        for t in (text, bare)
    ]
    assert both[0] == both[1]


@pytest.mark.parametrize("path", FILES, ids=[f"{path.parent.name}-{path.stem}" for path in FILES])
def test_broken_files_never_come_into_force(path: Path, tmp_path: Path) -> None:
    """Neither at the start nor on reload: the previous configuration stays in force, complete."""
    text, kind = path.read_text(), path.parent.name
    errors = [p for p in problems_of(tmp_path, **_files(kind, text)) if p.is_error]
    at_start = Files(tmp_path)
    at_start.refresh()
    assert (at_start.config is None) == bool(errors)
    write_config(tmp_path)
    files = Files(tmp_path)
    files.refresh()
    good = files.config
    assert good is not None
    write_config(tmp_path, **_files(kind, text))
    files.forget()
    files.refresh()
    assert (files.config is good) == bool(errors)
    assert (files.problems is not None) == bool(errors)


def _files(kind: str, text: str) -> dict[str, Any]:
    return {"databases": text, "policy": OTHER_POLICY} if kind == "databases" else {"policy": text}
