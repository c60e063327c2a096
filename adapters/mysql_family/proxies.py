"""GRANT PROXY, which MySQL lets every account give on itself: to a role too, where it reaches nobody, and stays when its giver is dropped.

A role's PROXY does not count for its members (measured on 9.7 with check_proxy_users on), so it makes no level unfit.
"""

from __future__ import annotations

from dataclasses import dataclass

import pymysql

from adapters.mysql_family.connection import Connection, quoted
from adapters.mysql_family.errors import code

NAMED_AT_MOST = 5
NO_SUCH_GRANT = 1141


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """``user`` at ``host`` may act as another."""

    user: str
    host: str
    proxied_user: str
    proxied_host: str

    @property
    def revoke(self) -> str:
        """The statement that takes it back."""
        whom = f"{quoted(self.proxied_user)}@{quoted(self.proxied_host)}"
        return f"REVOKE PROXY ON {whom} FROM {quoted(self.user)}@{quoted(self.host)}"


def given_by(connection: Connection, username: str) -> list[Proxy]:
    """On the user, or by it: MySQL takes ``PROXY ON CURRENT_USER()`` for everybody."""
    return _found(connection, f"proxied_user = {connection.literal(username)} OR {_grantor(connection, username)}")


def held_by(connection: Connection, role: str, prefix: str) -> list[Proxy]:
    """What temporary users gave to a role."""
    grantor = f"LEFT(grantor, {len(prefix)}) = {connection.literal(prefix)}"
    return _found(connection, f"user = {connection.literal(role)} AND {grantor}")


def _grantor(connection: Connection, username: str) -> str:
    """``user@host``, by the host of its client."""
    return f"LEFT(grantor, {len(username) + 1}) = {connection.literal(username + '@')}"


def _found(connection: Connection, which: str) -> list[Proxy]:
    query = f"SELECT user, host, proxied_user, proxied_host FROM mysql.proxies_priv WHERE {which}"
    return [Proxy(user=u, host=h, proxied_user=p, proxied_host=o) for u, h, p, o in connection.run(query)]


def take_back(connection: Connection, username: str) -> list[str]:
    """Notes for the receipt, with the statements that the bot has no right to run: it needs PROXY ON ''@'' WITH GRANT OPTION."""
    left = [p for p in given_by(connection, username) if p.user != username and not _revoked(connection, p)]
    notes = [f"it gave PROXY to {proxy.user}: {proxy.revoke};" for proxy in left]
    further = len(notes) - NAMED_AT_MOST
    return [*notes[:NAMED_AT_MOST], *([f"and {further} more, in mysql.proxies_priv"] if further > 0 else [])]


def _revoked(connection: Connection, proxy: Proxy) -> bool:
    try:
        connection.run(proxy.revoke)
    except pymysql.MySQLError as error:
        return code(error) == NO_SUCH_GRANT
    return True
