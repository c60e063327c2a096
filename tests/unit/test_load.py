"""Loading both files together: what the single broken files do not show."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

import pytest

from bot.policy.loader import ConfigError, load
from tests.unit.config import DATABASES, POLICY, load_config, problems_of, write_config

QUICK = 1.0
"""Processor seconds within which a hostile file must be refused."""


def test_valid_files_load_without_warnings(tmp_path: Path) -> None:
    config = load_config(tmp_path)
    assert config.warnings == ()
    assert list(config.databases) == ["orders-prod"]
    (rule,) = config.rules
    assert rule.channel == "C01DBACCESS"
    assert (rule.duration, rule.max_duration) == (timedelta(hours=1), timedelta(hours=8))
    assert (rule.request_ttl, rule.provision_within) == (timedelta(hours=24), timedelta(hours=1))
    assert (rule.min_reason, rule.delivery) == (5, "dm")


def test_errors_of_both_files_are_reported_together_in_order(tmp_path: Path) -> None:
    problems = problems_of(
        tmp_path, databases=DATABASES.replace("roles:", "rolls:"), policy=POLICY.replace("levels:", "level:")
    )
    assert [(Path(p.file).name, p.line) for p in problems] == [
        ("databases.yml", 9),
        ("policy.yml", 7),
        ("policy.yml", 10),
    ]
    assert str(problems[0]).startswith(f"{tmp_path}/databases.yml:9: error: ")


def test_path_is_shown_as_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_config(tmp_path, policy="rules: {}")
    monkeypatch.chdir(tmp_path.parent)
    with pytest.raises(ConfigError) as problems:
        load(Path(tmp_path.name))
    assert str(problems.value) == f"{tmp_path.name}/policy.yml:1: error: rules: has the wrong form; it must be a list"


def test_invalid_database_is_still_a_known_name_in_the_policy(tmp_path: Path) -> None:
    problems = problems_of(tmp_path, databases=DATABASES.replace("engine: postgresql", "engine: 5"))
    assert [Path(p.file).name for p in problems] == ["databases.yml"]


def test_levels_of_an_invalid_database_are_not_reported_as_unknown(tmp_path: Path) -> None:
    broken = DATABASES + "      migrate: {rolls: [owner]}\n"
    whole = "  books: {engine: postgresql, admin_url: env:BOOKS_URL, levels: {readonly: {roles: [r]}}}\n"
    policy = POLICY.replace("[orders-prod]", "['*']").replace("[readonly]", "[migrate]")
    problems = problems_of(tmp_path, databases=broken + whole, policy=policy)
    assert [Path(p.file).name for p in problems] == ["databases.yml"]


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as problems:
        load(tmp_path)
    lines = str(problems.value).splitlines()
    assert [line.split(": error: ")[0] for line in lines] == [
        f"{tmp_path}/databases.yml:1",
        f"{tmp_path}/policy.yml:1",
    ]
    assert all("No such file" in line for line in lines)


@pytest.mark.parametrize("content", ["", "\n", "# nothing\n", "~", "null\n", "---\n"])
def test_empty_files_are_errors(content: str, tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, policy=content)
    assert problem.is_error
    assert "is empty" in problem.what


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        (b"rules: []\nadmins: [\xff]\n", 2, "is not UTF-8"),
        ("rules: []\nadmins: [\u0007]\n".encode(), 2, "cannot be printed"),
        (b"rules: []\nadmins:\x00 []\n", 2, "cannot be printed"),
        (b'rules: []\nadmins: ["\\0"]\n', 2, "cannot be printed"),
        (b'rules: []\n"\\x07": []\n', 2, "cannot be printed"),
        ("rules: []\n".encode("utf-16"), 1, "is not UTF-8"),
        (b"rules: []\ndefaults:\n\tchannel: C01\n", 3, "indent with spaces, not with tabs"),
        (b"rules: [\n", 2, "is no valid YAML"),
        (b'rules: "\n', 2, "is no valid YAML"),
    ],
)
def test_unreadable_text_is_reported_with_its_line(content: bytes, line: int, words: str, tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, policy=content)
    assert (problem.line, words in problem.what) == (line, True), str(problem)


def test_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    assert problems_of(tmp_path, policy=("\ufeff" + POLICY).encode()) == ()


def bomb() -> str:
    lines = ["a0: &a0 [x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 40)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (bomb(), "anchors and aliases are not used here"),
        ("rules: " + "[" * 100_000, "nested too deeply"),
        ("rules: " + "{a: " * 5_000, "nested too deeply"),
        ("rules:\n" + "".join(" " * n + "-\n" for n in range(1, 1_000)), "nested too deeply"),
        ("rules: []\n" + "# padding padding padding\n" * 400_000, "is too large"),
        ("rules: ['" + "x" * 10_000_000 + "']", "is too large"),
    ],
    ids=["aliases", "flow lists", "flow maps", "block lists", "10 MB of comments", "10 MB in one word"],
)
def test_hostile_files_are_refused_quickly(content: str, words: str, tmp_path: Path) -> None:
    write_config(tmp_path, policy=content)
    start = time.process_time()
    with pytest.raises(ConfigError) as problems:
        load(tmp_path)
    assert time.process_time() - start < QUICK
    (problem,) = problems.value.problems
    assert words in problem.what


def test_digest_depends_on_content_not_on_formatting(tmp_path: Path) -> None:
    digest = load_config(tmp_path).digest
    assert len(digest) == 12
    reordered = POLICY.replace("admins: [U01ADMIN]\n", "") + "\n# a word\nadmins:\n  - U01ADMIN\n"
    assert load_config(tmp_path, policy=reordered).digest == digest
    assert load_config(tmp_path, policy=POLICY.replace("U02LEAD", "U03LEAD")).digest != digest
    assert load_config(tmp_path, databases=DATABASES.replace("orders_reader", "reader")).digest != digest


DEFAULTS = """
defaults:
  postgresql:
    admin_role: dbaccess_owner
    tls: {mode: verify-ca, ca: /etc/ssl/corp.pem}
    connect: {note: From the VPN only}
