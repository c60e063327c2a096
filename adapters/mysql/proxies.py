"""Finds and revokes GRANT PROXY by temporary users.

MySQL lets every account grant PROXY on itself, also to a role. Such a grant to a role has no effect on the role's members (measured
on 9.7 with check_proxy_users on), so it does not make a level unsafe. It remains when the grantor is dropped.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pymysql

from adapters.mysql.connection import MySQLConnection, literal_list, quoted
from adapters.mysql.errors import code

NAMED_AT_MOST = 5
NO_SUCH_GRANT = 1141


@dataclass(frozen=True, kw_only=True)
class ProxyGrant:
    """``user`` at ``host`` may act as ``proxied_user`` at ``proxied_host``."""

    user: str
    host: str
    proxied_user: str
    proxied_host: str

    @property
    def revoke(self) -> str:
        """The statement that revokes it."""
        proxied = f"{quoted(self.proxied_user)}@{quoted(self.proxied_host)}"
        return f"REVOKE PROXY ON {proxied} FROM {quoted(self.user)}@{quoted(self.host)}"


def granted_by(connection: MySQLConnection, username: str) -> list[ProxyGrant]:
    """PROXY on the user or by the user: MySQL accepts ``PROXY ON CURRENT_USER()`` from everybody."""
    grantor = connection.literal(username + "@")  # the grantor is ``user@host``, with the host of its client
    by_user = f"LEFT(grantor, {len(username) + 1}) = {grantor}"
    return _select(connection, f"proxied_user = {connection.literal(username)} OR {by_user}")


def held_by(connection: MySQLConnection, role: str, prefix: str) -> list[ProxyGrant]:
    """PROXY that temporary users granted to a role."""
    grantor = f"LEFT(grantor, {len(prefix)}) = {connection.literal(prefix)}"
    return _select(connection, f"user = {connection.literal(role)} AND {grantor}")


def on_users(connection: MySQLConnection, usernames: Sequence[str]) -> list[ProxyGrant]:
    """PROXY on these users."""
    return _select(connection, f"proxied_user IN ({literal_list(connection, usernames)})")


def _select(connection: MySQLConnection, condition: str) -> list[ProxyGrant]:
    query = f"SELECT user, host, proxied_user, proxied_host FROM mysql.proxies_priv WHERE {condition}"
    return [ProxyGrant(user=u, host=h, proxied_user=p, proxied_host=o) for u, h, p, o in connection.run(query)]


def revoke_granted_by(connection: MySQLConnection, username: str) -> list[str]:
    """Revoke what the user granted. The notes for the receipt name the rest: for it the bot needs PROXY ON ''@'' WITH GRANT OPTION."""
    left = [p for p in granted_by(connection, username) if p.user != username and not _revoked(connection, p)]
    notes = [f"the user granted PROXY to {proxy.user}: {proxy.revoke};" for proxy in left]
    further = len(notes) - NAMED_AT_MOST
    return [*notes[:NAMED_AT_MOST], *([f"and {further} more, in mysql.proxies_priv"] if further > 0 else [])]


def _revoked(connection: MySQLConnection, proxy: ProxyGrant) -> bool:
    try:
        connection.run(proxy.revoke)
    except pymysql.MySQLError as error:
        return code(error) == NO_SUCH_GRANT
    return True
