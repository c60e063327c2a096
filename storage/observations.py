"""The last observations of the monitors, and how far readers of the audit log have come. These values outlive a run of the bot."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta

from sqlalchemy import Connection, delete, insert, or_, select, update

from storage.alerts import AlertDraft, AlertRepository
from storage.audit_log import Event, append_event
from storage.database import Database, advisory_lock_key
from storage.schema import cursors, observed_groups, pinned_handles


class Observations:
    """Groups, handles and cursors of the ledger."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def groups(self) -> Mapping[str, frozenset[str]]:
        """The members of each group that the policy names, as they were seen last."""
        query = select(observed_groups.c.name, observed_groups.c.members)
        return await self._database.read(
            lambda tx: {name: frozenset(members) for name, members in tx.execute(query).all()}
        )

    async def set_group(
        self,
        name: str,
        members: frozenset[str],
        *,
        was: frozenset[str] | None,
        events: Sequence[Event] = (),
        alerts: Sequence[AlertDraft] = (),
    ) -> bool:
        """Store the members of a group. If the stored ones are not ``was`` any more (None: no such group), store nothing, return False.

        ``events`` are appended to the audit log, and ``alerts`` are raised, in the same transaction. A crash can therefore
        not lose the announcement of a change that will not be seen again.
        """

        def transaction(tx: Connection) -> bool:
            self._lock_value(tx, f"group {name}")
            found = tx.execute(select(observed_groups.c.members).where(observed_groups.c.name == name)).scalar()
            if (None if found is None else frozenset(found)) != was:
                return False
            tx.execute(delete(observed_groups).where(observed_groups.c.name == name))
            tx.execute(insert(observed_groups).values(name=name, members=sorted(members)))
            now = self._database.now_in(tx)
            for kind, actor, facts in events:
                append_event(tx, kind, actor=actor, request_id=None, facts=facts, text=None, now=now)
            for alert in alerts:
                AlertRepository(self._database).raise_in(tx, alert)
            return True

        return await self._database.write(transaction)

    async def pins(self) -> Mapping[str, str]:
        """The group that each handle meant when the policy began to name it."""
        query = select(pinned_handles.c.handle, pinned_handles.c.group_id)
        return await self._database.read(lambda tx: {row.handle: row.group_id for row in tx.execute(query)})

    async def pin(self, handle: str, group_id: str) -> None:
        """Store the group of a handle, unless one is stored."""

        def transaction(tx: Connection) -> None:
            self._lock_value(tx, f"handle {handle}")
            if tx.execute(select(pinned_handles.c.handle).where(pinned_handles.c.handle == handle)).first() is None:
                tx.execute(insert(pinned_handles).values(handle=handle, group_id=group_id))

        await self._database.write(transaction)

    async def forget_all_but(self, named: Collection[str]) -> None:
        """Forget the groups and handles that are not ``named``. One that the policy names again later is at first sight then."""
        known = {*(await self.groups()), *(await self.pins())}
        if not (gone := sorted(known - set(named))):
            return

        def transaction(tx: Connection) -> None:
            tx.execute(delete(observed_groups).where(observed_groups.c.name.in_(gone)))
            tx.execute(delete(pinned_handles).where(pinned_handles.c.handle.in_(gone)))

        await self._database.write(transaction)

    async def cursor(self, name: str) -> int:
        """The id of the last audit event that this reader has handled; 0 at the beginning."""
        query = select(cursors.c.value).where(cursors.c.name == name)
        return await self._database.read(lambda tx: int(tx.execute(query).scalar_one_or_none() or 0))

    async def set_cursor(self, name: str, value: int) -> None:
        """Store the id of the last audit event that this reader has handled."""

        def transaction(tx: Connection) -> None:
            self._lock_value(tx, f"cursor {name}")
            if tx.execute(update(cursors).where(cursors.c.name == name).values(value=value)).rowcount == 0:
                tx.execute(insert(cursors).values(name=name, value=value))

        await self._database.write(transaction, announce=False)

    async def take_turn(self, name: str, every: timedelta) -> bool:
        """Whether nobody began this periodic work within ``every``: then the caller does it now, and no other replica.

        A turn that was taken in the future (the clock was set back) does not count.
        """

        def transaction(tx: Connection) -> bool:
            now = int(self._database.now_in(tx).timestamp())
            is_over = or_(cursors.c.value <= now - int(every.total_seconds()), cursors.c.value > now)
            mine = update(cursors).where(cursors.c.name == name, is_over).values(value=now)
            if tx.execute(mine).rowcount:
                return True
            self._lock_value(tx, f"turn {name}")
            if tx.execute(select(cursors.c.value).where(cursors.c.name == name)).first() is not None:
                return False
            tx.execute(insert(cursors).values(name=name, value=now))
            return True

        return await self._database.write(transaction, announce=False)

    def _lock_value(self, tx: Connection, name: str) -> None:
        """On PostgreSQL, wait until no other transaction changes this value. SQLite has one writer at a time."""
        if not self._database.is_sqlite:
            tx.exec_driver_sql("SELECT pg_advisory_xact_lock(%s)", (advisory_lock_key(f"seen {name}"),))
