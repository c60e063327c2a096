"""PostgreSQL: the claims of a worker whose process is gone are free within seconds, before their lease runs out.

The connection on which a process listens for commits holds an advisory lock. PostgreSQL releases it when the process or its machine is gone.
A claim that was made while the lock was held says so in the name of its worker. Every process looks whether the locks of the others are
held. A lock that is missed for ``GONE_SECONDS`` frees the claims that hold up an end. A message may wait for the lease: late is better than twice.

Claims without the mark keep their lease: those of an older version of the program, and those made while the lock was not held, as behind
a connection pooler. A worker that is alive although its lock is gone loses its claim as after a lease: each of its later steps presents it.
"""

from __future__ import annotations

from datetime import timedelta
from time import monotonic

import structlog
from sqlalchemy import Connection, bindparam, text, update
from sqlalchemy.exc import SQLAlchemyError

from storage.claims import FREE
from storage.commit_listener import PROCESS_CLASS
from storage.pools import ON_SERVER
from storage.schema import tasks

LOOK_EVERY = timedelta(seconds=2)
GONE_SECONDS = 4.0
"""Longer than a process needs to connect and take its lock again after it lost its connection."""

OF_A_USER = "(lock_key LIKE 'user:%' OR held_key LIKE 'user:%')"
KINDS = ", ".join(f"'{kind}'" for kind in sorted(ON_SERVER))
"""Tasks that hold the key of a user, or may hold it in a moment."""
CLAIMANTS = text(f"""
SELECT DISTINCT worker, EXISTS (
         SELECT FROM pg_locks l
          WHERE l.locktype = 'advisory' AND l.objsubid = 2 AND l.classid = {PROCESS_CLASS} AND l.granted
            AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND l.objid = split_part(worker, '+', 2)::bigint) AS is_alive
  FROM tasks
 WHERE claim IS NOT NULL AND worker ~ '[+][0-9]{{1,10}}$' AND split_part(worker, '+', 2) <> :own AND kind IN ({KINDS})
""")
CLAIMS = text(f"""
SELECT id FROM tasks WHERE claim IS NOT NULL AND worker = ANY(:workers) AND {OF_A_USER} FOR UPDATE SKIP LOCKED
""")

log = structlog.get_logger(__name__)


def marked(worker: str, number: int | None) -> str:
    """The name of the worker for a claim. ``number`` is that of the process; None while it does not hold its lock."""
    return worker if number is None else f"{worker}+{number}"


class GoneWorkers:
    """What one process knows of the locks of the others. ``watches``: others had such claims at the last look, so it looks again soon."""

    def __init__(self) -> None:
        self.watches = False
        self._looked_at = 0.0
        self._missed_since: dict[str, float] = {}

    def free_claims(self, tx: Connection, own: int | None) -> None:
        """Free the claims of workers that are gone. Looks at most twice in ``LOOK_EVERY``. ``own`` is the number of this process.

        Without its own lock it cannot tell: the server was restarted, perhaps. Raises nothing that would hold up the claims of this process.
        """
        now = monotonic()
        if own is None:
            self.watches, self._missed_since = False, {}
        elif now - self._looked_at >= LOOK_EVERY.total_seconds() / 2:
            self._looked_at = now
            try:
                with tx.begin_nested():
                    self._free_missed(tx, own, now)
            except SQLAlchemyError as error:
                log.warning("gone_workers_not_looked_for", error=type(error).__name__)

    def _free_missed(self, tx: Connection, own: int, now: float) -> None:
        found = {row.worker: row.is_alive for row in tx.execute(CLAIMANTS, {"own": str(own)})}
        self.watches = bool(found)
        self._missed_since = {
            worker: self._missed_since.get(worker, now) for worker, is_alive in found.items() if not is_alive
        }
        gone = [worker for worker, since in self._missed_since.items() if now - since >= GONE_SECONDS]
        if gone and (ids := list(tx.execute(CLAIMS, {"workers": gone}).scalars())):
            tx.execute(update(tasks).where(tasks.c.id.in_(bindparam("ids", ids, expanding=True))).values(**FREE))
            log.warning("claims_of_gone_workers_freed", workers=gone[:5], tasks=len(ids))
