"""Every message and form, in every state and with hostile texts, is within the limits of Block Kit."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest

from adapters.base import Endpoint
from bot.access.descriptions import time_mark
from bot.access.ports import Notice
from bot.access.use_case_types import RequestInput, RequestOutcome, StatusView
from bot.notifications.notices import (
    AlertNotice,
    CardNotice,
    ClosedNotice,
    CredentialsNotice,
    EndingSoonNotice,
    FeedNotice,
    GrantedNotice,
    PreparingNotice,
    ReminderNotice,
    ReviewNotice,
    StateChangeNotice,
)
from bot.policy.catalog import CatalogEntry
from bot.slack.render import form_layouts, replies
from bot.slack.render.notices import render
from storage.audit_kinds import AuditKind
from storage.records import (
    AuditEvent,
    Cause,
    Decision,
    Escalation,
    Receipt,
    ReceiptOutcome,
    Request,
    RequestKind,
    Review,
    Stage,
    State,
    Terms,
    Verdict,
)
from tests.fake_slack import blockkit

AT = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
HOUR = timedelta(hours=1)
PEOPLE = tuple(f"U{n:09d}" for n in range(60))
WORST = [
    "<!channel> " * 91,
    "\u202e" + "تجربة " * 166,
    "&" * 1000,
    "`*_~" * 250,
    "\x00\x07\u2066" * 300 + "x",
    "😀" * 1000,
    "\n" * 998 + "xy",
]
SECRET = "S3cretS3cretS3cretS3cretS3cret12"
RECEIPTS = [
    None,
    Receipt(outcome=ReceiptOutcome.NOTHING_CREATED),
    Receipt(outcome=ReceiptOutcome.DECLARED_GONE, reason="x" * 900),
    Receipt(
        outcome=ReceiptOutcome.VERIFIED,
        sessions_ended=2,
        left_behind=tuple(f"shop.table_{n} (table)" for n in range(300)),
        left_with="dbaccess_left_42_lea",
        read_back_at=AT,
        notes=("n" * 300,) * 9,
    ),
]


def request(reason: str, state: State, receipt: Receipt | None = None, because: Cause | None = None) -> Request:
    terms = Terms(
        rule="r" * 100, stages=(Stage(approvers=PEOPLE, count=2),), channel="C0CARDS", duration=HOUR, request_ttl=HOUR, provision_within=HOUR,
        delivery="dm", level={"name": "l" * 24, "description": reason, "roles": ["x"]}, policy_digest="0" * 12,
    )  # fmt: skip
    return Request(
        id=10**12, key="k" * 16, kind=RequestKind.ACCESS, state=state, version=3, team_id="T0", requester_id="U0ADA", requester_name=reason[:80], database="d" * 40,
        level="l" * 24, reason=reason, ticket=None, parent_id=None, terms=terms, requested_at=AT, lapses_at=AT, approved_at=AT, duration=HOUR, username="jit_1_ada_kkkk",
        expires_at=AT + HOUR, ended_at=AT, ended_because=because, ended_by="U0LEAD", ended_note=reason, receipt=receipt,
    )  # fmt: skip


def notices(reason: str) -> list[Notice]:
    found: list[Notice] = []
    votes = tuple(
        Decision(request_id=1, person_id=p, person_name=reason[:80], verdict=v, stage=0, at=AT, reason=reason)
        for p, v in zip(PEOPLE[:12], [Verdict.APPROVE] * 11 + [Verdict.DENY], strict=True)
    )
    for state in State:
        for receipt in RECEIPTS:
            for because in (None, *Cause):
                r = request(reason, state, receipt, because)
                found += [
                    CardNotice(request=r, decisions=votes, enforced="login", engine="PostgreSQL", reaches=reason),
                    StateChangeNotice(request=r, decision=votes[-1]),
                    ClosedNotice(request=r),
                ]
    r = request(reason, State.ACTIVE)
    endpoint = Endpoint(
        host="h" * 200,
        port=5432,
        database="d" * 63,
        tls="require",
        note=reason,
        engine="PostgreSQL",
        command='psql "postgresql://{username}:{password}@' + "h" * 200 + ':5432/x"',
    )
    events = [
        AuditEvent(
            id=n,
            at=AT,
            kind=kind,
            actor=PEOPLE[n % 60],
            request_id=r.id,
            facts={"cause": "expired", "sessions_ended": 1, "what": reason},
            text=reason,
        )
        for n, kind in enumerate(AuditKind)
    ]
    found += [
        PreparingNotice(request=r),
        PreparingNotice(request=r, trouble=reason),
        CredentialsNotice(request=r, endpoint=endpoint, password=SECRET),
        StateChangeNotice(request=r, trouble=reason),
    ]
    found += [one for kind in RequestKind for state in State for one in policy_notices(reason, kind, state, votes)]
    found.append(CredentialsNotice(request=r, endpoint=endpoint, password=None))
    found += [
        FeedNotice(events=events[25:], requests={r.id: replace(r, kind=RequestKind.BREAK_GLASS)}),
        FeedNotice(events=events[:25], requests={r.id: r}),
        FeedNotice(events=events[:25], requests={}),
        *alert_notices(reason),
    ]
    return found


def alert_notices(reason: str) -> list[Notice]:
    """Alerts with long texts, in each part of their life."""
    alert = AlertNotice(what=reason * 5, since=AT, tries=9, steps=(reason,) * 9)
    open_alert = replace(alert, enforced=reason * 2, next_try_at=AT, statements=(reason,) * 24)
    break_glass = replace(request(reason, State.ACTIVE), kind=RequestKind.BREAK_GLASS, expires_at=AT, started_at=AT)
    return [
        alert,
        open_alert,
        replace(open_alert, is_event=True, request=break_glass),
        replace(alert, resolved_at=AT, resolution=reason * 2),
    ]


def alert_text(notice: AlertNotice) -> str:
    """The rich text of an alert, with ‹› around what Slack draws."""
    found = []
    for part in render(notice).blocks[0]["elements"]:
        sections = part["elements"] if part["type"] == "rich_text_list" else [part]
        found += ["".join(e.get("text", f"‹{e.get('fallback')}›") for e in one["elements"]) for one in sections]
    return "\n".join(found)


def test_alert_is_rendered_as_a_fact_what_is_safe_what_comes_next_and_what_to_do() -> None:
    notice = AlertNotice(
        what="#42 is not ended: orders-prod does not answer.", since=AT, tries=14, next_try_at=AT,
        enforced=f"New logins are refused by PostgreSQL since {time_mark(AT)}. Open sessions may still work.",
        steps=("Make it answer.",), statements=("ALTER ROLE jit_42_lea_k7q2 NOLOGIN;", "SELECT 1 < 2 AND `a_b_c`;"),
    )  # fmt: skip
    at = f"‹{AT:%Y-%m-%d %H:%M} UTC›"
    assert alert_text(notice).splitlines() == [
        f"🔴 #42 is not ended: orders-prod does not answer since {at} (14 tries)",
        f"New logins are refused by PostgreSQL since {at}. Open sessions may still work.",
        f"Next try {at}.",
        "Make it answer.",
        "By hand, as an administrator of the server:",
        "ALTER ROLE jit_42_lea_k7q2 NOLOGIN;",
        "SELECT 1 < 2 AND `a_b_c`;",
    ]


def test_resolved_alert_keeps_its_title_and_says_what_happened() -> None:
    notice = AlertNotice(what="It is full.", since=AT, tries=1, resolved_at=AT, resolution="There is room.")
    at = f"{AT:%Y-%m-%d %H:%M} UTC"
    assert alert_text(notice) == f"⚪ It is full since ‹{at}› (1 try)\n✓ Resolved ‹{at}›: There is room."
    assert render(notice).text == f"✓ Resolved {at}: There is room. It was: It is full."


def test_event_has_no_duration() -> None:
    assert alert_text(AlertNotice(what="Somebody dropped it.", since=AT, is_event=True)) == "🔴 Somebody dropped it."


def test_statements_are_shown_whole_or_not_at_all() -> None:
    statements = tuple(f"DROP ROLE {'x' * 200}_{n};" for n in range(24))
    shown = alert_text(AlertNotice(what="It is full.", statements=statements)).splitlines()
    whole = [line for line in shown if line in statements]
    assert 10 < len(whole) < 24
    assert shown[-1] == f"… and {24 - len(whole)} more"
    assert not any(line.startswith("DROP") and line not in statements for line in shown)


@pytest.mark.parametrize("mark", ["‹2026-99-99T10:00:00Z›", "‹soon›", "‹›", "‹2026-11-23T10:00:00Z"])
def test_text_that_is_no_time_stays_as_it_is(mark: str) -> None:
    assert mark in alert_text(AlertNotice(what="It is full.", enforced=f"since {mark}."))


def policy_notices(reason: str, kind: RequestKind, state: State, votes: tuple[Decision, ...]) -> list[Notice]:
    """Notices with many stages, many groups, a long ticket and many reviewers."""
    names = ("@" + "h" * 78, *(f"S{n:010d}" for n in range(40)), "a" * 200 + "@example.com", *PEOPLE)
    r = request(reason, state)
    terms = replace(
        r.terms,
        stages=tuple(Stage(approvers=names, count=12) for _ in range(12)),
        escalation=Escalation(after=HOUR, to=names),
        review=Review(reviewers=names, within=HOUR),
        claim_within=HOUR,
        delivery="reveal",
    )
    r = replace(r, kind=kind, terms=terms, ticket=reason[:100], parent_id=7, started_at=AT)
    grant = request(reason, State.ACTIVE)
    card = CardNotice(
        request=r, decisions=votes, enforced="login", engine="PostgreSQL", reaches=reason, waits_for=names, grant=grant,
        ticket_url="https://tickets.test/" + quote(reason[:100], safe=""),
    )  # fmt: skip
    return [
        card,
        replace(card, decisions=(replace(votes[0], verdict=Verdict.SIGN_OFF),), ticket_url=None),
        ReminderNotice(request=r, waits_for=names),
        ReminderNotice(request=r, waits_for=names, is_escalation=True),
        EndingSoonNotice(request=r),
        GrantedNotice(request=r, decisions=votes),
        ReviewNotice(request=r),
        StateChangeNotice(request=r, grant=grant),
    ]


@pytest.mark.parametrize("reason", WORST)
def test_every_message_is_within_slacks_limits_and_mentions_nobody(reason: str) -> None:
    for notice in notices(reason[:1000]):
        rendered = render(notice)
        assert blockkit.problems_of_message(rendered.blocks, rendered.text, is_update=True) == [], notice
        assert "<!channel>" not in rendered.text
        assert "\u202e" not in str(rendered.blocks) + rendered.text
        for block in rendered.blocks:
            for part in [block.get("text"), *block.get("fields", []), *block.get("elements", [])]:
                if isinstance(part, dict) and part.get("type") == "mrkdwn":
                    assert "<!channel>" not in part["text"]
        if isinstance(notice, CredentialsNotice) and notice.password:
            assert SECRET in str(rendered.blocks)
            assert SECRET not in rendered.text
        else:
            assert SECRET not in str(rendered)


def catalog_entries(number: int) -> tuple[CatalogEntry, ...]:
    return tuple(
        CatalogEntry(
            database=f"database-{n // 3}",
            description="d" * 200,
            level=f"level-{n}",
            level_description="l" * 200,
            duration=HOUR,
            max_duration=8 * HOUR,
            rule="r",
        )
        for n in range(number)
    )


@pytest.mark.parametrize("number", [1, 2, 99, 400])
@pytest.mark.parametrize("reason", [*WORST, "", None])
def test_every_form_is_within_slacks_limits(number: int, reason: str | None) -> None:
    for database in (None, "database-0", "gone"):
        wanted = RequestInput(database=database, level="level-1", duration=timedelta(minutes=7), reason=reason)
        assert (
            blockkit.problems_of_view(form_layouts.request_form(catalog_entries(number), wanted, problem="x" * 500))
            == []
        )
    assert blockkit.problems_of_view(form_layouts.deny_form(request(reason or "x", State.PENDING))) == []
    assert blockkit.problems_of_view(form_layouts.message_form("There is nothing.")) == []


@pytest.mark.parametrize("reason", WORST)
def test_every_reply_is_within_slacks_limits(reason: str) -> None:
    live, waiting = request(reason[:1000], State.ACTIVE), request(reason[:1000], State.PENDING)
    rendered = [
        replies.request_reply(RequestOutcome(request=waiting, is_new=True)), replies.request_reply(RequestOutcome(request=waiting, is_new=False)), replies.list_reply([], "U0ADA"),
        replies.list_reply([replace(live, id=n) for n in range(40)], "U0ADA"), replies.databases_reply(catalog_entries(90)), replies.databases_reply(()),
        replies.status_reply(StatusView(request=live, decisions=(), events=(), sessions=None), AT), replies.help_reply(None), replies.help_reply("list"), replies.text_reply(reason * 5),
    ]  # fmt: skip
    for answer in rendered:
        assert blockkit.problems_of_message(answer.blocks, answer.text, is_update=True) == []


def test_waiting_card_has_its_texts_and_buttons() -> None:
    card = render(
        CardNotice(
            request=replace(
                request("Customer 8812 was charged twice", State.PENDING),
                id=42,
                requester_name="ada",
                level="readonly",
                database="orders-prod",
            ),
            decisions=(),
            enforced="login",
            engine="PostgreSQL",
            reaches="Read every table of the shop schema",
        )
    )
    assert card.blocks[0]["text"]["text"] == "Access request #42"
    assert card.blocks[1]["text"]["text"] == "<@U0ADA> asks for *readonly* on *orders-prod* for 1 h."
    assert card.blocks[2]["text"]["text"] == "“Customer 8812 was charged twice”"
    assert "After 1 h PostgreSQL refuses the login by itself; dbaccess ends open sessions." in str(card.blocks[3])
    assert [e["text"]["text"] for e in card.blocks[-1]["elements"]] == ["Approve", "Deny"]
    assert {e["value"] for e in card.blocks[-1]["elements"]} == {f"42.{'k' * 16}"}


def test_feed_shows_the_text_of_alerts() -> None:
    """With and without a request: no event name, and none of the alert's other facts."""
    facts = {"what": "The group @dba was changed", "steps": ["look"]}
    for about in (None, 42):
        event = AuditEvent(id=1, at=AT, kind=AuditKind.ALERT, actor="bot", request_id=about, facts=facts)
        requests = {42: replace(request("x", State.ACTIVE), id=42)}
        text = render(FeedNotice(events=[event], requests=requests)).text
        number = "#42 " if about else ""
        assert text.endswith(f"{number}alert — The group @dba was changed")
