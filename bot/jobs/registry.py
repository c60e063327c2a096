"""Which effect runs for which task. A kind without an effect has none yet, and nothing plans it."""

from __future__ import annotations

from bot.jobs import repair

from bot.jobs import provision

from bot.notifications import cards

from bot.notifications import reminders

from bot.access import alerts, extend, password, request_access, review, revoke
from bot.jobs.job import Job
from storage.records import TaskKind

JOBS: dict[TaskKind, Job] = {
    TaskKind.POST_CARD: cards.post_card,
    TaskKind.UPDATE_CARD: cards.update_card,
    TaskKind.NOTIFY_REQUESTER: cards.tell,
    TaskKind.ALERT: alerts.alert,
    TaskKind.AUDIT_FEED: cards.feed,
    TaskKind.LAPSE: request_access.lapse,
    TaskKind.REMIND: reminders.remind,
    TaskKind.ESCALATE: reminders.escalate,
    TaskKind.NOTIFY: reminders.notify,
    TaskKind.WARN_BEFORE_END: reminders.warn,
    TaskKind.PROVISION: provision.provision,
    TaskKind.PASSWORD: password.password,
    TaskKind.CLOSE_CREDENTIALS: cards.close_credentials,
    TaskKind.REVOKE: revoke.end,
    TaskKind.MOVE_EXPIRY: extend.move_expiry,
    TaskKind.REVIEW: review.overdue,
    TaskKind.REPAIR: repair.repair,
}
