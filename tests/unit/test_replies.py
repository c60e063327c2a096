"""Replies to commands have their texts and buttons, and are shortened only where they say so."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from bot.access.use_case_types import RequestOutcome, StatusView
from bot.slack.render import replies
from bot.slack.render.blocks import RenderedMessage
from storage.records import Decision, Stage, State, Verdict
from tests.unit.test_cards import AT, HOUR, Request, catalog_entries, request


def make_request(state: State, **changes: object) -> Request:
    found = replace(
        request("refund", state), id=42, level="readonly", database="orders-prod", username="jit_42_ada_kkkk"
    )
    stages = (Stage(approvers=("U0LEAD", "U0ADA", "U0SECOND"), count=1),)
    return replace(found, terms=replace(found.terms, stages=stages, rule="shop"), **changes)  # type: ignore[arg-type]


def section_texts(answer: RenderedMessage) -> str:
    return "\n".join(b["text"]["text"] for b in answer.blocks if b["type"] == "section")


def buttons(answer: RenderedMessage) -> list[str]:
    return [e["text"]["text"] for b in answer.blocks if b["type"] == "actions" for e in b["elements"]]


def test_request_reply_names_the_approvers_without_the_requester() -> None:
    answer = replies.request_reply(RequestOutcome(request=make_request(State.PENDING), is_new=True))
    assert answer.text.startswith(
        "Request #42 is waiting for <@U0LEAD>, <@U0SECOND>. I will tell you when it is decided;"
    )
    assert buttons(answer) == ["Cancel"]
    again = replies.request_reply(RequestOutcome(request=make_request(State.PENDING), is_new=False))
    assert "is waiting already: I did not ask again" in again.text


def test_request_reply_counts_further_approvers() -> None:
    many = make_request(State.PENDING)
    many = replace(
        many, terms=replace(many.terms, stages=(Stage(approvers=tuple(f"U{n}" for n in range(14)), count=1),))
    )
    assert "<@U9> and 4 more. I will" in replies.request_reply(RequestOutcome(request=many, is_new=True)).text


def test_list_has_buttons_for_own_requests_only() -> None:
    mine = [
        make_request(State.PENDING),
        make_request(State.ACTIVE),
        make_request(State.APPROVED),
        make_request(State.REVOKING),
    ]
    assert buttons(replies.list_reply(mine, "U0ADA")) == ["Cancel", "I'm done", "I'm done"]
    assert buttons(replies.list_reply(mine, "U0LEAD")) == []
    assert "*#42* readonly on orders-prod — <@U0ADA>: live until" in section_texts(replies.list_reply(mine, "U0LEAD"))
    assert "and 5 more" in str(replies.list_reply([mine[0]] * 20, "U0ADA").blocks[-1])


def test_every_catalog_entry_is_shown_or_counted() -> None:
    answer = replies.databases_reply(catalog_entries(40))
    for entry in catalog_entries(40):
        assert f"*{entry.database}* {entry.level} — up to 8 h" in section_texts(answer)
    assert "and 50 more" in str(replies.databases_reply(catalog_entries(90)).blocks[-1])


def test_status_shows_decisions_sessions_and_time_left() -> None:
    vote = Decision(request_id=42, person_id="U0LEAD", person_name="lead", verdict=Verdict.APPROVE, stage=0, at=AT)
    view = StatusView(request=make_request(State.ACTIVE), decisions=(vote,), events=(), sessions=1)
    answer = replies.status_reply(view, AT + timedelta(minutes=15))
    for text in ("Why: refund", "Approved by <@U0LEAD>", "45 min left, 1 session open; user `jit_42_ada_kkkk`"):
        assert text in answer.text
    silent = replies.status_reply(replace(view, sessions=None), AT + 2 * HOUR)
    assert "0 s left, sessions not known: the server did not answer" in silent.text


def test_help_shows_all_commands_or_one() -> None:
    assert all(f"/dbaccess {usage}" in replies.help_reply(None).text for usage, _ in replies.COMMANDS.values())
    assert replies.help_reply("cancel").text == "`/dbaccess cancel ID` withdraw your waiting request"
    assert replies.help_reply("dance").text == replies.help_reply(None).text


@pytest.mark.parametrize("later", replies.PLANNED_COMMANDS)
def test_planned_command_has_no_help_yet(later: str) -> None:
    assert replies.help_reply(later).text == f"{later} comes with a later version."
    assert later not in replies.COMMANDS
