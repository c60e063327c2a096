"""Logging in as the temporary user, by the address of the admin URL: how a team proves its own server."""

from __future__ import annotations

from pymongo.errors import OperationFailure, PyMongoError

from adapters.base import LoginRefused, ServerDown
from adapters.mongodb.connection import Client, Server, close
from adapters.mongodb.errors import clean, is_refusal


class Login:
    """Implements ``adapters.base.Login``: one connection."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def is_alive(self) -> bool:
        """Whether the server still knows somebody on this connection; the connection itself it never closes."""
        try:
            found = self._client.admin.command("connectionStatus")
        except PyMongoError:
            return False
        return bool(found["authInfo"]["authenticatedUsers"])

    def close(self) -> None:
        close(self._client)


def as_user(server: Server, username: str, password: str) -> Login:
    """Raises LoginRefused, and Unreachable where there was no answer about the password."""
    client = server.as_user(username, password)
    try:
        client.admin.command("connectionStatus")
    except PyMongoError as error:
        close(client)
        words = clean(str(error), (password,))
        if isinstance(error, OperationFailure) and is_refusal(error):
            raise LoginRefused(words) from None
        raise ServerDown(f"no login as {username}: {words}") from None
    return Login(client)
