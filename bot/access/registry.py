"""Which effect runs for which task. A kind without an effect has none yet, and nothing plans it."""

from __future__ import annotations

from bot.access import alerts, extend, password, provision, remind, repair, request_access, review, revoke, tell
from bot.access.job import Job
from storage.records import TaskKind

JOBS: dict[TaskKind, Job] = {
    TaskKind.POST_CARD: tell.post_card,
    TaskKind.UPDATE_CARD: tell.update_card,
    TaskKind.NOTIFY_REQUESTER: tell.tell,
    TaskKind.ALERT: alerts.alert,
    TaskKind.AUDIT_FEED: tell.feed,
    TaskKind.LAPSE: request_access.lapse,
    TaskKind.REMIND: remind.remind,
    TaskKind.ESCALATE: remind.escalate,
    TaskKind.NOTIFY: remind.notify,
    TaskKind.WARN_BEFORE_END: remind.warn,
    TaskKind.PROVISION: provision.provision,
    TaskKind.PASSWORD: password.password,
    TaskKind.CLOSE_CREDENTIALS: tell.close_credentials,
    TaskKind.REVOKE: revoke.end,
    TaskKind.MOVE_EXPIRY: extend.move_expiry,
    TaskKind.REVIEW: review.overdue,
    TaskKind.REPAIR: repair.repair,
}
