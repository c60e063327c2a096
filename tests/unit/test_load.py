"""Both files as a whole: what no single broken file shows."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

import pytest

from bot.policy.loader import ConfigError, load
from tests.unit.config import DATABASES, POLICY, loaded, told, written

QUICK = 1.0
"""Processor seconds within which a hostile file must be refused."""


def test_good_files_load_without_a_word(tmp_path: Path) -> None:
    config = loaded(tmp_path)
    assert config.warnings == ()
    assert list(config.databases) == ["orders-prod"]
    (rule,) = config.rules
    assert rule.channel == "C01DBACCESS"
    assert (rule.duration, rule.max_duration) == (timedelta(hours=1), timedelta(hours=8))
    assert (rule.request_ttl, rule.provision_within) == (timedelta(hours=24), timedelta(hours=1))
    assert (rule.min_reason, rule.delivery) == (5, "dm")


def test_mistakes_of_both_files_come_together_in_order(tmp_path: Path) -> None:
    problems = told(
        tmp_path, databases=DATABASES.replace("roles:", "rolls:"), policy=POLICY.replace("levels:", "level:")
    )
    assert [(Path(p.file).name, p.line) for p in problems] == [
        ("databases.yml", 9),
        ("policy.yml", 7),
        ("policy.yml", 10),
    ]
    assert str(problems[0]).startswith(f"{tmp_path}/databases.yml:9: error: ")


def test_the_path_is_shown_as_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path, policy="rules: {}")
    monkeypatch.chdir(tmp_path.parent)
    with pytest.raises(ConfigError) as mistakes:
        load(Path(tmp_path.name))
    assert str(mistakes.value) == f"{tmp_path.name}/policy.yml:1: error: rules: has the wrong form; it must be a list"


def test_a_database_with_a_mistake_is_still_a_name_in_the_policy(tmp_path: Path) -> None:
    problems = told(tmp_path, databases=DATABASES.replace("engine: postgresql", "engine: 5"))
    assert [Path(p.file).name for p in problems] == ["databases.yml"]


def test_levels_of_a_database_with_a_mistake_are_not_called_unknown(tmp_path: Path) -> None:
    broken = DATABASES + "      migrate: {rolls: [owner]}\n"
    whole = "  books: {engine: postgresql, admin_url: env:BOOKS_URL, levels: {readonly: {roles: [r]}}}\n"
    policy = POLICY.replace("[orders-prod]", "['*']").replace("[readonly]", "[migrate]")
    problems = told(tmp_path, databases=broken + whole, policy=policy)
    assert [Path(p.file).name for p in problems] == ["databases.yml"]


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as mistakes:
        load(tmp_path)
    lines = str(mistakes.value).splitlines()
    assert [line.split(": error: ")[0] for line in lines] == [
        f"{tmp_path}/databases.yml:1",
        f"{tmp_path}/policy.yml:1",
    ]
    assert all("No such file" in line for line in lines)


@pytest.mark.parametrize("content", ["", "\n", "# nothing\n", "~", "null\n", "---\n"])
def test_empty_files_are_errors(content: str, tmp_path: Path) -> None:
    (problem,) = told(tmp_path, policy=content)
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
def test_text_that_cannot_be_read_has_a_line(content: bytes, line: int, words: str, tmp_path: Path) -> None:
    (problem,) = told(tmp_path, policy=content)
    assert (problem.line, words in problem.what) == (line, True), str(problem)


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    assert told(tmp_path, policy=("\ufeff" + POLICY).encode()) == ()


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
    written(tmp_path, policy=content)
    start = time.process_time()
    with pytest.raises(ConfigError) as mistakes:
        load(tmp_path)
    assert time.process_time() - start < QUICK
    (problem,) = mistakes.value.problems
    assert words in problem.what


def test_the_digest_is_that_of_the_meaning(tmp_path: Path) -> None:
    digest = loaded(tmp_path).digest
    assert len(digest) == 12
    reordered = POLICY.replace("admins: [U01ADMIN]\n", "") + "\n# a word\nadmins:\n  - U01ADMIN\n"
    assert loaded(tmp_path, policy=reordered).digest == digest
    assert loaded(tmp_path, policy=POLICY.replace("U02LEAD", "U03LEAD")).digest != digest
    assert loaded(tmp_path, databases=DATABASES.replace("orders_reader", "reader")).digest != digest


DEFAULTS = """
defaults:
  postgresql:
    admin_role: dbaccess_owner
    tls: {mode: verify-ca, ca: /etc/ssl/corp.pem}
    connect: {note: From the VPN only}
