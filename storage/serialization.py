"""Rows to records and back. JSON that an older version wrote can still be read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, TypeAlias, TypeVar

from sqlalchemy import Column, Connection, RowMapping, Select

from storage.records import (
    AuditEvent,
    Cause,
    Decision,
    Escalation,
    Json,
    Message,
    Priority,
    Purpose,
    Receipt,
    ReceiptOutcome,
    Request,
    RequestKind,
    Review,
    Stage,
    State,
    Task,
    TaskKind,
    Terms,
    Verdict,
)
from storage.schema import tasks

QUERY_COLUMNS = ("rule", "requested_duration", "is_automatic", "server")
"""Columns that repeat parts of ``terms`` or ``target``, so that queries can filter on them."""

CLAIM_COLUMNS = ("claim", "worker", "lease_until", "held_key", "set_aside")
UNREADABLE = (ValueError, TypeError, LookupError, AttributeError)
"""Errors of a row that somebody changed by hand, or that a newer version wrote."""

UnreadableRow: TypeAlias = tuple[int, Exception]
"""The id of a row that cannot be read, and its error."""

T = TypeVar("T")
SPANS = ("duration", "request_ttl", "provision_within", "max_total", "remind_after", "claim_within")


def readable(
    tx: Connection,
    query: Select[Any],
    row_id: Column[int],
    record: Callable[[RowMapping], T],
    parameters: Mapping[str, Any] | None = None,
) -> tuple[list[T], list[UnreadableRow]]:
    """The rows of a query that can be read, in order, and the others. ``row_id`` is the column that identifies a row.

    Where one row cannot be read, the driver returns none of those that follow. Each is then read by a query of its own.
    """
    try:
        return [record(row) for row in tx.execute(query, parameters).mappings()], []
    except UNREADABLE:
        found, others = list[T](), list[UnreadableRow]()
    for one in tx.execute(query.with_only_columns(row_id, maintain_column_froms=True), parameters).scalars().all():
        try:
            found += [record(row) for row in tx.execute(query.where(row_id == one), parameters).mappings()]
        except UNREADABLE as error:
            others.append((one, error))
    return found, others


def terms_json(terms: Terms) -> Json:
    """Terms as JSON: durations in seconds, stages as objects."""
    return {
        "rule": terms.rule,
        "stages": [{"approvers": list(s.approvers), "count": s.count} for s in terms.stages],
        "channel": terms.channel,
        "duration": terms.duration.total_seconds(),
        "request_ttl": terms.request_ttl.total_seconds(),
        "provision_within": terms.provision_within.total_seconds(),
        "delivery": terms.delivery,
        "level": dict(terms.level),
        "policy_digest": terms.policy_digest,
        "max_total": terms.max_total.total_seconds(),
        "remind_after": terms.remind_after.total_seconds() if terms.remind_after else None,
        "claim_within": terms.claim_within.total_seconds() if terms.claim_within else None,
        "escalation": _span_json(terms.escalation.after, terms.escalation.to) if terms.escalation else None,
        "review": _span_json(terms.review.within, terms.review.reviewers) if terms.review else None,
        "notify": list(terms.notify),
    }


def _span_json(span: timedelta, people: tuple[str, ...]) -> Json:
    return {"seconds": span.total_seconds(), "people": list(people)}


def terms(value: Json) -> Terms:
    """The reverse of ``terms_json``. A key that an older version did not write gets its default."""
    spans = {name: timedelta(seconds=value[name]) for name in SPANS if value.get(name) is not None}
    stages = tuple(Stage(approvers=tuple(s["approvers"]), count=s["count"]) for s in value["stages"])
    more: dict[str, Any] = {"stages": stages, "notify": tuple(value.get("notify", ()))}
    if found := value.get("escalation"):
        more["escalation"] = Escalation(after=timedelta(seconds=found["seconds"]), to=tuple(found["people"]))
    if found := value.get("review"):
        more["review"] = Review(within=timedelta(seconds=found["seconds"]), reviewers=tuple(found["people"]))
    return Terms(**{**value, **spans, **more})


def receipt_json(receipt: Receipt) -> Json:
    """A receipt as JSON, with times in RFC 3339."""
    if receipt.outcome is ReceiptOutcome.DECLARED_GONE:
        return {"outcome": receipt.outcome.value, "gone": receipt.reason}
    if receipt.outcome is ReceiptOutcome.NOTHING_CREATED:
        return {"outcome": receipt.outcome.value, "nothing_made": True}
    return {
        "outcome": receipt.outcome.value,
        "was_absent": receipt.was_absent,
        "sessions_ended": receipt.sessions_ended,
        "kept": list(receipt.left_behind),
        "kept_by": receipt.left_with,
        "kept_count": receipt.left_count,
        "read_back_at": receipt.read_back_at.isoformat() if receipt.read_back_at else None,
        "notes": list(receipt.notes),
    }


def columns(values: Mapping[str, Any]) -> dict[str, Any]:
    """The column values of a transition, with a receipt as JSON."""
    return {name: receipt_json(value) if isinstance(value, Receipt) else value for name, value in values.items()}


def receipt(value: Json) -> Receipt:
    """The reverse of ``receipt_json``."""
    read_back_at = value.get("read_back_at")
    return Receipt(
        outcome=ReceiptOutcome(value["outcome"]),
        was_absent=value.get("was_absent", False),
        sessions_ended=value.get("sessions_ended", 0),
        left_behind=tuple(value.get("kept", ())),
        left_with=value.get("kept_by"),
        left_count=value.get("kept_count", len(value.get("kept", ()))),
        read_back_at=datetime.fromisoformat(read_back_at) if read_back_at else None,
        notes=tuple(value.get("notes", ())),
        reason=value.get("gone"),
    )


def request(row: RowMapping) -> Request:
    """A row of ``requests``."""
    parts: dict[str, Any] = {name: value for name, value in row.items() if name not in QUERY_COLUMNS}
    parts["kind"], parts["state"] = RequestKind(parts["kind"]), State(parts["state"])
    parts["terms"] = terms(parts["terms"])
    if parts["ended_because"] is not None:
        parts["ended_because"] = Cause(parts["ended_because"])
    if parts["receipt"] is not None:
        parts["receipt"] = receipt(parts["receipt"])
    return Request(**parts)


def decision(row: RowMapping) -> Decision:
    """A row of ``decisions``."""
    parts = {name: value for name, value in row.items() if name != "id"}
    return Decision(**{**parts, "verdict": Verdict(parts["verdict"])})


def message(row: RowMapping) -> Message:
    """A row of ``messages``."""
    return Message(**{**row, "purpose": Purpose(row["purpose"])})


def task(row: RowMapping) -> Task:
    """A row of ``tasks``, without its claim."""
    parts = {column.name: row[column.name] for column in tasks.c if column.name not in CLAIM_COLUMNS}
    if not isinstance(parts["payload"], Mapping):
        raise ValueError("the payload is no object")  # noqa: TRY004 - the row is wrong, not the caller
    return Task(**{**parts, "kind": TaskKind(parts["kind"]), "priority": Priority(parts["priority"])})


def event(row: RowMapping) -> AuditEvent:
    """A row of ``audit_events``, joined with its text."""
    names = ("id", "at", "kind", "actor", "request_id", "facts", "text")
    return AuditEvent(**{name: row[name] for name in names})
