"""Values that outlive a run of the bot: what a monitor saw last, and how far a reader of the audit log has come.

They are rows of the table ``meta``, which also holds the id of the ledger.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.audit_events import Event, append_event
from storage.database import Database, advisory_lock_key
from storage.schema import meta
from storage.task_queue import schedule_task
from storage.transitions import TaskPlan


class MetaValues(Database):
    """Seen values and cursors of the ledger."""

    async def seen(self, name: str) -> str | None:
        """The value that ``set_seen`` stored under this name; None if there is none."""
        async with self.reading() as tx:
            return await meta_value(tx, f"seen:{name}")

    async def seen_names(self, prefix: str) -> tuple[str, ...]:
        """The names of seen values that start with ``prefix``."""
        names = select(meta.c.name).where(meta.c.name.startswith(f"seen:{prefix}", autoescape=True))
        async with self.reading() as tx:
            return tuple(name.removeprefix("seen:") for name in (await tx.execute(names)).scalars())

    async def set_seen(
        self,
        name: str,
        value: str | None,
        *,
        was: str | None,
        events: Sequence[Event] = (),
        plan: TaskPlan | None = None,
    ) -> bool:
        """Store a seen value, or remove it with None. If the stored value is not ``was`` any more, store nothing, return False.

        ``events`` are appended to the audit log, and the task of ``plan`` is stored, in the same transaction. A crash can
        therefore not lose the announcement of a change that will not be seen again.
        """
        async with self.writing() as tx:
            if not self.is_sqlite:
                await tx.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (advisory_lock_key(f"seen {name}"),))
            if await meta_value(tx, f"seen:{name}") != was:
                return False
            await _set_meta_value(tx, f"seen:{name}", value)
            now = await self.now_in(tx)
            for kind, actor, facts in events:
                await append_event(tx, kind, actor=actor, request_id=None, facts=facts, text=None, now=now)
            if plan is not None:
                await schedule_task(tx, plan, request_id=None, now=now)
        return True

    async def cursor(self, name: str) -> int:
        """The id of the last audit event that this reader has handled; 0 at the beginning."""
        async with self.reading() as tx:
            return int(await meta_value(tx, f"cursor:{name}") or 0)

    async def set_cursor(self, name: str, value: int) -> None:
        """Store the id of the last audit event that this reader has handled."""
        async with self.writing() as tx:
            await _set_meta_value(tx, f"cursor:{name}", str(value))


async def meta_value(tx: AsyncConnection, name: str) -> str | None:
    """One value inside a transaction."""
    return (await tx.execute(select(meta.c.value).where(meta.c.name == name))).scalar_one_or_none()


async def _set_meta_value(tx: AsyncConnection, name: str, value: str | None) -> None:
    await tx.execute(delete(meta).where(meta.c.name == name))
    if value is not None:
        await tx.execute(insert(meta).values(name=name, value=value))
