"""The Slack messages of requests, as the ledger knows them: where each one is, and which version of its request it shows.

Rows for the card and the credential message are written by the transition that needs them (``lifecycle.TRANSITIONS``). They are
posted later, by a task.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from storage import serialization
from storage.database import Database
from storage.records import Message, Purpose, Request
from storage.schema import messages


class RequestMessages(Database):
    """The messages of the ledger."""

    async def messages(self, request_id: int, purpose: Purpose | None = None) -> tuple[Message, ...]:
        """The messages of a request in order of creation, or only those of one purpose."""
        query = select(messages).where(messages.c.request_id == request_id).order_by(messages.c.id)
        if purpose is not None:
            query = query.where(messages.c.purpose == purpose)
        return await self.read_all(query, serialization.message)

    async def add_message(self, request_id: int, purpose: Purpose, channel: str) -> Message:
        """Add a message that is not posted yet."""
        values = {"request_id": request_id, "purpose": purpose, "channel": channel, "ts": None, "version": 0}
        async with self.writing() as tx:
            row = (await tx.execute(insert(messages).values(**values).returning(messages))).mappings().one()
        return serialization.message(row)

    async def message_posted(self, message_id: int, *, channel: str, ts: str, version: int) -> None:
        """Note that the message was posted: its channel and ``ts`` in Slack, and the version that it shows."""
        await self._change_message(message_id, channel=channel, ts=ts, version=version)

    async def message_rendered(self, message_id: int, version: int) -> None:
        """Note that the message was updated in place and shows this version."""
        await self._change_message(message_id, version=version)

    async def message_deleted(self, message_id: int) -> None:
        """Note that the message is gone from Slack: it has to be posted again."""
        await self._change_message(message_id, ts=None)

    async def _change_message(self, message_id: int, **values: str | int | None) -> None:
        async with self.writing() as tx:
            await tx.execute(update(messages).where(messages.c.id == message_id).values(**values))


async def insert_messages(tx: AsyncConnection, request: Request, purposes: Iterable[Purpose]) -> None:
    """Insert messages that are posted later: a card into the channel of the rule, others to the requester."""
    for purpose in purposes:
        channel = request.terms.channel if purpose is Purpose.CARD else request.requester_id
        await tx.execute(insert(messages).values(request_id=request.id, purpose=purpose, channel=channel, version=0))
