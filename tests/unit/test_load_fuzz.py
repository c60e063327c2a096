"""Files with random changes, by seed: loading them gives a configuration or a list of errors, and nothing else."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bot.policy.loader import ConfigError, load
from tests.soak import rounds

FILES = 200
CUT = 0.1
"""How often a file is truncated."""

DATABASES: dict[str, Any] = {
    "databases": {
        "shop": {
            "engine": "postgresql", "description": "x", "labels": {"env": "prod"}, "admin_url": "env:X", "admin_role": "o",
            "ops_schema": "s", "replicas": ["env:Y"], "tls": {"mode": "prefer", "ca": "/x"},
            "connect": {"host": "h", "port": 1, "database": "d", "tls": "require", "note": "n"},
            "levels": {
                "r": {
                    "description": "d", "roles": ["a"], "grants": [{"on": ["x"], "privileges": ["y"]}], "max_duration": "1h",
                    "database": "z",
                }
            },
            "settings": {"a": "b"},
        }
    },
    "defaults": {"postgresql": {"tls": {"mode": "verify-full"}}},
}  # fmt: skip
POLICY: dict[str, Any] = {
    "admins": ["U01"], "auditors": ["S01"], "audit_channel": "C01", "alert_channel": "C02",
    "ticket_url": "https://t/{ticket}", "limits": {"live_per_person": 1},
    "defaults": {
        "channel": "C03", "duration": "1h", "max_duration": "8h", "max_total": "24h", "min_reason": 5, "request_ttl": "1h",
        "provision_within": "1h", "delivery": "dm", "claim_within": "30m", "remind_after": "30m",
    },
    "rules": [
        {
            "name": "a", "requesters": ["U01", "a@b.co", "anyone"], "databases": ["shop", "sh*", {"env": "prod"}],
            "levels": ["r", "*"], "max_duration": "1h", "ticket": "[A-Z]+",
            "hours": {"days": "mon-fri", "from": "08:00", "to": "19:00", "tz": "Europe/Berlin"},
            "deciding_hours": {"days": ["mon"], "from": "08:00", "to": "24:00", "tz": "UTC"},
            "approvals": [{"from": ["U02", "S01"], "count": 1}], "escalate": {"after": "1h", "to": ["S02"]},
            "otherwise": "next", "notify": ["C01", "S01"],
        },
        {
            "name": "b", "requesters": ["anyone"], "databases": ["*"], "levels": ["*"], "approvals": [],
            "automatic": {"per_person_per_day": 1},
        },
        {
            "name": "g", "break_glass": True, "requesters": ["U01"], "databases": ["*"], "levels": ["*"], "approvals": [],
            "review": {"from": ["U02"], "within": "24h"},
        },
        {"name": "n", "requesters": ["anyone"], "databases": ["*"], "levels": ["*"], "refuse": "no"},
    ],
    "tests": [
        {
            "ask": "U01 shop r 1h x", "at": "2026-11-23T10:00:00+01:00", "approve": ["U02"], "expect": "granted", "rule": "a",
            "break_glass": False,
        }
    ],
    "groups_in_tests": {"S01": ["U03"]},
}  # fmt: skip
JUNK: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 10**17, 1.5, float("inf"), "", " ", "~", "x", "*", "[", "]", "[!", "[z-a]", "1h", "0s",
    "9999d", "mon", "mon-", "-", "24:00", "00:00", "25:00", "U01", "S01", "@a", "a@b", "C01", "env:X", "file:/x", "{ticket}",
    "https://{ticket}", "(?P<a>x)", "(((((", "a{1001}", "\\pZ", "x" * 5000, "é", "\u202e", "\U0001f600", [], [[]], {}, [None],
    [{}], {"a": None}, {"": ""}, {"x": []}, [1, 2], {"from": []}, ["anyone"], "anyone", "../x", "/etc/localtime", "localtime",
    "Etc/GMT+5", "posix/UTC", "2026-01-01", "2026-01-01T00:00:00", "9999-12-31T23:59:59+00:00", "0001-01-01T00:00:00+14:00",
    "1e5", "0x10", "shop", "r", "next", "\n", "a\nb", "\t",
)  # fmt: skip
KEYS = ("x", "on", "1", "name", "from", "tests", "<<", "=", "null", "a b", "é")


def paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths to every part of the data."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inside:
        yield (*path, key)
        yield from paths(part, (*path, key))


def mutated(whole: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """Make one to three changes."""
    whole = copy.deepcopy(whole)
    for _ in range(chance.randint(1, 3)):
        *way, last = chance.choice(list(paths(whole)))
        place: Any = whole
        for key in way:
            place = place[key]
        _change(place, last, chance)
    return whole


def _change(place: Any, key: Any, chance: random.Random) -> None:
    """Replace a value, remove one, or add one."""
    kind = chance.random()
    if kind < 0.6:
        place[key] = copy.deepcopy(chance.choice(JUNK))
    elif isinstance(place, list):
        place.append(copy.deepcopy(chance.choice(JUNK)))
    elif kind < 0.75:
        del place[key]
    else:
        place[chance.choice(KEYS)] = copy.deepcopy(chance.choice(JUNK))


def write(folder: Path, chance: random.Random) -> None:
    databases = mutated(DATABASES, chance) if chance.random() < 0.4 else DATABASES
    policy = yaml.safe_dump(mutated(POLICY, chance) if chance.random() < 0.8 else POLICY, allow_unicode=True)
    if chance.random() < CUT:
        policy = policy[: chance.randrange(len(policy))]
    (folder / "databases.yml").write_text(yaml.safe_dump(databases, allow_unicode=True))
    (folder / "policy.yml").write_text(policy)


@pytest.mark.timeout(1800)
def test_random_files_load_or_are_reported_as_invalid(tmp_path: Path) -> None:
    problems = 0
    for seed in range(rounds(FILES)):
        write(tmp_path, random.Random(seed))
        try:
            load(tmp_path)
        except ConfigError:
            problems += 1
        except Exception as unforeseen:  # noqa: BLE001 - that there is none is what is tested
            pytest.fail(f"seed {seed}: {type(unforeseen).__name__}: {str(unforeseen)[:200]}")
    assert 0 < problems < rounds(FILES), "some files are good and some are not"
