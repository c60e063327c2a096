"""Log events of what the running bot does, one for each grant, end and refusal. They hold no secret; ``bot.logs`` draws them for people."""

from __future__ import annotations

import structlog

from bot.access.descriptions import END_REASONS
from bot.access.files import Files
from bot.access.ports import Person
from storage.records import Cause, Request

log = structlog.get_logger(__name__)


def grant_live(request: Request) -> None:
    """The user works and its requester has it."""
    until = request.expires_at.isoformat() if request.expires_at else None
    log.info("grant_live", **_about(request), username=request.username, until=until)


def grant_ended(request: Request) -> None:
    """The server was read back, or declared gone."""
    why = END_REASONS.get(request.ended_because or Cause.DONE, "ended")
    sessions = request.receipt.sessions_ended if request.receipt else None
    log.info("grant_ended", **_about(request), why=why, sessions=sessions)


def request_denied(request: Request, person: Person) -> None:
    """By one of its approvers."""
    log.info("request_denied", **_about(request), by=person.name, by_id=person.id)


def request_refused(person: Person, why: str, *, database: str | None, level: str | None) -> None:
    """An ask that the policy, or a limit, does not allow. Nothing was stored."""
    log.info("request_refused", who=person.name, who_id=person.id, database=database, access_level=level, why=why)


def click_refused(person: Person, verb: str, request_id: int) -> None:
    """Somebody tried what is not theirs to do."""
    log.info("click_refused", request=request_id, who=person.name, who_id=person.id, verb=verb)


def bot_ready(files: Files, *, workspace: str, ledger: str) -> None:
    """The bot is connected and does its work. Said once."""
    log.info("bot_ready", workspace=workspace, ledger=ledger, **_size(files))


def configuration_reloaded(files: Files) -> None:
    """What changed on disk is in force, or is refused."""
    if files.problems is not None:
        log.error("configuration_refused", problems=[str(problem) for problem in files.problems.problems])
    else:
        log.info("configuration_loaded", **_size(files))


def _size(files: Files) -> dict[str, int]:
    config = files.config
    return {"databases": len(config.databases), "rules": len(config.policy.rules)} if config else {}


def _about(request: Request) -> dict[str, object]:
    return {
        "request": request.id,
        "who": request.requester_name,
        "who_id": request.requester_id,
        "access_level": request.level,
        "database": request.database,
    }
