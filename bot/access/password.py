"""A new password for a live grant: in its credential message, or shown once. The old password stops working; open sessions stay open."""

from __future__ import annotations

import secrets
import string

from adapters.base import Adapter, AdapterError, Endpoint
from bot.access.context import Context
from bot.access.descriptions import describe_end, describe_obstacle, describe_state
from bot.access.errors import Refused, TooLate, UnknownRequest
from bot.access.ports import Person
from bot.access.server_errors import describe_server_error
from bot.access.targets import level_of, target_of
from bot.access.use_case_types import ShownPassword
from storage.audit_kinds import AuditKind
from storage.commands import ShowPassword
from storage.errors import NotPossible
from storage.records import Request, State, TaskKind
from storage.task_plans import credentials_lock_key
from storage.transitions import TaskPlan

ALPHABET = string.ascii_letters + string.digits
PASSWORD_LENGTH = 32


async def renew(context: Context, person: Person, request: Request) -> None:
    """Plan the task that sets a new password and shows it in the credential message.

    Raises UnknownRequest for everybody but the requester, and TooLate where the grant is not live or its rule delivers by ``reveal``.
    """
    if request.requester_id != person.id:
        raise UnknownRequest(f"#{request.id}")
    request = await context.ledger.requests.get(request.id)
    if request.terms.delivery == "reveal":
        raise TooLate(describe_state(request, await context.ledger.requests.decisions(request.id)))
    await _check_usable(context, request)
    plan = TaskPlan(
        kind=TaskKind.RENEW_PASSWORD,
        lock_key=credentials_lock_key(request),
        due_at=await context.ledger.now(),
        is_single=True,
    )
    await context.ledger.tasks.add(plan, request_id=request.id)


async def revealable(context: Context, person: Person, request: Request) -> Request:
    """The live grant whose rule delivers by ``reveal``, for its requester.

    Raises UnknownRequest for everybody else, Refused where the rule delivers by message, TooLate where the grant is not live.
    """
    if request.requester_id != person.id:
        raise UnknownRequest(f"#{request.id}")
    request = await context.ledger.requests.get(request.id)
    if request.terms.delivery != "reveal":
        raise Refused(f"The password of #{request.id} is in its credential message.")
    await _check_usable(context, request)
    return request


async def _check_usable(context: Context, request: Request) -> None:
    """Raises TooLate unless the grant is ACTIVE and before its end. The state alone is not enough: a revocation may be late."""
    if request.state is not State.ACTIVE:
        raise TooLate(describe_state(request, await context.ledger.requests.decisions(request.id)))
    if request.expires_at is None or await context.ledger.now() >= request.expires_at:
        raise TooLate(describe_end(request))


async def reveal(context: Context, person: Person, request: Request) -> ShownPassword:
    """Set a new password and return it, to be shown once. The audit event is written before anybody sees it.

    Raises what ``revealable`` raises, and Refused where the server does not take the password.
    """
    request = await revealable(context, person, request)
    assert request.username is not None, "an active grant has its user"
    username, level, password = request.username, level_of(request), make_password()

    def set_password(adapter: Adapter) -> Endpoint:
        adapter.set_password(username, password)
        return adapter.endpoint(level)

    try:
        endpoint = await context.engines.call(target_of(request), set_password)
    except AdapterError as error:
        reason = describe_server_error(request.database, error)
        raise Refused(f"No password for #{request.id} now: {reason}. Please try again.") from None
    try:
        request = await context.ledger.requests.advance(request.id, ShowPassword(actor=person.id))
    except NotPossible as error:
        raise TooLate(describe_obstacle(error)) from None
    shown = [e for e in await context.ledger.audit.history(request.id) if e.kind == AuditKind.PASSWORD_SHOWN]
    return ShownPassword(request=request, endpoint=endpoint, times=len(shown), password=password)


def make_password() -> str:
    """32 random letters and digits (190 bits). They need no quoting in a URL, a shell or SQL."""
    return "".join(secrets.choice(ALPHABET) for _ in range(PASSWORD_LENGTH))
