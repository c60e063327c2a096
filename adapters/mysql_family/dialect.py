"""What MySQL and MariaDB say differently."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from adapters.base import Finding

if TYPE_CHECKING:
    from adapters.base import Level, Target, UserSpec
    from adapters.mysql_family.connection import Connection, Server


class Dialect(Protocol):
    """One of the two, as far as they differ.

    ``identity``: the variable that is the server's own number. ``read_only``: those that say it takes no changes. ``further_limits``:
    per-user limits that only this one has. ``rights``: what the bot needs on the whole server, each with what for;
    ``definer_rights``: any of these lets it drop a user who defined something. ``marks_accounts``: the account itself says whose it is.
    """

    label: str
    identity: str
    read_only: tuple[str, ...]
    further_limits: tuple[str, ...]
    rights: tuple[tuple[str, str], ...]
    definer_rights: tuple[str, ...]
    marks_accounts: bool
    login_plugin: str

    def password_clause(self, connection: Connection, password: str) -> str:
        """``IDENTIFIED …`` with what the server is to be sent of a password."""

    def mark_clause(self, connection: Connection, target: Target, spec: UserSpec) -> str:
        """What CREATE USER says of whose it is; empty where the event is the mark."""

    def set_default_role(self, connection: Connection, target: Target, username: str, role: str) -> None:
        """So that the role counts from login on. Raises Rejected with what is missing."""

    def accounts(
        self, connection: Connection, target: Target, username: str | None
    ) -> list[tuple[str, str, tuple[str, int] | None]]:
        """(user, host, (ledger, request) where it is marked) of one name, or of all that begin with our prefix."""

    def role(self, name: str) -> str:
        """A role as statements name it."""

    def is_role(self, connection: Connection, name: str) -> bool:
        """Whether it is there, and is no account that logs in."""

    def role_members(self, connection: Connection, role: str) -> list[str]:
        """Accounts and roles that were given the role, who made it aside."""

    def roles_below(self, connection: Connection, role: str) -> list[str]:
        """Roles that this role was given."""

    def findings(self, server: Server, connection: Connection, levels: Sequence[Level]) -> Iterator[Finding]:
        """What only this one needs."""

    def command(self, host: str, port: int, database: str, tls: str) -> str:
        """Ready to paste, with {username} and {password} to be filled."""
