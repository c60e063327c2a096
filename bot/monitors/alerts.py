"""Resolve alerts whose cause is over. Whoever ends a cause resolves its alert at once; this covers what a stop of the bot lost in between.

``docs/development.md`` lists every cause. The alerts about servers are resolved by their probes (``bot.jobs.probes``), and those about
groups by ``bot.monitors.groups``.
"""

from __future__ import annotations

from bot.access.alerts import end_cause, resolve_alert, resolve_end_alert
from bot.access.context import Context
from bot.monitors.replicas import CAUSE as OLDER_CONFIGURATION
from bot.monitors.replicas import resolve_when_all_have_the_newest
from storage.alerts import Alert
from storage.records import Request, TaskKind

REVIEW, CARD, AUDIT_CHANNEL, MOVED = "review", "card", "audit_channel", "moved"
"""The first part of a cause, before its colon."""


async def check_alerts(context: Context) -> None:
    """Look at each open alert: resolve it where its cause is over."""
    opened = await context.ledger.alerts.open()
    if not opened:
        return
    ids = {alert.request_id for alert in opened if alert.request_id is not None}
    requests = await context.ledger.requests.get_many(ids)
    for alert in opened:
        if alert.cause == OLDER_CONFIGURATION:
            await resolve_when_all_have_the_newest(context)
            continue
        request = requests.get(alert.request_id) if alert.request_id is not None else None
        if request is not None and alert.cause == end_cause(request.id):
            await _check_end(context, request)
        elif request is not None and alert.cause == f"{REVIEW}:{request.id}":
            await _check_review(context, alert, request)
        else:
            await _check_configured(context, alert)


async def _check_end(context: Context, request: Request) -> None:
    """The grant is over, and no task is left that drops its user."""
    if not request.state.is_over:
        return
    ends = (TaskKind.REVOKE, TaskKind.REPAIR)
    if not any(task.kind in ends for task in await context.ledger.tasks.all(request_id=request.id)):
        await resolve_end_alert(context, request)


async def _check_review(context: Context, alert: Alert, request: Request) -> None:
    if not request.needs_review:
        await resolve_alert(context, alert.cause, f"#{request.id} was signed off.")


async def _check_configured(context: Context, alert: Alert) -> None:
    """Alerts about a channel or a handle that the configuration in force no longer names."""
    config = context.files.config
    if config is None:
        return
    kind, _, name = alert.cause.partition(":")
    channels = {config.policy.defaults.channel, *(rule.channel for rule in config.policy.rules)}
    is_named = {
        CARD: name in channels,
        AUDIT_CHANNEL: config.policy.audit_channel is not None,
        MOVED: name in config.group_names,
    }
    if not is_named.get(kind, True):
        await resolve_alert(context, alert.cause, "The configuration no longer names it.")