"""


def test_defaults_fill_what_a_database_leaves_out(tmp_path: Path) -> None:
    entry = loaded(tmp_path, databases=DATABASES + DEFAULTS).databases["orders-prod"]
    assert entry.admin_role == "dbaccess_owner"
    assert entry.connect.note == "From the VPN only"


def test_a_databases_own_key_wins_whole(tmp_path: Path) -> None:
    own = DATABASES.replace("    levels:", "    tls: {mode: require}\n    levels:")
    entry = loaded(tmp_path, databases=own + DEFAULTS).databases["orders-prod"]
    assert entry.tls is not None
    assert (entry.tls.mode, entry.tls.ca) == ("require", None)


def test_defaults_may_bring_what_is_required(tmp_path: Path) -> None:
    bare = DATABASES.replace("    admin_url: env:ORDERS_ADMIN_URL\n", "")
    shared = "\ndefaults:\n  postgresql: {admin_url: env:SHARED_ADMIN_URL}\n"
    assert loaded(tmp_path, databases=bare + shared).databases["orders-prod"].admin_url == "env:SHARED_ADMIN_URL"


def test_a_warning_about_a_shared_key_points_at_where_it_stands(tmp_path: Path) -> None:
    bare = DATABASES[: DATABASES.index("    levels:")]
    shared = "defaults:\n  postgresql:\n    levels:\n      readonly: {roles: [r]}\n      unused: {roles: [r]}\n"
    (problem,) = told(tmp_path, databases=bare + shared)
    assert not problem.is_error
    assert "unused" in problem.what
    assert problem.line == (bare + shared).splitlines().index("    levels:") + 1


def test_labels_are_text_however_they_are_written(tmp_path: Path) -> None:
    databases = DATABASES.replace("team: payments", "pci: true, tier: 1")
    policy = POLICY.replace("[orders-prod]", '[{pci: "true", tier: "1"}]')
    (rule,) = loaded(tmp_path, databases=databases, policy=policy).rules
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
def test_databases_are_meant_by_name_pattern_or_labels(wanted: str, matched: set[str], tmp_path: Path) -> None:
    entry = "engine: postgresql, admin_url: env:X, levels: {readonly: {roles: [reader]}}"
    databases = f"""
databases:
  orders-prod: {{labels: {{env: prod, team: payments}}, {entry}}}
  orders-test: {{labels: {{env: test, team: payments}}, {entry}}}
  books-prod: {{labels: {{env: prod, team: books}}, {entry}}}
"""
    policy = POLICY.replace("[orders-prod]", f"[{wanted}]")
    (rule,) = loaded(tmp_path, databases=databases, policy=policy).rules
    assert rule.databases == matched


def test_the_tightest_of_defaults_and_rule_is_the_rules(tmp_path: Path) -> None:
    policy = POLICY.replace("{channel:", "{max_duration: 2h, channel:")
    wide = policy.replace("    levels:", "    max_duration: 6h\n    levels:")
    tight = policy.replace("    levels:", "    max_duration: 30m\n    levels:")
    assert [loaded(tmp_path, policy=p).rules[0].max_duration for p in (wide, tight)] == [
        timedelta(hours=2),
        timedelta(minutes=30),
    ]


def test_a_rule_covered_only_in_part_is_no_dead_end(tmp_path: Path) -> None:
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
    assert told(tmp_path, policy=policy) == ()


def test_rules_that_answer_only_together_make_a_dead_end_below_them(tmp_path: Path) -> None:
    def rule(name: str, *requesters: str) -> str:
        return POLICY.split("rules:\n")[1].replace("readers", name).replace("U01ASKER", ", ".join(requesters))

    head = POLICY.split("  - name")[0]
    both = head + rule("ann", "U01ANN") + rule("bob", "U01BOB") + rule("ann and bob", "U01ANN", "U01BOB")
    (problem,) = told(tmp_path, policy=both)
    assert 'rule "ann and bob": never answers' in problem.what
    assert told(tmp_path, policy=both.replace("[U01BOB]", "[U01CAT]")) == ()
