"""README and docs name what there is: settings, keys, commands, transitions, dependencies; and every link leads somewhere."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.core import TyperGroup
from typer.main import get_command

from bot.cli import app
from bot.policy.schema import Name, schema
from bot.settings import Settings
from bot.slack.render.replies import COMMANDS
from storage.lifecycle import TRANSITIONS
from storage.records import State
from storage.transitions import Transition

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
README_WORDS = 1300
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").rglob("*.md")])
VARIABLES = [str(field.validation_alias) for field in Settings.model_fields.values()]


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text()


def leaves(group: TyperGroup, path: str = "dbaccess") -> Iterator[tuple[str, list[str]]]:
    """Each command with the options that are shown."""
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from leaves(command, f"{path} {name}")
        else:
            options = [
                p.opts[0] for p in command.params if p.opts[0].startswith("--") and not getattr(p, "hidden", False)
            ]
            yield f"{path} {name}", options


def commands() -> list[tuple[str, list[str]]]:
    found = get_command(app)
    assert isinstance(found, TyperGroup)
    return list(leaves(found))


def test_readme_is_short() -> None:
    assert len(README.split()) <= README_WORDS


@pytest.mark.parametrize("name", VARIABLES)
def test_every_variable_has_a_row(name: str) -> None:
    assert re.search(rf"^\| `{name}` \|", page("settings.md"), re.MULTILINE)


@pytest.mark.parametrize("name", [n for n, f in Settings.model_fields.items() if f.default is not None])
def test_every_default_is_right(name: str) -> None:
    field = Settings.model_fields[name]
    default = field.default.get_secret_value() if hasattr(field.default, "get_secret_value") else field.default
    shown = f"./{default}" if isinstance(default, Path) else str(default)
    assert re.search(rf"^\| `{field.validation_alias}` \| `{re.escape(shown)}` \|", page("settings.md"), re.MULTILINE)


@pytest.mark.parametrize("file", ["databases", "policy"])
def test_every_key_is_described(file: Name) -> None:
    whole = schema(file)
    keys = {key for part in (whole, *whole["$defs"].values()) for key in part.get("properties", {})}
    assert sorted(key for key in keys if f"`{key}`" not in page("settings.md")) == []


@pytest.mark.parametrize(("usage", "_does"), COMMANDS.values(), ids=list(COMMANDS))
def test_every_slack_command_has_a_row(usage: str, _does: str) -> None:
    assert f"| `/dbaccess {usage}` |" in page("slack.md")


@pytest.mark.parametrize(("command", "options"), commands(), ids=[command for command, _ in commands()])
def test_every_command_has_a_row_with_its_options(command: str, options: list[str]) -> None:
    row = re.search(rf"^\| `{command}[ `].*$", page("command-line.md"), re.MULTILINE)
    assert row is not None
    assert [option for option in options if option not in row[0]] == []


@pytest.mark.parametrize("transition", list(TRANSITIONS), ids=str)
def test_every_transition_has_a_row_with_its_states(transition: Transition) -> None:
    rule = TRANSITIONS[transition]
    row = re.search(rf"^\| `{transition.name}` \| ([^|]*)\|", page("architecture.md"), re.MULTILINE)
    assert row is not None
    sources, _, target = row[1].partition(" → ")
    if set(rule.sources) != set(State):
        assert set(re.findall(r"`(\w+)`", sources)) == {state.value for state in rule.sources}
    assert "unchanged" in sources if rule.target is None else f"`{rule.target}`" in target


def test_every_state_is_explained() -> None:
    assert [state.value for state in State if f"`{state.value}`" not in page("architecture.md")] == []


def test_every_dependency_is_named_with_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    _, _, table = README.partition("\n## Dependencies\n")
    named = re.findall(r"[\w-]+", " ".join(re.findall(r"^\| ([^|]+) \| [^|]{5,} \|$", table, re.MULTILINE)))
    for requirement in project["project"]["dependencies"]:
        assert re.split(r"[\[>=<,]", requirement)[0] in named, requirement
    tools = re.findall(
        r"^\| ([^|]+) \| [^|]{5,} \|$", page("development.md").partition("\n## Tools\n")[2], re.MULTILINE
    )
    for requirement in project["dependency-groups"]["dev"]:
        assert re.split(r"[\[>=<,]", requirement)[0] in ", ".join(tools).split(", "), requirement


def test_every_make_target_has_a_row() -> None:
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert [t for t in targets if t != "help" and f"| `make {t}` |" not in page("development.md")] == []


def test_every_picture_in_readme_is_there() -> None:
    pictures = re.findall(r"!\[[^\]]+\]\((docs/[^)]+\.png)\)", README)
    assert len(pictures) >= 5
    assert all((ROOT / picture).stat().st_size > 10_000 for picture in pictures)


def test_every_page_is_listed() -> None:
    named = {path.name for path in (ROOT / "docs").glob("*.md")} - {"index.md"}
    for listing in (README, page("index.md")):
        assert sorted(name for name in named if f"{name})" not in listing) == []


def anchors(text: str) -> set[str]:
    """As GitHub makes them of headings."""
    titles = re.findall(r"^#+ (.+)$", re.sub(r"```.*?```", "", text, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", PAGES, ids=[str(path.relative_to(ROOT)) for path in PAGES])
def test_every_link_leads_somewhere(path: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
        if "://" in link:
            continue
        place, _, anchor = link.partition("#")
        there = (path.parent / place).resolve() if place else path
        if not there.exists() or (anchor and anchor not in anchors(there.read_text())):
            broken.append(link)
    assert broken == []
