"""The checks of ``doctor``: settings, files, ledger, Slack, each database.

Two of them change a server: leftovers of ended users that nobody needs are dropped first, and ``run_trials`` leaves nothing.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from adapters.base import AdapterError, Finding, Rejected
from bot.access.context import Context
from bot.access.log_events import POOLER_COSTS
from bot.access.server_errors import describe_server_error, remedies
from bot.app import build_context, operator
from bot.databases import level, target
from bot.monitors.servers import drop_leftovers
from bot.policy.config import Config
from bot.settings import Settings, SettingsError, check_slack_settings
from bot.slack.connection import web_client
from bot.slack.doctor import examine_slack
from bot.trial import Step, run_trial
from storage.audit_kinds import AuditKind
from storage.errors import LedgerError


@dataclass(frozen=True, kw_only=True)
class Section:
    """One part of the report, with its findings."""

    name: str
    findings: tuple[Finding, ...]


def passed(what: str) -> Finding:
    return Finding(is_ok=True, is_fatal=False, what=what)


def failed(what: str, remedy: str | None = None) -> Finding:
    return Finding(is_ok=False, is_fatal=True, what=what, remedy=remedy)


async def examine(settings: Settings, only: Sequence[str]) -> list[Section]:
    """Run all checks; a failed section does not stop the next one. ``only``: names of databases, empty for all."""
    context = build_context(settings)
    try:
        context.files.refresh()
        sections = [Section(name="Settings", findings=tuple(_settings(settings)))]
        sections.append(Section(name="Configuration", findings=tuple(_files(context, only))))
        sections.append(Section(name="Ledger", findings=tuple(await _ledger(context))))
        sections.append(Section(name="Slack", findings=tuple(await _slack(settings, context.files.config))))
        names = _selected(context.files.config, only)
        return sections + [Section(name=f"Database {n}", findings=tuple(await _database(context, n))) for n in names]
    finally:
        context.engines.close()
        await context.ledger.close()


def _settings(settings: Settings) -> list[Finding]:
    try:
        check_slack_settings(settings)
    except SettingsError as missing:
        return [failed(line) for line in str(missing).splitlines()]
    return [passed("the environment has what the bot needs")]


def _files(context: Context, only: Sequence[str]) -> list[Finding]:
    if context.files.problems is not None:
        return [failed(str(p)) for p in context.files.problems.problems]
    config = context.files.config
    assert config is not None, "files without errors are in force"
    unknown = [
        failed(f"no database is named {name}", f"there are {', '.join(config.databases)}")
        for name in only
        if name not in config.databases
    ]
    warnings = [Finding(is_ok=False, is_fatal=False, what=str(p)) for p in config.warnings]
    return [*unknown, passed(f"{len(config.databases)} databases, {len(config.rules)} rules, no errors"), *warnings]


def _selected(config: Config | None, only: Sequence[str]) -> list[str]:
    return [name for name in (config.databases if config else ()) if not only or name in only]


async def _ledger(context: Context) -> list[Finding]:
    try:
        await context.ledger.open(create=False)
        await context.ledger.observations.set_cursor("doctor", int((await context.ledger.now()).timestamp()))
        is_pooled = await context.ledger.is_behind_pooler()
    except LedgerError as error:
        return [failed(str(error))]
    pooler = Finding(
        is_ok=False, is_fatal=False, what="a connection pooler is in front of the ledger", remedy=POOLER_COSTS
    )
    return [
        *([pooler] if is_pooled else []),
        passed(f"ledger {context.ledger.id}, {len(await context.ledger.requests.live_grants())} live grants"),
    ]


async def _slack(settings: Settings, config: Config | None) -> list[Finding]:
    if settings.slack_bot_token is None:
        return [failed("not checked: SLACK_BOT_TOKEN is not set")]
    client = web_client(settings.slack_bot_token.get_secret_value(), settings.slack_api_url)
    app_token = settings.slack_app_token.get_secret_value() if settings.slack_app_token else None
    return await examine_slack(client, app_token, config)


async def run_trials(settings: Settings, only: Sequence[str], report: Callable[[str, Step], None]) -> bool:
    """Run a trial on each level of these databases. Returns whether all passed. The result is written to the audit log."""
    context = build_context(settings)
    stop = threading.Event()
    try:
        context.files.refresh()
        await context.ledger.open(create=False)
        results = [
            await _run_database_trials(context, name, report, stop) for name in _selected(context.files.config, only)
        ]
        return all(results)
    finally:
        stop.set()
        await asyncio.to_thread(context.engines.close)  # a running trial cleans up first
        await context.ledger.close()


async def _run_database_trials(
    context: Context, name: str, report: Callable[[str, Step], None], stop: threading.Event
) -> bool:
    config = context.files.config
    assert config is not None, "the names come from this configuration"
    entry, results = config.databases[name], list[bool]()
    where = target(name, entry, prefix=context.prefix, ledger=context.ledger.id)
    for known in entry.levels:
        tried = partial(
            run_trial, level=level(known, entry), prefix=context.prefix, report=partial(report, name), stop=stop
        )
        try:
            results.append(await context.engines.call(where, tried))
        except AdapterError as error:  # the trials of other levels and databases go on
            what = describe_server_error(name, error)
            report(name, Step(level=known, name="trial", ok=False, ms=0.0, what=what))
            results.append(False)
    facts = {"database": name, "levels": len(results), "well": all(results)}
    await context.ledger.audit.record(AuditKind.TRIED, actor=operator().id, facts=facts)
    return all(results)


async def _database(context: Context, name: str) -> list[Finding]:
    config = context.files.config
    assert config is not None, "the names come from this configuration"
    entry = config.databases[name]
    where = target(name, entry, prefix=context.prefix, ledger=context.ledger.id or "none")
    levels = [level(known, entry) for known in entry.levels]
    dropped = await drop_leftovers(context, [where]) if context.ledger.id else ()
    try:
        health = await context.engines.measure(where, levels)
    except Rejected as no:
        return [failed(no.what, no.remedy)]
    except AdapterError as error:
        return [failed(f"cannot be checked: {describe_server_error(name, error)}", *remedies(error))]
    enforced = passed(f"{health.version}; enforced by the server itself: {health.enforced}")
    return [enforced, *(passed(f"leftovers: {sentence}") for sentence in dropped), *health.findings]
