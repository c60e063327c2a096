"""What MySQL and MariaDB say differently."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from adapters.base import Finding

if TYPE_CHECKING:
    from adapters.base import Level, Target
    from adapters.mysql_family.connection import Connection, Server
    from adapters.mysql_family.locks import Holder


class Dialect(Protocol):
    """One of the two, as far as they differ.

    ``identity``: the variable that is the server's own number. ``read_only``: those that say it takes no changes. ``further_limits``:
    per-user limits that only this one has. ``rights``: what the bot needs on the whole server, each with what for;
    ``definer_rights``: any of these lets it drop a user who defined something. ``shows_holders``: the statement with which the bot sees who holds a lock.
    ``lock_limits``: the variables that say how long a statement waits for one.
    """

    label: str
    identity: str
    read_only: tuple[str, ...]
    further_limits: tuple[str, ...]
    rights: tuple[tuple[str, str], ...]
    definer_rights: tuple[str, ...]
    login_plugin: str
    shows_holders: str
    lock_limits: tuple[str, ...]

    def password_clause(self, connection: Connection, password: str) -> str:
        """``IDENTIFIED …`` with what the server is to be sent of a password."""

    def run_briefly(self, connection: Connection, statement: str, seconds: int) -> None:
        """Waits that long for a lock at most."""

    def holders(self, connection: Connection) -> list[Holder] | None:
        """Connections of others than the bot that hold what ALTER USER, DROP USER or an event's change waits for. None: the bot cannot see it."""

    def prepared(self, connection: Connection) -> list[str]:
        """XA transactions that wait to be committed, as XA ROLLBACK names them. Raises what the driver raises where the bot may not see them."""

    def set_default_role(self, connection: Connection, target: Target, username: str, role: str) -> None:
        """So that the role counts from login on. Raises Rejected with what is missing."""

    def accounts(
        self, connection: Connection, target: Target, username: str | None
    ) -> list[tuple[str, str, tuple[str, int] | None]]:
        """(user, host, mark) of one name, or of all that begin with our prefix.

        The mark is (ledger, request) where the account itself has one, which the user can change: it counts only where there is no event.
        """

    def unfit(self, connection: Connection) -> tuple[str, str] | None:
        """Why no user may be made on this server, and the statement that would help; or None."""

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
