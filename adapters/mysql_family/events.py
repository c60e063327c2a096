"""The server's own end of a user: an event that locks, kills and drops, a little after dbaccess would have.

It lives in the schema ``ops_schema``, where nobody but the bot has the EVENT right, and carries a mark in its comment. It is
kept after it ran, disabled, until the user is dropped: a server that ended a user by itself can still say so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from adapters.base import NotOurs, Rejected, Target
from adapters.mysql_family.connection import Connection, account, quoted, shown

MARK = re.compile(r"dbaccess ledger=([a-z0-9]+) request=([0-9]+)")

BODY = """BEGIN
  DECLARE session BIGINT;
  DECLARE rounds INT DEFAULT 0;
  DECLARE living INT DEFAULT 1;
  ALTER USER IF EXISTS {account} ACCOUNT LOCK;
  WHILE living > 0 AND rounds < 1000 DO
    BEGIN
      DECLARE is_done INT DEFAULT 0;
      DECLARE found CURSOR FOR SELECT id FROM information_schema.processlist WHERE HEX(user) = HEX({name});
      DECLARE CONTINUE HANDLER FOR NOT FOUND SET is_done = 1;
      DECLARE CONTINUE HANDLER FOR 1094 BEGIN END;
      OPEN found;
      kills: LOOP
        FETCH found INTO session;
        IF is_done THEN LEAVE kills; END IF;
        KILL session;
      END LOOP;
      CLOSE found;
    END;
    DO SLEEP(0.01);
    SELECT COUNT(*) INTO living FROM information_schema.processlist WHERE HEX(user) = HEX({name});
    SET rounds = rounds + 1;
  END WHILE;
  DROP USER IF EXISTS {account};
END"""
"""Lock, kill to zero, drop. By HEX, for the process list compares names without case. A session that ended by itself between being seen and being killed is 1094."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """The event of a user. ``fires_at`` and ``fired_at`` are the server's clock."""

    username: str
    ledger: str | None
    request_id: int | None
    fires_at: datetime | None
    fired_at: datetime | None


def find(connection: Connection, target: Target, username: str | None = None) -> dict[str, Event]:
    """By user name: one, or all of our prefix."""
    prefix = connection.literal(target.prefix)
    which = (
        f"LEFT(event_name, {len(target.prefix)}) = {prefix}"
        if username is None
        else f"event_name = {connection.literal(username)}"
    )
    rows = connection.run(
        "SELECT event_name, event_comment, execute_at, last_executed, time_zone FROM information_schema.events"
        f" WHERE event_schema = {connection.literal(target.ops_schema)} AND {which}"
    )
    return {row[0]: _event(*row) for row in rows}


def _event(name: str, comment: str, at: datetime | None, last: datetime | None, zone: str) -> Event:
    """One that fired or is none of ours has times nobody can read: its zone is not ours."""
    mark = MARK.fullmatch(comment or "")
    is_utc = zone == "+00:00"
    return Event(
        username=name,
        ledger=mark[1] if mark else None,
        request_id=int(mark[2]) if mark else None,
        fires_at=at.replace(tzinfo=UTC) if at and is_utc else None,
        fired_at=last.replace(tzinfo=UTC) if last and is_utc else None,
    )


def set_up(connection: Connection, target: Target, username: str, *, request_id: int, at: datetime) -> None:
    """Make the event, or move it. Read back: a time in the past is accepted by the server and the event thrown away without an error."""
    known = find(connection, target, username).get(username)
    if known is not None and known.ledger != target.ledger:
        raise NotOurs(username, "its event carries another mark")
    name = f"{quoted(target.ops_schema)}.{quoted(username)}"
    when = f"ON SCHEDULE AT {connection.literal(_whole_second(at))} ON COMPLETION PRESERVE ENABLE"
    if known is None:
        comment = connection.literal(f"dbaccess ledger={target.ledger} request={request_id}")
        body = BODY.format(account=account(username), name=connection.literal(username))
        connection.run(f"CREATE EVENT {name} {when} COMMENT {comment} DO {body}")
    else:
        connection.run(f"ALTER EVENT {name} {when}")
    found = find(connection, target, username).get(username)
    if found is None or found.fires_at is None:
        raise Rejected(f"the server did not keep the event {shown(target.ops_schema)}.{username}")


def _whole_second(at: datetime) -> str:
    """Rounded up: never in the past, where it was not before."""
    return (at.astimezone(UTC) + timedelta(seconds=1)).strftime("%Y-%m-%d %H:%M:%S")


def drop(connection: Connection, target: Target, username: str) -> None:
    connection.run(f"DROP EVENT IF EXISTS {quoted(target.ops_schema)}.{quoted(username)}")


def scheduler_is_on(connection: Connection) -> bool:
    return str(connection.value("SELECT @@event_scheduler")).upper() == "ON"
