"""Authorization of decisions: the terms frozen in the request, compared with today's policy."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from bot.policy import authorization, evaluation
from bot.policy.authorization import MayDecide, Outdated, may_decide
from bot.policy.config import Config
from bot.policy.facts import NO_FACTS
from bot.policy.questions import Allowed, NotAllowed, PolicyQuestion
from storage.records import Request, State, Verdict
from tests.unit.config import NOON, config_of, database, decision, rule, waiting_request

ASKER, LEAD, SECOND, STRANGER, ADMIN = "U01ASKER", "U01LEAD", "U02LEAD", "U99STRANGER", "U01ADMIN"
DATABASES = {"orders": database("readonly", "migrate", settings={"statement_timeout": "5min"})}
POLICY: dict[str, Any] = {
    "admins": [ADMIN],
    "rules": [
        rule("readers", requesters=[ASKER], levels=["readonly"], max_duration="4h"),
        rule("rest", approvals=[{"from": [LEAD], "count": 1}]),
    ],
}


def at(**changes: Any) -> Config:
    """The configuration with ``rule__key`` (of the first rule), ``level__key`` or ``entry__key`` changed."""
    databases, policy = deepcopy(DATABASES), deepcopy(POLICY)
    places = {
        "rule": policy["rules"][0],
        "level": databases["orders"]["levels"]["readonly"],
        "entry": databases["orders"],
    }
    for name, value in changes.items():
        place, _, key = name.partition("__")
        places[place][key] = value
    return config_of(databases, policy)


def waiting(config: Config | None = None, *, duration: timedelta = timedelta(hours=2)) -> Request:
    answer = evaluation.evaluate(
        config or at(),
        PolicyQuestion(
            person_id=ASKER, database="orders", level="readonly", duration=duration, reason="a fitting reason"
        ),
    )
    assert isinstance(answer, Allowed)
    return waiting_request(answer.terms, person_id=ASKER, database="orders")


def test_approver_may_decide() -> None:
    assert may_decide(at(), waiting(), (), LEAD, at=NOON) == MayDecide(stage=0)
    assert may_decide(at(), waiting(), (), SECOND, at=NOON) == MayDecide(stage=0)


def test_strangers_admins_and_the_command_line_may_not_decide() -> None:
    for person_id in (STRANGER, ADMIN, "cli:root", "", "anyone"):
        answer = may_decide(at(), waiting(), (), person_id, at=NOON)
        assert isinstance(answer, NotAllowed)
        assert "Only the approvers named by the rule “readers” can decide this" in answer.reason


def test_requester_may_not_decide_even_if_named_as_approver() -> None:
    named = at(rule__approvals=[{"from": [ASKER, LEAD], "count": 1}])
    answer = may_decide(named, waiting(named), (), ASKER, at=NOON)
    assert answer == NotAllowed(reason="You cannot decide your own request.")


def test_person_may_not_decide_twice() -> None:
    two = at(rule__approvals=[{"from": [LEAD, SECOND], "count": 2}])
    request = waiting(two)
    answer = may_decide(two, request, (decision(LEAD),), LEAD, at=NOON)
    assert isinstance(answer, NotAllowed)
    assert "A person decides once" in answer.reason
    assert may_decide(two, request, (decision(LEAD),), SECOND, at=NOON) == MayDecide(stage=0)


def test_completed_request_needs_no_further_decision() -> None:
    assert isinstance(may_decide(at(), waiting(), (decision(LEAD),), SECOND, at=NOON), NotAllowed)


def test_members_of_a_stage_are_those_of_today() -> None:
    changed = at(rule__approvals=[{"from": ["U03LEAD"], "count": 1}])
    assert isinstance(may_decide(changed, waiting(), (), LEAD, at=NOON), NotAllowed)
    assert may_decide(changed, waiting(), (), "U03LEAD", at=NOON) == MayDecide(stage=0)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rule__requesters": ["U02ASKER"]}, "another rule answers now: “rest” instead of “readers”."),
        ({"rule__levels": ["migrate"]}, "another rule answers now: “rest” instead of “readers”."),
        ({"rule__name": "renamed"}, "another rule answers now: “renamed” instead of “readers”."),
        ({"rule__approvals": [{"from": [LEAD, SECOND], "count": 2}]}, "asks for other approvals now"),
        ({"rule__approvals": [{"from": [LEAD]}, {"from": [SECOND]}]}, "asks for other approvals now"),
        ({"rule__max_duration": "1h"}, "no longer allows so long. 2 h is too long for readonly on orders: at most 1 h"),
        ({"level__max_duration": "30m"}, "no longer allows so long. 2 h is too long for readonly on orders"),
        ({"level__roles": ["readonly_role", "writer"]}, "the level readonly was changed meanwhile."),
        ({"level__grants": [{"on": ["t"], "privileges": ["SELECT"]}]}, "the level readonly was changed meanwhile."),
        ({"level__database": "other"}, "the level readonly was changed meanwhile."),
        ({"entry__settings": {}}, "the level readonly was changed meanwhile."),
        ({"entry__settings": {"statement_timeout": "6min"}}, "the level readonly was changed meanwhile."),
    ],
)
def test_change_of_what_the_card_shows_makes_a_request_outdated(changes: dict[str, Any], words: str) -> None:
    answer = may_decide(at(**changes), waiting(), (), LEAD, at=NOON)
    assert isinstance(answer, Outdated), answer
    assert words in answer.what


@pytest.mark.parametrize(
    "changes",
    [
        {"level__description": "in other words"},
        {"rule__duration": "10m"},
        {"rule__max_duration": "2h"},
        {"rule__channel": "C02OTHER"},
        {"rule__min_reason": 900},
        {"rule__request_ttl": "10m"},
        {"rule__provision_within": "10m"},
        {"rule__requesters": ["anyone"]},
        {"rule__databases": [{"env": "x"}, "orders"]},
        {"entry__description": "in other words"},
        {"rule__approvals": [{"from": [LEAD, "U03LEAD"], "count": 1}]},
    ],
)
def test_other_changes_leave_a_request_open(changes: dict[str, Any]) -> None:
    assert may_decide(at(**changes), waiting(), (), LEAD, at=NOON) == MayDecide(stage=0)


def test_removed_rule_database_or_level_makes_a_request_outdated() -> None:
    without_rules = config_of(DATABASES, {"rules": []})
    without_database = config_of({"other": database("readonly")}, POLICY)
    without_level = config_of({"orders": database("migrate")}, POLICY)
    for config in (without_rules, without_database, without_level):
        assert may_decide(config, waiting(), (), LEAD, at=NOON) == Outdated(what="the policy no longer allows it.")


@pytest.mark.parametrize("state", list(State))
@pytest.mark.parametrize(
    "decisions", [(), (decision(LEAD),), (decision(LEAD, stage=7),), (decision(LEAD, verdict=Verdict.DENY),)]
)
def test_may_decide_never_raises(state: State, decisions: Any) -> None:
    request = replace(waiting(), state=state)
    stageless = replace(request, terms=replace(request.terms, stages=(), level={}))
    for asked_for in (request, stageless, replace(request, database="nosuch"), replace(request, level="nosuch")):
        for person_id in (ASKER, LEAD, STRANGER, ""):
            assert isinstance(
                may_decide(at(), asked_for, decisions, person_id, at=NOON), MayDecide | NotAllowed | Outdated
            )


# Revoking and seeing.


@pytest.mark.parametrize(
    ("person_id", "may_revoke", "may_see"),
    [
        (LEAD, True, True),
        (SECOND, True, True),
        (ADMIN, True, True),
        ("cli:root", True, True),
        (ASKER, False, True),
        (STRANGER, False, False),
    ],
)
def test_who_may_revoke_and_who_may_see(person_id: str, may_revoke: bool, may_see: bool) -> None:
    assert authorization.may_revoke(at(), waiting(), (), person_id) is may_revoke
    assert authorization.may_see(at(), waiting(), (), person_id) is may_see


def test_former_approvers_may_still_revoke() -> None:
    changed = at(rule__approvals=[{"from": ["U03LEAD", "U04LEAD"], "count": 1}])
    for person_id in (LEAD, SECOND, "U03LEAD"):
        assert authorization.may_revoke(changed, waiting(), (), person_id)
    assert authorization.may_revoke(changed, waiting(), (decision("U09GONE"),), "U09GONE")


def test_person_who_denied_may_see_but_not_revoke() -> None:
    denied = (decision("U09GONE", verdict=Verdict.DENY),)
    assert authorization.may_see(at(), waiting(), denied, "U09GONE")
    assert not authorization.may_revoke(at(), waiting(), denied, "U09GONE")


def test_current_approvers_are_those_of_the_same_rule() -> None:
    changed = at(rule__approvals=[{"from": ["U03LEAD", "U03LEAD", LEAD], "count": 1}])
    assert authorization.current_approvers(changed, waiting(), NO_FACTS, at=NOON) == {"U03LEAD", LEAD}
    assert authorization.current_approvers(at(rule__name="renamed"), waiting(), NO_FACTS, at=NOON) == {LEAD, SECOND}
