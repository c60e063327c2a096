"""The Slack messages of requests, as the ledger knows them: where each one is, and which version of its request it shows.

Rows for the card and the credential message are written by the transition that needs them (``lifecycle.TRANSITIONS``). They are
posted later, by a task.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, insert, select, update

from storage import serialization
from storage.database import Database
from storage.records import Message, Purpose, Request
from storage.schema import messages


class MessageRepository:
    """The messages of the ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def of(self, request_id: int, purpose: Purpose | None = None) -> tuple[Message, ...]:
        """The messages of a request in order of creation, or only those of one purpose."""
        query = select(messages).where(messages.c.request_id == request_id).order_by(messages.c.id)
        if purpose is not None:
            query = query.where(messages.c.purpose == purpose)
        return await self._database.read_all(query, serialization.message)

    async def add(self, request_id: int, purpose: Purpose, channel: str) -> Message:
        """Add a message that is not posted yet."""
        values = {"request_id": request_id, "purpose": purpose, "channel": channel, "ts": None, "version": 0}
        query = insert(messages).values(**values).returning(messages)
        return await self._database.write(
            lambda tx: serialization.message(tx.execute(query).mappings().one()), announce=False
        )

    async def posted(self, message_id: int, *, channel: str, ts: str, version: int, before: str | None = None) -> bool:
        """Note that the message was posted: its channel and ``ts`` in Slack, and the version that it shows.

        ``before`` is the ``ts`` that the caller replaces. Returns False, and changes nothing, if another worker has posted the message
        meanwhile: the ledger must go on knowing the message that it filled.
        """
        same = messages.c.ts.is_not_distinct_from(before)
        values = {"channel": channel, "ts": ts, "version": version}
        query = update(messages).where(messages.c.id == message_id, same).values(**values)
        return await self._database.write(lambda tx: tx.execute(query).rowcount == 1, announce=False)

    async def rendered(self, message_id: int, version: int) -> None:
        """Note that the message was updated in place and shows this version."""
        await self._change(message_id, version=version)

    async def deleted(self, message_id: int) -> None:
        """Note that the message is gone from Slack: it has to be posted again."""
        await self._change(message_id, ts=None)

    async def _change(self, message_id: int, **values: str | int | None) -> None:
        query = update(messages).where(messages.c.id == message_id).values(**values)
        await self._database.write(lambda tx: tx.execute(query), announce=False)


def insert_messages(tx: Connection, request: Request, purposes: Iterable[Purpose]) -> None:
    """Insert messages that are posted later: a card into the channel of the rule, others to the requester."""
    for purpose in purposes:
        channel = request.terms.channel if purpose is Purpose.CARD else request.requester_id
        tx.execute(insert(messages).values(request_id=request.id, purpose=purpose, channel=channel, version=0))
