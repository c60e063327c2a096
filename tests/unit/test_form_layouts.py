"""The options of forms, and the reading of a submitted form."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from bot.access.errors import NotUnderstood
from bot.access.use_case_types import RequestInput
from bot.policy.catalog import CatalogEntry
from bot.slack.render import form_layouts
from tests.fake_slack import blockkit
from tests.unit.test_cards import State, request

HOUR = timedelta(hours=1)
READ = CatalogEntry(
    database="orders-prod",
    description="Orders",
    level="readonly",
    level_description="Read orders",
    duration=HOUR,
    max_duration=4 * HOUR,
    rule="r",
)
WRITE = replace(READ, level="readwrite", level_description="Write orders", max_duration=2 * HOUR)
USERS = replace(READ, database="users", description="", level_description="Read users", max_duration=HOUR / 2)
CATALOG = (READ, WRITE, USERS)
REQUEST_AGAIN = RequestInput(database="orders-prod", level="readwrite", duration=timedelta(minutes=7), reason="refund")


def field(form: dict[str, Any], label: str) -> dict[str, Any]:
    return next(b for b in form["blocks"] if b["type"] == "input" and b["label"]["text"] == label)


def values(form: dict[str, Any], label: str) -> list[str]:
    return [o["value"] for o in field(form, label)["element"]["options"]]


def initial(form: dict[str, Any], label: str) -> str | None:
    option = field(form, label)["element"].get("initial_option")
    return option["value"] if option else None


def submit(form: dict[str, Any], **labels: str) -> dict[str, Any]:
    """Return the submitted view with the touched fields only, as some clients send it."""
    state = {}
    for label, value in labels.items():
        block = field(form, label.replace("_", " "))
        if block["element"]["type"] == "plain_text_input":
            state[block["block_id"]] = {block["element"]["action_id"]: {"value": value}}
        else:
            option = next(o for o in block["element"]["options"] if o["value"] == value)
            state[block["block_id"]] = {block["element"]["action_id"]: {"selected_option": option}}
    return {**form, "state": {"values": state}}


def test_empty_form_offers_everything_and_selects_nothing() -> None:
    form = form_layouts.request_form(CATALOG, RequestInput())
    assert values(form, "Database") == ["orders-prod", "users"]
    assert values(form, "Level") == ["readonly", "readwrite"]
    assert initial(form, "Database") is None
    assert initial(form, "Level") is None
    assert values(form, "For how long") == ["15m", "30m", "1h", "2h", "4h"]
    assert form["submit"]["text"] == "Ask"
    assert field(form, "Why")["element"]["max_length"] == 1000
    assert "auditor" in field(form, "Why")["hint"]["text"]


def test_level_description_is_shown_only_if_it_is_unambiguous() -> None:
    def labels(form: dict[str, Any]) -> list[str]:
        return [o["text"]["text"] for o in field(form, "Level")["element"]["options"]]

    assert labels(form_layouts.request_form(CATALOG, RequestInput())) == ["readonly", "readwrite — Write orders"]
    assert labels(form_layouts.request_form(CATALOG, RequestInput(database="users"))) == ["readonly — Read users"]


def test_levels_and_durations_are_those_of_the_database() -> None:
    form = form_layouts.request_form(CATALOG, RequestInput(database="users"))
    assert initial(form, "Database") == "users"
    assert values(form, "Level") == ["readonly"]
    assert initial(form, "Level") == "readonly"
    assert values(form, "For how long") == ["15m", "30m", "1h"]


def test_request_again_fills_in_the_form() -> None:
    form = form_layouts.request_form(CATALOG, REQUEST_AGAIN)
    assert [initial(form, label) for label in ("Database", "Level", "For how long")] == [
        "orders-prod",
        "readwrite",
        "7m",
    ]
    assert field(form, "Why")["element"]["initial_value"] == "refund"


def test_untouched_fields_have_their_initial_values() -> None:
    form = form_layouts.request_form(CATALOG, REQUEST_AGAIN)
    assert form_layouts.submitted(submit(form, Why="refund")) == REQUEST_AGAIN
    assert form_layouts.submitted(submit(form, Level="readonly", For_how_long="1h", Why="x")) == RequestInput(
        database="orders-prod", level="readonly", duration=HOUR, reason="x"
    )


def test_shown_level_counts_if_the_form_was_not_updated() -> None:
    form = form_layouts.request_form(CATALOG, RequestInput(database="orders-prod", level="readwrite"))
    seen = form_layouts.submitted(submit(form, Database="users", Level="readonly", Why="x"))
    assert (seen.database, seen.level) == ("users", "readonly")


def test_metadata_has_no_text_of_a_person() -> None:
    form = form_layouts.request_form(CATALOG, REQUEST_AGAIN)
    assert set(json.loads(form["private_metadata"])) == {"database", "level", "duration"}
    assert "refund" not in form["private_metadata"]


@pytest.mark.parametrize("metadata", ["", "{", "[]", "null", '{"database": "orders-prod"}'])
def test_form_with_invalid_metadata_is_read(metadata: str) -> None:
    form = form_layouts.request_form(CATALOG, RequestInput())
    seen = form_layouts.submitted({**submit(form, Database="users", Why="  x  "), "private_metadata": metadata})
    assert (seen.database, seen.level, seen.reason) == ("users", None, "x")


def test_blank_reason_is_none() -> None:
    assert form_layouts.submitted(submit(form_layouts.request_form(CATALOG, RequestInput()), Why=" \n ")).reason is None
    assert (
        form_layouts.submitted(submit(form_layouts.request_form(CATALOG, RequestInput()), Why="\x00 \ud800")).reason
        is None
    )


def test_characters_that_the_ledger_cannot_store_are_removed() -> None:
    """PostgreSQL refuses NUL, and UTF-8 half a surrogate pair. The request would fail as if the ledger were down."""
    assert (
        form_layouts.submitted(
            submit(form_layouts.request_form(CATALOG, RequestInput()), Why="re\x00fund\ud800")
        ).reason
        == "refund"
    )


def test_forged_duration_is_refused() -> None:
    form = {
        **form_layouts.request_form(CATALOG, RequestInput()),
        "private_metadata": '{"duration": "for ever"}',
        "state": {},
    }
    with pytest.raises(NotUnderstood, match="for ever"):
        form_layouts.submitted(form)


@pytest.mark.parametrize("number", [100, 101, 999, 1500])
def test_up_to_1000_databases_are_offered(number: int) -> None:
    catalog_entries = [replace(READ, database=f"{n:04}-{'x' * 35}", description="d" * 200) for n in range(number)]
    form = form_layouts.request_form(catalog_entries, RequestInput(database=catalog_entries[-1].database))
    assert blockkit.problems_of_view(form) == []
    element = field(form, "Database")["element"]
    options = [o for g in element.get("option_groups", [element]) for o in g["options"]]
    assert [o["value"] for o in options] == [o.database for o in catalog_entries[:1000]]
    assert ("The first 1000 databases" in str(form)) is (number > 1000)
    assert form_layouts.submitted({**form, "state": {}}).database == catalog_entries[-1].database


def test_deny_form_has_a_reason_field() -> None:
    form = form_layouts.deny_form(request("x", State.PENDING))
    assert form["submit"]["text"] == "Deny"
    assert field(form, "Why")["element"]["max_length"] == 1000
    assert form["private_metadata"] == request("x", State.PENDING).token


def test_level_block_id_is_found_in_the_form() -> None:
    for database in (None, "users"):
        form = form_layouts.request_form(CATALOG, RequestInput(database=database))
        assert form_layouts.level_block_id(form) == field(form, "Level")["block_id"]


@pytest.mark.parametrize("catalog_entries", [CATALOG, (), (replace(READ, wants_ticket=True),)])
def test_extension_form_has_duration_reason_and_ticket(catalog_entries: tuple[CatalogEntry, ...]) -> None:
    grant = replace(request("refund", State.ACTIVE), database="orders-prod", level="readonly")
    form = form_layouts.extension_form(grant, catalog_entries, RequestInput())
    assert blockkit.problems_of_view(form) == []
    labels = [b["label"]["text"] for b in form["blocks"] if b["type"] == "input"]
    assert labels == ["For how long", "Why", *(["Ticket"] if any(o.wants_ticket for o in catalog_entries) else [])]
    assert form["submit"]["text"] == "Ask"
    assert form_layouts.grant_token(form) == grant.token
    assert form_layouts.grant_token({"private_metadata": "[]"}) == ""


@pytest.mark.parametrize(
    ("why", "ticket", "reason"),
    [
        ("a refund", "PAY-1", "a refund PAY-1"),
        ("PAY-1 a refund", "PAY-1", "PAY-1 a refund"),
        ("a refund", "", "a refund"),
        ("", "PAY-1", None),
    ],
)
def test_ticket_becomes_part_of_the_reason(why: str, ticket: str, reason: str | None) -> None:
    wanted = {"why": {"value": {"value": why}}, "ticket": {"value": {"value": ticket}}}
    assert form_layouts.submitted({"state": {"values": wanted}}).reason == reason


def test_ticket_is_optional_if_only_some_rules_need_one() -> None:
    form = form_layouts.request_form((READ, replace(WRITE, wants_ticket=True)), RequestInput())
    assert field(form, "Ticket")["optional"] is True
    assert blockkit.problems_of_view(form) == []


def test_password_form_is_within_slacks_limits() -> None:
    grant = request("refund", State.ACTIVE)
    assert blockkit.problems_of_view(form_layouts.password_form(grant)) == []
