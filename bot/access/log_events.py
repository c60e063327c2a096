"""Log events of the running bot: one for each grant, end and refusal.

The events hold no secret. ``bot.logs.LINES`` has the line that a terminal shows for each of them.
"""

from __future__ import annotations

import structlog

from bot.access.context import Context
from bot.access.descriptions import END_REASONS, describe_scope
from bot.access.files import Files
from bot.access.ports import Person
from storage.audit_kinds import AuditKind
from storage.records import Cause, Lockdown, Request

log = structlog.get_logger(__name__)


def grant_live(request: Request) -> None:
    """The user exists and its credentials are delivered."""
    until = request.expires_at.isoformat() if request.expires_at else None
    log.info("grant_live", **_request_fields(request), username=request.username, until=until)


def grant_ended(request: Request) -> None:
    """The end is confirmed: by reading the server back, or by an administrator who declared the server gone."""
    reason = END_REASONS.get(request.ended_because or Cause.DONE, "ended")
    sessions = request.receipt.sessions_ended if request.receipt else None
    log.info("grant_ended", **_request_fields(request), why=reason, sessions=sessions)


POOLER_COSTS = (
    "Commits of other replicas and of the command line are noticed up to 0.4 s later, and each replica asks the server 150 times a minute. "
    "Let DBACCESS_STORE_URL name PostgreSQL itself."
)
"""What a connection pooler in front of the ledger costs, and what to do."""


def ledger_behind_pooler() -> None:
    """A connection pooler is between the bot and its ledger."""
    log.warning("ledger_behind_pooler", costs=POOLER_COSTS)


def request_denied(request: Request, person: Person) -> None:
    """An approver, ``person``, denied the request."""
    log.info("request_denied", **_request_fields(request), by=person.name, by_id=person.id)


def request_refused(person: Person, reason: str, *, database: str | None, level: str | None) -> None:
    """The policy or a limit does not allow the request. Nothing was stored."""
    log.info("request_refused", who=person.name, who_id=person.id, database=database, access_level=level, why=reason)


def lockdown_set(lockdown: Lockdown, person: Person) -> None:
    """A lockdown is in force. Its grants are ended next."""
    scope = describe_scope(lockdown)
    log.warning("lockdown_set", scope=scope, by=person.name, by_id=person.id, grants=lockdown.grants)


def lockdown_lifted(lockdown: Lockdown, person: Person) -> None:
    """A lockdown is no longer in force."""
    log.warning("lockdown_lifted", scope=describe_scope(lockdown), by=person.name, by_id=person.id)


async def command_refused(context: Context, person: Person, verb: str) -> None:
    """A person may not do ``verb`` (``lockdown`` or ``unlock``). Also written to the audit log."""
    await context.ledger.audit.record(AuditKind.CLICK_REFUSED, actor=person.id, facts={"verb": verb})
    log.info("command_refused", who=person.name, who_id=person.id, verb=verb)


async def click_refused(context: Context, person: Person, verb: str, request_id: int) -> None:
    """A person may not do ``verb`` (``decide``, ``review`` or ``revoke``). Also written to the audit log."""
    await context.ledger.audit.record(
        AuditKind.CLICK_REFUSED, actor=person.id, request_id=request_id, facts={"verb": verb}
    )
    log.info("click_refused", request=request_id, who=person.name, who_id=person.id, verb=verb)


def bot_ready(files: Files, *, workspace: str, ledger: str) -> None:
    """The bot is connected to Slack for the first time since its start."""
    log.info("bot_ready", workspace=workspace, ledger=ledger, **_configuration_size(files))


def configuration_reloaded(files: Files) -> None:
    """The files on disk changed: they are in force now, or were refused."""
    if files.problems is not None:
        log.error("configuration_refused", problems=[str(problem) for problem in files.problems.problems])
    else:
        log.info("configuration_loaded", **_configuration_size(files))


def _configuration_size(files: Files) -> dict[str, int]:
    config = files.config
    return {"databases": len(config.databases), "rules": len(config.policy.rules)} if config else {}


def _request_fields(request: Request) -> dict[str, object]:
    return {
        "request": request.id,
        "who": request.requester_name,
        "who_id": request.requester_id,
        "access_level": request.level,
        "database": request.database,
    }
