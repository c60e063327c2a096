"""Answers to commands: whole, in our voice, and cut only where it says so."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from bot.access.use_case_types import RequestOutcome, StatusView
from bot.slack.render import replies
from bot.slack.render.blocks import RenderedMessage
from storage.records import Decision, Stage, State, Verdict
from tests.unit.test_cards import AT, HOUR, Request, catalog_entries, request


def ours(state: State, **changes: object) -> Request:
    found = replace(
        request("refund", state), id=42, level="readonly", database="orders-prod", username="jit_42_ada_kkkk"
    )
    stages = (Stage(approvers=("U0LEAD", "U0ADA", "U0SECOND"), count=1),)
    return replace(found, terms=replace(found.terms, stages=stages, rule="shop"), **changes)  # type: ignore[arg-type]


def shown(answer: RenderedMessage) -> str:
    return "\n".join(b["text"]["text"] for b in answer.blocks if b["type"] == "section")


def buttons(answer: RenderedMessage) -> list[str]:
    return [e["text"]["text"] for b in answer.blocks if b["type"] == "actions" for e in b["elements"]]


def test_who_is_waited_for_and_never_the_requester() -> None:
    answer = replies.asked(RequestOutcome(request=ours(State.PENDING), is_new=True))
    assert answer.text.startswith(
        "Request #42 is waiting for <@U0LEAD>, <@U0SECOND>. I will tell you when it is decided;"
    )
    assert buttons(answer) == ["Cancel"]
    again = replies.asked(RequestOutcome(request=ours(State.PENDING), is_new=False))
    assert "is waiting already: I did not ask again" in again.text


def test_many_approvers_are_counted() -> None:
    many = ours(State.PENDING)
    many = replace(
        many, terms=replace(many.terms, stages=(Stage(approvers=tuple(f"U{n}" for n in range(14)), count=1),))
    )
    assert "<@U9> and 4 more. I will" in replies.asked(RequestOutcome(request=many, is_new=True)).text


def test_the_list_has_buttons_for_ones_own_alone() -> None:
    mine = [ours(State.PENDING), ours(State.ACTIVE), ours(State.APPROVED), ours(State.REVOKING)]
    assert buttons(replies.listed(mine, "U0ADA")) == ["Cancel", "I'm done", "I'm done"]
    assert buttons(replies.listed(mine, "U0LEAD")) == []
    assert "*#42* readonly on orders-prod — <@U0ADA>: live until" in shown(replies.listed(mine, "U0LEAD"))
    assert "and 5 more" in str(replies.listed([mine[0]] * 20, "U0ADA").blocks[-1])


def test_every_offer_is_shown_or_counted() -> None:
    answer = replies.databases(catalog_entries(40))
    for entry in catalog_entries(40):
        assert f"*{entry.database}* {entry.level} — up to 8 h" in shown(answer)
    assert "and 50 more" in str(replies.databases(catalog_entries(90)).blocks[-1])


def test_status_tells_state_decisions_sessions_and_time_left() -> None:
    vote = Decision(request_id=42, person_id="U0LEAD", person_name="lead", verdict=Verdict.APPROVE, stage=0, at=AT)
    view = StatusView(request=ours(State.ACTIVE), decisions=(vote,), events=(), sessions=1)
    answer = replies.status(view, AT + timedelta(minutes=15))
    for words in ("Why: refund", "Approved by <@U0LEAD>", "45 min left, 1 session open; user `jit_42_ada_kkkk`"):
        assert words in answer.text
    silent = replies.status(replace(view, sessions=None), AT + 2 * HOUR)
    assert "0 s left, sessions not known: the server did not answer" in silent.text


def test_help_is_there_for_all_one_and_what_comes_later() -> None:
    assert all(f"/dbaccess {usage}" in replies.help_for(None).text for usage, _ in replies.COMMANDS.values())
    assert replies.help_for("cancel").text == "`/dbaccess cancel ID` withdraw your waiting request"
    assert replies.help_for("dance").text == replies.help_for(None).text


@pytest.mark.parametrize("later", replies.LATER)
def test_what_comes_later_is_not_among_what_there_is(later: str) -> None:
    assert replies.help_for(later).text == f"{later} comes with a later version."
    assert later not in replies.COMMANDS
