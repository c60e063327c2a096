"""From an entry of databases.yml to an adapter's target and level: references, TLS, identifiers."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from adapters.base import Level, Rejected, Target
from bot.databases import DatabaseEntry, level, level_json, resolve, target
from bot.policy.evaluation import same_level
from tests.unit.ledgers import terms

SECRET = "postgresql://admin:hunter2@orders.db.internal:5432/orders"


def entry(**keys: object) -> DatabaseEntry:
    return DatabaseEntry.model_validate(
        {"engine": "postgresql", "admin_url": "env:ORDERS_URL", "levels": {"readonly": {"roles": ["reader"]}}, **keys}
    )


def mode(url: str, monkeypatch: pytest.MonkeyPatch, **keys: object) -> str:
    monkeypatch.setenv("ORDERS_URL", url)
    return target("orders", entry(**keys), prefix="jit_", ledger="abc").tls.mode


# Secrets.


def test_secret_is_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORDERS_URL", SECRET)
    assert resolve("env:ORDERS_URL") == SECRET


def test_secret_is_read_from_a_file_without_its_last_newline(tmp_path: Path) -> None:
    file = tmp_path / "orders"
    file.write_text(SECRET + "\n")
    assert resolve(f"file:{file}") == SECRET


@pytest.mark.parametrize("value", [None, ""])
def test_unset_and_empty_variables_are_named(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORDERS_URL", raising=False)
    if value is not None:
        monkeypatch.setenv("ORDERS_URL", value)
    with pytest.raises(Rejected, match="ORDERS_URL is not set"):
        resolve("env:ORDERS_URL")


def test_unreadable_secret_file_is_named_and_its_content_not_shown(tmp_path: Path) -> None:
    strange, empty = tmp_path / "strange", tmp_path / "empty"
    strange.write_bytes(b"hunter2\xff")
    empty.write_text("\n")
    for place in (tmp_path / "none", tmp_path, strange, empty):
        with pytest.raises(Rejected, match=str(place)) as rejected:
            resolve(f"file:{place}")
        assert "hunter2" not in f"{rejected.value!s}{rejected.value!r}{rejected.value.__cause__!r}"


@pytest.mark.parametrize(
    "reference",
    [
        SECRET,
        "hunter2",
        "env:",
        "env:A B",
        "env:1A",
        "file:",
        "file:relative",
        "ENV:X",
        "env:X\n",
        "",
        5,
        None,
        ["env:X"],
    ],
)
def test_only_references_are_accepted_and_no_value_is_shown(reference: object) -> None:
    with pytest.raises(ValueError, match="a reference to a secret is env:NAME or file:/path") as refused:
        entry(admin_url=reference)
    assert "hunter2" not in str(refused.value)


# TLS.


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://a:b@localhost/x",
        "postgresql://a:b@127.0.0.1:5432/x",
        "postgresql://a:b@127.9.9.9/x",
        "postgresql://a:b@[::1]:5432/x",
        "postgresql://a:b@localhost,127.0.0.1/x",
        "postgresql:///x?host=/var/run/postgresql",
    ],
)
def test_default_tls_on_loopback_is_prefer(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mode(url, monkeypatch) == "prefer"


@pytest.mark.parametrize(
    "url",
    [
        SECRET,
        "postgresql://a:b@10.0.0.1/x",
        "postgresql://a:b@localhost.example.com/x",
        "postgresql://localhost:x@orders.db/x",
        "postgresql:///x?host=orders.db",
        "postgresql://localhost/x?host=orders.db",
        "postgresql://localhost/x?hostaddr=10.0.0.1",
        "postgresql://localhost,orders.db/x",
        "postgresql://localhost:5432,orders.db:5432/x",
        "postgresql://localhost/x?service=orders",
        "postgresql:///x",
        "no address at all",
        "postgresql://[::1/x",
    ],
)
def test_default_tls_elsewhere_is_verify_full(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert mode(url, monkeypatch) == "verify-full"


def test_default_tls_without_the_secret_is_verify_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ORDERS_URL", raising=False)
    assert target("orders", entry(), prefix="jit_", ledger="abc").tls.mode == "verify-full"


def test_configured_tls_mode_applies_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    assert mode("postgresql://localhost/x", monkeypatch, tls={"mode": "verify-ca"}) == "verify-ca"
    assert mode(SECRET, monkeypatch, tls={"mode": "disable"}) == "disable"


# Target and level.


def test_target_contains_references_and_survives_json(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ORDERS_URL", SECRET)
    found = target(
        "orders", entry(admin_role="owner", connect={"host": "orders.db", "port": 5433}), prefix="jit_", ledger="abc"
    )
    frozen = json.dumps(asdict(found))
    assert "hunter2" not in frozen
    assert Target.from_json(json.loads(frozen)) == found
    assert (found.admin_url, found.admin_role, found.connect.host, found.connect.port) == (
        "env:ORDERS_URL",
        "owner",
        "orders.db",
        5433,
    )


def test_frozen_level_equals_the_level() -> None:
    found = entry(
        levels={
            "support": {
                "description": "Customers",
                "grants": [{"on": ["shop.customers"], "privileges": ["SELECT"]}],
                "database": "orders_next",
            }
        },
        settings={"statement_timeout": "5min", "work_mem": 64, "jit": True},
    )
    frozen = json.loads(json.dumps(level_json("support", found)))
    assert Level.from_json(frozen) == level("support", found)
    assert frozen["settings"] == {"statement_timeout": "5min", "work_mem": "64", "jit": "true"}


@pytest.mark.parametrize("host", ['x"; rm -rf ~; "', "a b", "a\nb", "$(id)", "`id`", "a/b", "a@b", ""])
def test_host_that_would_break_the_pasted_command_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match="a host is a name or an address"):
        entry(connect={"host": host})


@pytest.mark.parametrize("name", ["", "a\x00b", "a\x1fb", "a\x7fb", "x" * 64, "ä" * 32])
def test_impossible_identifiers_are_refused(name: str) -> None:
    for keys in ({"admin_role": name}, {"levels": {"readonly": {"roles": [name]}}}, {"connect": {"database": name}}):
        with pytest.raises(ValueError, match="a name in a database has 1 to 63 bytes"):
            entry(**keys)


def test_hostile_but_possible_identifiers_are_kept_unchanged() -> None:
    name = 'read"er; drop table x --'
    assert level("readonly", entry(levels={"readonly": {"roles": [name]}})).roles == (name,)


def test_replicas_stay_references() -> None:
    found = target("orders", entry(replicas=["env:ORDERS_REPLICA", "file:/run/second"]), prefix="jit_", ledger="abc")
    assert found.replicas == ("env:ORDERS_REPLICA", "file:/run/second")
    with pytest.raises(ValueError, match="env:NAME"):
        entry(replicas=[SECRET])


# set_role.


def with_set_role(value: object, **keys: object) -> DatabaseEntry:
    return entry(levels={"migrate": {"roles": ["owner"], "set_role": value}}, **keys)


def test_set_role_is_off_unless_the_level_says_so() -> None:
    assert not level("readonly", entry()).set_role
    assert level_json("readonly", entry())["set_role"] is False
    found = with_set_role(value=True)
    assert level("migrate", found).set_role
    assert Level.from_json(json.loads(json.dumps(level_json("migrate", found)))) == level("migrate", found)


def test_level_that_an_older_version_froze_has_no_set_role() -> None:
    frozen = {key: value for key, value in level_json("readonly", entry()).items() if key != "set_role"}
    assert Level.from_json(frozen) == level("readonly", entry())


@pytest.mark.parametrize("value", ["true", "yes", 1, None, []])
def test_set_role_is_true_or_false(value: object) -> None:
    with pytest.raises(ValueError, match="set_role"):
        with_set_role(value)


def test_set_role_makes_another_level() -> None:
    older = {
        key: value for key, value in level_json("migrate", with_set_role(value=False)).items() if key != "set_role"
    }
    same, other = (terms(level=level_json("migrate", with_set_role(value=value))) for value in (False, True))
    assert same_level(terms(level=older), same)
    assert not same_level(terms(level=older), other)
    assert not same_level(same, other)
