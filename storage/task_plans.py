"""Tasks that follow a transition. Each planner is given the request after the transition, and the time. Pure."""

from __future__ import annotations

from datetime import datetime

from storage.records import Priority, Request, RequestKind, State, TaskKind
from storage.transitions import TaskPlan, latest_end, warn_at


def user_lock_key(request: Request) -> str:
    """The lock key of everything that touches the user of this request on its server."""
    return f"user:{request.id}"


def credentials_lock_key(request: Request) -> str:
    """The lock key of all tasks that render the credential message. Tasks that only touch the user never wait for it."""
    return f"message:{request.id}:credentials"


def message_lock_key(request: Request) -> str:
    """The lock key of all tasks that render other messages of this request."""
    return f"message:{request.id}"


def post_card(r: Request, now: datetime) -> TaskPlan:
    return TaskPlan(kind=TaskKind.POST_CARD, lock_key=message_lock_key(r), due_at=now)


def auto_approve(r: Request, now: datetime) -> TaskPlan | None:
    """For a rule without approvers. Break-glass access has ``grant_break_glass``: it waits until somebody was notified."""
    if r.terms.stages or r.kind is RequestKind.BREAK_GLASS:
        return None
    return TaskPlan(kind=TaskKind.AUTO_APPROVE, lock_key=message_lock_key(r), due_at=now, is_single=True)


def grant_break_glass(r: Request, now: datetime) -> TaskPlan | None:
    if r.kind is not RequestKind.BREAK_GLASS:
        return None
    return TaskPlan(kind=TaskKind.GRANT_BREAK_GLASS, lock_key=message_lock_key(r), due_at=now, is_single=True)


def update_card(r: Request, now: datetime) -> TaskPlan:
    return TaskPlan(kind=TaskKind.UPDATE_CARD, lock_key=message_lock_key(r), due_at=now, is_single=True)


def notify_requester(r: Request, now: datetime) -> TaskPlan:
    return TaskPlan(
        kind=TaskKind.NOTIFY_REQUESTER, lock_key=message_lock_key(r), due_at=now, payload={"state": r.state.value}
    )


def time_out(r: Request, _now: datetime) -> TaskPlan:
    return TaskPlan(kind=TaskKind.TIME_OUT, lock_key=message_lock_key(r), due_at=r.lapses_at, is_single=True)


def time_out_now(r: Request, now: datetime) -> TaskPlan:
    return TaskPlan(kind=TaskKind.TIME_OUT, lock_key=message_lock_key(r), due_at=now, is_single=True)


def remind(r: Request, now: datetime) -> TaskPlan | None:
    if r.terms.remind_after is None or not r.terms.stages:
        return None
    return TaskPlan(
        kind=TaskKind.REMIND, lock_key=message_lock_key(r), due_at=now + r.terms.remind_after, is_single=True
    )


def escalate(r: Request, now: datetime) -> TaskPlan | None:
    if r.terms.escalation is None or not r.terms.stages:
        return None
    return TaskPlan(
        kind=TaskKind.ESCALATE, lock_key=message_lock_key(r), due_at=now + r.terms.escalation.after, is_single=True
    )


def notify(r: Request, now: datetime) -> TaskPlan | None:
    if not r.terms.notify and r.kind is not RequestKind.BREAK_GLASS:
        return None
    return TaskPlan(kind=TaskKind.NOTIFY, lock_key=message_lock_key(r), due_at=now, is_single=True)


def warn_before_end(r: Request, now: datetime) -> TaskPlan | None:
    if r.expires_at is None:
        return None
    return TaskPlan(
        kind=TaskKind.WARN_BEFORE_END, lock_key=message_lock_key(r), due_at=max(warn_at(r), now), is_single=True
    )


def review(r: Request, now: datetime) -> TaskPlan | None:
    if r.terms.review is None or not r.needs_review:
        return None
    return TaskPlan(
        kind=TaskKind.REVIEW, lock_key=message_lock_key(r), due_at=now + r.terms.review.within, is_single=True
    )


def move_expiry(r: Request, now: datetime) -> TaskPlan:
    return TaskPlan(kind=TaskKind.MOVE_EXPIRY, lock_key=user_lock_key(r), due_at=now, is_single=True)


def revoke_at_the_end(r: Request, _now: datetime) -> TaskPlan:
    end = r.expires_at or latest_end(r)
    return TaskPlan(
        kind=TaskKind.REVOKE, lock_key=user_lock_key(r), due_at=min(end, r.unclaimed_at or end), is_single=True
    )


def revoke_unclaimed(r: Request, now: datetime) -> TaskPlan | None:
    return revoke_at_the_end(r, now) if r.unclaimed_at else None


def revoke_now(r: Request, now: datetime) -> TaskPlan:
    return TaskPlan(kind=TaskKind.REVOKE, lock_key=user_lock_key(r), due_at=now, is_single=True)


def provision(r: Request, now: datetime) -> TaskPlan:
    """It takes the lock key of the user only while it talks to the server: Slack never holds up the end of a user."""
    return TaskPlan(kind=TaskKind.PROVISION, lock_key=credentials_lock_key(r), due_at=now, is_single=True)


def close_credentials(r: Request, now: datetime) -> TaskPlan:
    """Safety work until the user is gone. Afterwards the password in the message is worthless."""
    priority = Priority.SAFETY if r.state is State.REVOKING else Priority.DECISION
    return TaskPlan(
        kind=TaskKind.CLOSE_CREDENTIALS,
        lock_key=credentials_lock_key(r),
        due_at=now,
        is_single=True,
        priority=priority,
    )