"""


def test_defaults_fill_missing_keys_of_a_database(tmp_path: Path) -> None:
    entry = load_config(tmp_path, databases=DATABASES + DEFAULTS).databases["orders-prod"]
    assert entry.admin_role == "dbaccess_owner"
    assert entry.connect.note == "From the VPN only"


def test_key_of_a_database_replaces_the_default_entirely(tmp_path: Path) -> None:
    own = DATABASES.replace("    levels:", "    tls: {mode: require}\n    levels:")
    entry = load_config(tmp_path, databases=own + DEFAULTS).databases["orders-prod"]
    assert entry.tls is not None
    assert (entry.tls.mode, entry.tls.ca) == ("require", None)


def test_defaults_may_set_required_keys(tmp_path: Path) -> None:
    bare = DATABASES.replace("    admin_url: env:ORDERS_ADMIN_URL\n", "")
    shared = "\ndefaults:\n  postgresql: {admin_url: env:SHARED_ADMIN_URL}\n"
    assert load_config(tmp_path, databases=bare + shared).databases["orders-prod"].admin_url == "env:SHARED_ADMIN_URL"


def test_warning_about_a_default_has_the_line_of_the_default(tmp_path: Path) -> None:
    bare = DATABASES[: DATABASES.index("    levels:")]
    shared = "defaults:\n  postgresql:\n    levels:\n      readonly: {roles: [r]}\n      unused: {roles: [r]}\n"
    (problem,) = problems_of(tmp_path, databases=bare + shared)
    assert not problem.is_error
    assert "unused" in problem.what
    assert problem.line == (bare + shared).splitlines().index("    levels:") + 1


def test_labels_are_text_in_every_notation(tmp_path: Path) -> None:
    databases = DATABASES.replace("team: payments", "pci: true, tier: 1")
    policy = POLICY.replace("[orders-prod]", '[{pci: "true", tier: "1"}]')
    (rule,) = load_config(tmp_path, databases=databases, policy=policy).rules
    assert rule.databases == {"orders-prod"}


@pytest.mark.parametrize(
    ("wanted", "matched"),
    [
        ("orders-prod", {"orders-prod"}),
        ("orders-*", {"orders-prod", "orders-test"}),
        ("'*'", {"orders-prod", "orders-test", "books-prod"}),
        ("'*-pro?'", {"orders-prod", "books-prod"}),
        ("'[!o]*'", {"books-prod"}),
        ("{env: prod}", {"orders-prod", "books-prod"}),
        ("{env: prod, team: payments}", {"orders-prod"}),
        ("{env: prod, team: nobody}", set()),
        ("{env: test}, books-prod", {"orders-test", "books-prod"}),
        ("{nosuch: label}, 'x*'", set()),
    ],
)
def test_databases_are_selected_by_name_pattern_or_labels(wanted: str, matched: set[str], tmp_path: Path) -> None:
    entry = "engine: postgresql, admin_url: env:X, levels: {readonly: {roles: [reader]}}"
    databases = f"""
