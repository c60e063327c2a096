"""The table of alerts in the documentation names every cause that the code raises."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| (`[^|]+`) \| (condition|event) \| ([^|]+) \| ([^|]*)\|$", re.MULTILINE)
CAUSE = re.compile(r"""cause=f?(?:"([^"]+)"|([A-Z]+)\b|([a-z_]+)\()""")
CONSTANTS = {"CLOSED": "audit_channel", "CAUSE": "configuration", "ADDRESSES": "silent:addresses", "end_cause": "end:"}


def rows() -> dict[str, tuple[str, str]]:
    """Cause → kind, and when it is resolved."""
    found = {}
    for names, kind, _raised, resolved in ROW.findall((ROOT / "docs/development.md").read_text()):
        found |= {name: (kind, resolved.strip()) for name in re.findall(r"`([^`]+)`", names)}
    return found


def first(cause: str) -> str:
    return re.split(r"[:{]", cause)[0]


def test_every_cause_is_in_the_table() -> None:
    raised = set()
    for path in (ROOT / "bot").rglob("*.py"):
        for text, constant, function in CAUSE.findall(path.read_text()):
            raised.add(first(text or CONSTANTS.get(constant or function, "")))
    raised -= {""}
    shown = {first(cause) for cause in rows()}
    assert raised <= shown, "raised, and not in the table"
    assert {"end", "server", "configuration", "audit_channel", "break_glass", "task"} <= shown


def test_every_condition_has_a_resolver_and_no_event_has_one() -> None:
    assert {kind == "condition" for kind, resolved in rows().values() if resolved} == {True}
    assert all(resolved for kind, resolved in rows().values() if kind == "condition")
