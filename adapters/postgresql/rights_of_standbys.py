"""What ``check`` looks at on each standby: does it answer, is it one of this server's, and may the bot end sessions there."""

from __future__ import annotations

from collections.abc import Iterator

from adapters.base import AdapterError, Finding, Rejected
from adapters.postgresql.connection import (
    PostgreSQLConnection,
    Server,
    identity,
    major_version,
    quoted_acting_role,
    value,
)
from adapters.postgresql.findings import fatal, ok, warning
from adapters.postgresql.members import SETS_MEMBERSHIP_OPTIONS
from adapters.postgresql.standbys import Standby


def of_standbys(server: Server, connection: PostgreSQLConnection) -> Iterator[Finding]:
    """``connection`` is one to the primary."""
    expected, acting_role = identity(connection), connection.acting_role
    for reference, url in zip(server.target.replicas, server.secrets.replicas, strict=True):
        try:
            with Standby(server.target, reference, url, expected=expected).session() as there:
                yield from _standby(there, f"the standby behind {reference}", acting_role)
        except AdapterError as error:
            remedy = error.remedy if isinstance(error, Rejected) else None
            what = error.what if isinstance(error, Rejected) else str(error)
            yield fatal(what, remedy)


def _standby(connection: PostgreSQLConnection, where: str, acting_role: str) -> Iterator[Finding]:
    if not value(connection, "SELECT pg_is_in_recovery()"):
        yield fatal(f"{where} is no standby: it accepts writes of its own", "name a standby there, or leave it out")
        return
    if _may_end_sessions(connection, acting_role):
        yield ok(f"{where} answers, and the bot may end sessions there")
    else:
        remedy = f"GRANT pg_signal_backend TO {quoted_acting_role(connection)}; on the primary"
        yield fatal(f"{where}: the bot may not end sessions there", remedy)
    if value(connection, "SELECT pg_is_wal_replay_paused()"):
        remedy = "SELECT pg_wal_replay_resume(); on the standby"
        yield warning(f"{where} has paused: access cannot be ended before it goes on", remedy)
    delay = value(connection, "SELECT current_setting('recovery_min_apply_delay')")
    if not str(delay).startswith("0"):
        yield warning(
            f"{where} is kept {delay} behind: users can log in there only after that, and are ended only after that",
            "take it out of replicas if nobody may log in there, and keep it closed in its pg_hba.conf",
        )


def _may_end_sessions(connection: PostgreSQLConnection, acting_role: str) -> bool:
    """The role that made a user is its member, here as on the primary; another one needs a right of its own."""
    if value(
        connection,
        "SELECT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) OR pg_has_role('pg_signal_backend', 'USAGE')",
    ):
        return True
    inherits = major_version(connection) >= SETS_MEMBERSHIP_OPTIONS or value(
        connection, "SELECT rolinherit FROM pg_roles WHERE rolname = current_user"
    )
    return connection.acting_role == acting_role and bool(inherits)
