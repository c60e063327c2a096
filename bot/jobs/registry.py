"""The job of each kind of task. No transition plans a task of a kind without a job."""

from __future__ import annotations

from bot.jobs import auto_approve, break_glass, move_expiry, password, provision, repair, revoke, time_out
from bot.jobs.job import Job
from bot.notifications import alerts, cards, credentials, feed, lockdowns, outcomes, reminders
from storage.records import TaskKind

JOBS: dict[TaskKind, Job] = {
    TaskKind.AUTO_APPROVE: auto_approve.auto_approve,
    TaskKind.GRANT_BREAK_GLASS: break_glass.grant_break_glass,
    TaskKind.POST_CARD: cards.post_card,
    TaskKind.UPDATE_CARD: cards.update_card,
    TaskKind.NOTIFY_REQUESTER: outcomes.notify_requester,
    TaskKind.ALERT: alerts.send_alert,
    TaskKind.LOCKDOWN: lockdowns.follow_lockdown,
    TaskKind.AUDIT_FEED: feed.post_feed,
    TaskKind.TIME_OUT: time_out.time_out,
    TaskKind.REMIND: reminders.remind,
    TaskKind.ESCALATE: reminders.escalate,
    TaskKind.NOTIFY: outcomes.notify,
    TaskKind.WARN_BEFORE_END: reminders.warn_before_end,
    TaskKind.PROVISION: provision.provision,
    TaskKind.RENEW_PASSWORD: password.renew_password,
    TaskKind.CLOSE_CREDENTIALS: credentials.close_credentials,
    TaskKind.REVOKE: revoke.revoke,
    TaskKind.MOVE_EXPIRY: move_expiry.move_expiry,
    TaskKind.REVIEW: reminders.review_overdue,
    TaskKind.REPAIR: repair.repair,
}
