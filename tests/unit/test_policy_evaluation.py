"""Evaluation of requests, and the text of a refusal."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from bot.policy.authorization import is_admin
from bot.policy.catalog import catalog_entries
from bot.policy.config import Config
from bot.policy.evaluation import evaluate
from bot.policy.explain import explain_evaluation
from bot.policy.questions import Allowed, Evaluation, MissingPart, NotAllowed, PolicyQuestion
from storage.records import RequestKind, Stage
from tests.unit.config import config_of, database, rule

ASKER, STRANGER = "U01ASKER", "U99STRANGER"


def hours(number: float) -> timedelta:
    return timedelta(hours=number)


@pytest.fixture
def config() -> Config:
    """The requester may read orders-prod and migrate it for an hour, and read books; vault belongs to somebody else."""
    orders = database("readonly", "readwrite", "migrate")
    orders["levels"]["migrate"]["max_duration"] = "1h"
    payments = rule("payments", requesters=[ASKER], databases=["orders-prod"], levels=["readonly", "migrate"])
    books = rule("books", requesters=[ASKER], databases=["books"], levels=["*"], min_reason=20)
    vault = rule("vault", requesters=["U01BOSS"], databases=["vault", "orders-prod"])
    return config_of(
        {
            "orders-prod": orders,
            "books": database("readonly", settings={"statement_timeout": "5min"}),
            "vault": database("readonly"),
        },
        {
            "admins": ["U01ADMIN"],
            "defaults": {"max_duration": "4h", "duration": "2h"},
            "rules": [payments, books, vault],
        },
    )


def ask(config: Config, text: str = "orders-prod readonly", *, person_id: str = ASKER, **keys: Any) -> Evaluation:
    database_name, _, level = text.partition(" ")
    asked = {"reason": "Customer 8812 was charged twice", **keys}
    return evaluate(
        config, PolicyQuestion(person_id=person_id, database=database_name or None, level=level or None, **asked)
    )


def refusal(answer: Evaluation) -> str:
    assert isinstance(answer, NotAllowed)
    return answer.reason


def allowed(answer: Evaluation) -> Allowed:
    assert isinstance(answer, Allowed), answer
    return answer


# The rule that answers.


def test_allowed_request_carries_the_terms_of_its_rule(config: Config) -> None:
    terms = allowed(ask(config, duration=hours(3))).terms
    assert terms.rule == "payments"
    assert terms.stages == (Stage(approvers=("U01LEAD", "U02LEAD"), count=1),)
    assert (terms.channel, terms.duration, terms.delivery) == ("C01DBACCESS", hours(3), "dm")
    assert (terms.request_ttl, terms.provision_within) == (hours(24), hours(1))
    assert terms.level == {
        "name": "readonly",
        "description": "",
        "roles": ["readonly_role"],
        "grants": [],
        "database": None,
        "settings": {},
        "set_role": False,
    }
    assert terms.policy_digest == config.digest


def test_request_without_a_matching_rule_is_refused(config: Config) -> None:
    assert isinstance(ask(config, person_id=STRANGER), NotAllowed)
    assert isinstance(ask(config, "vault readonly"), NotAllowed)
    assert isinstance(ask(config, "orders-prod readwrite"), NotAllowed)
    assert isinstance(ask(config_of({"orders-prod": database("readonly")}, {"rules": []})), NotAllowed)


def test_first_matching_rule_answers_even_with_a_refusal() -> None:
    first = rule("first", databases=["orders-prod"], max_duration="30m")
    second = rule("second", databases=["orders-prod"], max_duration="8h")
    config = config_of({"orders-prod": database("readonly")}, {"rules": [first, second]})
    assert allowed(ask(config, duration=hours(0.5))).terms.rule == "first"
    assert "at most 30 min. Rule: first." in refusal(ask(config, duration=hours(1)))


def test_rule_for_other_levels_or_people_is_skipped() -> None:
    others = rule("others", requesters=["U01OTHER"])
    migrate = rule("migrate", levels=["migrate"])
    mine = rule("mine", requesters=[ASKER])
    config = config_of({"orders-prod": database("readonly", "migrate")}, {"rules": [others, migrate, mine]})
    assert allowed(ask(config)).terms.rule == "mine"
    assert allowed(ask(config, "orders-prod migrate")).terms.rule == "migrate"
    assert allowed(ask(config, person_id="U01OTHER")).terms.rule == "others"


@pytest.mark.parametrize("kind", [RequestKind.BREAK_GLASS, RequestKind.EXTENSION])
def test_ordinary_rule_never_answers_break_glass_or_extension(config: Config, kind: RequestKind) -> None:
    assert isinstance(ask(config, kind=kind), NotAllowed)


# How long.


def test_missing_duration_is_the_default_within_the_limits(config: Config) -> None:
    assert allowed(ask(config)).terms.duration == hours(2)
    assert allowed(ask(config, "orders-prod migrate")).terms.duration == hours(1)


@pytest.mark.parametrize(("level", "cap"), [("readonly", 4), ("migrate", 1)])
def test_too_long_duration_is_refused_and_never_shortened(config: Config, level: str, cap: int) -> None:
    assert allowed(ask(config, f"orders-prod {level}", duration=hours(cap))).terms.duration == hours(cap)
    longer = hours(cap) + timedelta(seconds=1)
    assert refusal(ask(config, f"orders-prod {level}", duration=longer)) == (
        f"{cap} h 1 s is too long for {level} on orders-prod: at most {cap} h. Rule: payments."
    )


@pytest.mark.parametrize("seconds", [9.999, 1, 0, -1, -7200])
def test_too_short_duration_is_refused(config: Config, seconds: float) -> None:
    assert refusal(ask(config, duration=timedelta(seconds=seconds))) == "That is too short: at least 10 s."
    assert allowed(ask(config, duration=timedelta(seconds=10)))


# Missing parts.


@pytest.mark.parametrize("text", ["", "orders-prod"])
def test_missing_database_or_ambiguous_level_is_reported(config: Config, text: str) -> None:
    answer = ask(config, text)
    assert isinstance(answer, MissingPart)
    assert (answer.part, answer.choices) == (("database", ()) if not text else ("level", ("readonly", "migrate")))


def test_level_may_be_omitted_where_there_is_only_one(config: Config) -> None:
    assert allowed(ask(config, "books")).terms.level["name"] == "readonly"


@pytest.mark.parametrize("reason", [None, "", "   \n"])
def test_missing_reason_is_reported(config: Config, reason: str | None) -> None:
    assert ask(config, reason=reason) == MissingPart(part="reason")


def test_reason_has_a_minimum_and_a_maximum_length(config: Config) -> None:
    assert "at least 20 characters" in refusal(ask(config, "books", reason="  refund of a customer"[:20]))
    assert allowed(ask(config, "books", reason="x" * 20))
    assert allowed(ask(config, reason="x" * 1000))
    assert refusal(ask(config, reason="x" * 1001)) == "The reason has 1001 characters; at most 1000."


def test_refusal_comes_before_the_missing_reason(config: Config) -> None:
    assert isinstance(ask(config, reason=None, duration=hours(9)), NotAllowed)
    assert isinstance(ask(config, "vault readonly", reason=None), NotAllowed)


# The text of a refusal.


def test_refusal_says_what_would_be_allowed(config: Config) -> None:
    assert refusal(ask(config, "orders-prod readwrite")) == (
        "You may not ask for readwrite on orders-prod. You may ask for readonly (up to 4 h), migrate (up to 1 h). Rule: payments."
    )


def test_refusal_for_another_database_lists_the_persons_own(config: Config) -> None:
    said = refusal(ask(config, "shop readonly"))
    assert said == (
        "You may not ask for shop. You may ask for readonly on orders-prod (up to 4 h), "
        "migrate on orders-prod (up to 1 h), readonly on books (up to 4 h)."
    )


def test_suggested_names_are_only_the_persons_own(config: Config) -> None:
    assert "Did you mean orders-prod?" in refusal(ask(config, "order-prod readonly"))
    assert "Did you mean" not in refusal(ask(config, "vaul readonly"))
    said = refusal(ask(config, "orders-pro readonly", person_id=STRANGER))
    assert said == "You may not ask for orders-pro. There is nothing you may ask for."


def test_forbidden_database_looks_like_an_unknown_one(config: Config) -> None:
    real, made_up = (refusal(ask(config, f"{name} readonly")) for name in ("vault", "moult"))
    assert real.replace("vault", "X") == made_up.replace("moult", "X")


# The catalog.


def test_catalog_lists_what_a_person_may_request(config: Config) -> None:
    assert [(o.database, o.level, o.max_duration, o.duration, o.rule) for o in catalog_entries(config, ASKER)] == [
        ("orders-prod", "readonly", hours(4), hours(2), "payments"),
        ("orders-prod", "migrate", hours(1), hours(1), "payments"),
        ("books", "readonly", hours(4), hours(2), "books"),
    ]
    assert catalog_entries(config, STRANGER) == ()
    assert [o.database for o in catalog_entries(config, ASKER, database="books")] == ["books"]
    assert catalog_entries(config, ASKER, database="nosuch") == ()


# The explanation.


def test_explanation_lists_each_rule() -> None:
    others = rule("others", requesters=["U01OTHER"])
    migrate = rule("migrate", levels=["migrate"])
    mine = rule("mine", requesters=[ASKER])
    config = config_of({"orders-prod": database("readonly", "migrate")}, {"rules": [others, migrate, mine]})
    assert explain_evaluation(ask(config)) == (
        "Allowed to ask.",
        "Rule “others” is about orders-prod, but not for this person.",
        "Rule “migrate” is about orders-prod and this person, but not about readonly.",
        "Rule “mine” answers.",
        "For 1 h, readonly; the request goes to C01DBACCESS.",
        "1 of U01LEAD, U02LEAD must approve.",
    )


def test_explanation_of_a_refusal_ends_with_its_reason(config: Config) -> None:
    lines = explain_evaluation(ask(config, duration=hours(9)))
    assert lines[0] == "Refused."
    assert lines[-2] == "Rule “payments” answers."
    assert "too long" in lines[-1]
    assert "No rule answers, so the request is refused." in explain_evaluation(ask(config, person_id=STRANGER))
    assert "orders-prod has no level nosuch." in explain_evaluation(ask(config, "orders-prod nosuch"))
    assert "No database is named nosuch." in explain_evaluation(ask(config, "nosuch readonly"))


def test_explanation_of_a_missing_part_lists_the_choices(config: Config) -> None:
    assert explain_evaluation(ask(config, "orders-prod")) == ("The level is missing. One of: readonly, migrate.",)


# Admins.


def test_admins_are_the_named_people_and_the_command_line(config: Config) -> None:
    assert [is_admin(config, who) for who in ("U01ADMIN", "cli:root", ASKER, "U01ADMI", "")] == [
        True,
        True,
        False,
        False,
        False,
    ]


def test_level_cannot_extend_the_limit_of_its_rule() -> None:
    generous = database("readonly")
    generous["levels"]["readonly"]["max_duration"] = "12h"
    config = config_of({"orders-prod": generous}, {"rules": [rule("mine", max_duration="4h")]})
    assert "at most 4 h" in refusal(ask(config, duration=hours(5)))
