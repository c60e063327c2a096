"""Every example in docs/policy.md loads and its tests pass; the JSON Schema is current and matches what loads."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from bot.policy.schema import Name, schema
from bot.policy.source import read_source
from bot.policy.testing import run_tests
from tests.unit.config import DATABASES, POLICY, load_config

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "policy.md").read_text()
DATABASES_OF_THE_PAGE, *EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
TITLES = [re.findall(r"^## (.*)$", PAGE.split(example)[0], re.MULTILINE)[-1] for example in EXAMPLES]


@pytest.mark.parametrize("example", EXAMPLES, ids=TITLES)
def test_tests_of_each_example_pass(example: str, tmp_path: Path) -> None:
    config = load_config(tmp_path, databases=DATABASES_OF_THE_PAGE, policy=example)
    tested = run_tests(config)
    assert tested, "each example has tests"
    assert [one.difference for one in tested] == [""] * len(tested)


def test_examples_contain_every_key() -> None:
    """Each key of policy.yml is in an example."""
    text = "".join(EXAMPLES)
    keys = set(schema("policy")["properties"])
    for part in ("RuleEntry", "DefaultsEntry", "LimitsEntry", "StageEntry", "TestEntry", "HoursEntry"):
        keys |= set(schema("policy")["$defs"][part]["properties"])
    unnamed = {key for key in keys if not re.search(rf"\b{key}:", text)} - {"deciding_hours", "audit_channel"}
    assert unnamed == set()
    assert "deciding_hours" in PAGE


@pytest.mark.parametrize("name", ["policy", "databases"])
def test_schema_on_disk_is_current(name: Name) -> None:
    assert json.loads((ROOT / "docs" / "schema" / f"{name}.json").read_text()) == schema(name)
    Draft202012Validator.check_schema(schema(name))


def schema_errors(name: Name, text: str) -> list[str]:
    """The errors that an editor shows for the file as dbaccess reads it: ``on`` is text, not a boolean."""
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        file.write(text)
        file.flush()
        data = read_source(Path(file.name)).data
    return [str(e.message) for e in Draft202012Validator(schema(name)).iter_errors(data)]


@pytest.mark.parametrize("text", [POLICY, *EXAMPLES, (ROOT / "demo/config/policy.yml").read_text()])
def test_valid_policy_files_match_the_schema(text: str) -> None:
    assert schema_errors("policy", text) == []


@pytest.mark.parametrize("text", [DATABASES, DATABASES_OF_THE_PAGE, (ROOT / "demo/config/databases.yml").read_text()])
def test_valid_databases_files_match_the_schema(text: str) -> None:
    assert schema_errors("databases", text) == []


@pytest.mark.parametrize(
    "change",
    [
        {"audit_chanel": "C01"},
        {"admins": ["ann"]},
        {"rules": {}},
        {"limits": {"live_per_person": 0}},
        {"rules": [{"name": "x"}]},
        {"tests": [{"ask": "U01 x", "expect": "maybe"}]},
    ],
)
def test_schema_rejects_simple_errors(change: dict[str, Any]) -> None:
    assert schema_errors("policy", yaml.safe_dump({**yaml.safe_load(POLICY), **change}))


def test_shipped_files_name_their_schema() -> None:
    for name in ("policy", "databases"):
        first = (ROOT / "demo" / "config" / f"{name}.yml").read_text().splitlines()[0]
        assert first == f"# yaml-language-server: $schema=../../docs/schema/{name}.json"
