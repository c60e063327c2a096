"""The manifest of the Slack app: scopes, events, command; and Slack's own schema where it is available."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from bot.slack.commands import COMMAND
from bot.slack.doctor import SCOPES

ROOT = Path(__file__).parent.parent.parent
REAL_SCOPES = {
    "commands",
    "chat:write",
    "users:read",
    "users:read.email",
    "usergroups:read",
    "channels:read",
    "groups:read",
}
REAL_EVENTS = {
    "app_home_opened", "user_change", "subteam_updated", "subteam_members_changed", "channel_shared", "channel_id_changed",
    "channel_archive", "group_archive", "app_uninstalled", "tokens_revoked",
}  # fmt: skip


@pytest.fixture
def manifest() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / "manifest.yml").read_text())
    return found


def test_manifest_has_the_promised_scopes_and_events(manifest: dict[str, Any]) -> None:
    scopes = manifest["oauth_config"]["scopes"]["bot"]
    assert set(scopes) == REAL_SCOPES == set(SCOPES)
    assert set(manifest["settings"]["event_subscriptions"]["bot_events"]) == REAL_EVENTS


def test_manifest_has_the_slash_command(manifest: dict[str, Any]) -> None:
    (command,) = manifest["features"]["slash_commands"]
    assert command["command"] == COMMAND
    assert command["should_escape"] is True
    assert manifest["settings"]["socket_mode_enabled"] is True
    assert manifest["settings"]["interactivity"]["is_enabled"] is True


@pytest.mark.skipif("SLACK_MANIFEST_SCHEMA" not in os.environ, reason="Slack's manifest schema is not available")
@pytest.mark.parametrize("version", ["1.0.0", "2.0.0"])
def test_manifest_is_valid_by_slacks_schema(manifest: dict[str, Any], version: str) -> None:
    schema = json.loads(
        (Path(os.environ["SLACK_MANIFEST_SCHEMA"]) / "schemas" / f"manifest.schema.{version}.json").read_text()
    )
    jsonschema.validate(manifest, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**manifest, "display_information": {"name": "x" * 36}}, schema)