databases:
  orders-prod: {{labels: {{env: prod, team: payments}}, {entry}}}
  orders-test: {{labels: {{env: test, team: payments}}, {entry}}}
  books-prod: {{labels: {{env: prod, team: books}}, {entry}}}
"""
    policy = POLICY.replace("[orders-prod]", f"[{wanted}]")
    (rule,) = load_config(tmp_path, databases=databases, policy=policy).rules
    assert rule.databases == matched


def test_shortest_limit_of_defaults_and_rule_applies(tmp_path: Path) -> None:
    policy = POLICY.replace("{channel:", "{max_duration: 2h, channel:")
    wide = policy.replace("    levels:", "    max_duration: 6h\n    levels:")
    tight = policy.replace("    levels:", "    max_duration: 30m\n    levels:")
    assert [load_config(tmp_path, policy=p).rules[0].max_duration for p in (wide, tight)] == [
        timedelta(hours=2),
        timedelta(minutes=30),
    ]


def test_partly_covered_rule_is_not_reported(tmp_path: Path) -> None:
    policy = (
        POLICY
        + """
  - name: everybody else
    requesters: [anyone]
    databases: [orders-prod]
    levels: [readonly]
    approvals: [{from: [U01LEAD, U02LEAD]}]
"""
    )
    assert problems_of(tmp_path, policy=policy) == ()


def test_rule_covered_by_several_rules_together_is_reported(tmp_path: Path) -> None:
    def rule(name: str, *requesters: str) -> str:
        return POLICY.split("rules:\n")[1].replace("readers", name).replace("U01ASKER", ", ".join(requesters))

    head = POLICY.split("  - name")[0]
    both = head + rule("ann", "U01ANN") + rule("bob", "U01BOB") + rule("ann and bob", "U01ANN", "U01BOB")
    (problem,) = problems_of(tmp_path, policy=both)
    assert 'rule "ann and bob": never answers' in problem.what
    assert problems_of(tmp_path, policy=both.replace("[U01BOB]", "[U01CAT]")) == ()


@pytest.mark.parametrize("engine", ["mysql", "mariadb", "redis", "mongodb"])
def test_set_role_is_an_error_on_other_engines(tmp_path: Path, engine: str) -> None:
    databases = (
        DATABASES.replace("engine: postgresql", f"engine: {engine}") + "      migrate: {roles: [o], set_role: true}\n"
    )
    (problem,) = problems_of(tmp_path, databases=databases)
    assert str(problem).endswith(
        "error: database orders-prod: levels.migrate.set_role: is for PostgreSQL alone; remove it"
    )


def test_set_role_is_an_error_without_roles_and_none_with_them(tmp_path: Path) -> None:
    grants = "      migrate: {grants: [{'on': [a.b], privileges: [SELECT]}], set_role: true}\n"
    (problem,) = problems_of(tmp_path, databases=DATABASES + grants)
    assert "this level has none" in str(problem)
    databases = DATABASES + "      migrate: {roles: [o], set_role: true}\n"
    write_config(tmp_path, databases=databases)
    assert load(tmp_path).databases["orders-prod"].levels["migrate"].set_role


def test_set_role_in_the_defaults_of_another_engine_is_an_error(tmp_path: Path) -> None:
    databases = "databases:\n  orders-prod: {engine: mysql, admin_url: env:X}\n"
    databases += "defaults:\n  mysql:\n    levels:\n      readonly: {roles: [o], set_role: true}\n"
    (problem,) = problems_of(tmp_path, databases=databases)
    assert "set_role" in str(problem)
