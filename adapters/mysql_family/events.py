"""The server's own end of a user: an event that kills, locks, kills again and drops, a little after dbaccess would have.

It lives in the schema ``ops_schema``, where nobody but the bot has the EVENT right. Its comment is the mark that says whose the user is:
a user cannot change it. It is kept after it ran, disabled, until the user is dropped: a server that ended a user by itself can still say so.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pymysql

from adapters.base import Blocked, ForeignUser, Rejected, Target
from adapters.mysql_family import locks
from adapters.mysql_family.connection import Connection, Row, Server, account, quoted, shown
from adapters.mysql_family.errors import SCHEDULER_DISABLED, code

MARK = re.compile(r"dbaccess ledger=([a-z0-9]+) request=([0-9]+)")

BODY = """BEGIN
  DECLARE session, newest BIGINT;
  DECLARE is_locked, since_lock, rounds INT DEFAULT 0;
  DECLARE living INT DEFAULT 1;
  SET SESSION lock_wait_timeout = 1;
  WHILE (living > 0 OR is_locked = 0) AND rounds < 3600 DO
    BEGIN
      DECLARE is_done INT DEFAULT 0;
      DECLARE found CURSOR FOR SELECT id FROM information_schema.processlist WHERE HEX(user) = HEX({name})
        OR (user = 'unauthenticated user' AND id <= newest AND since_lock > 100);
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
    IF is_locked = 0 THEN
      BEGIN
        DECLARE CONTINUE HANDLER FOR 1205 SET is_locked = 0;
        SET is_locked = 1;
        ALTER USER IF EXISTS {account} ACCOUNT LOCK;
      END;
      SELECT MAX(id) INTO newest FROM information_schema.processlist WHERE user = 'unauthenticated user';
    ELSE
      SET since_lock = since_lock + 1;
      DO SLEEP(0.01);
    END IF;
    SELECT COUNT(*) INTO living FROM information_schema.processlist WHERE HEX(user) = HEX({name})
      OR (user = 'unauthenticated user' AND id <= newest);
    SET rounds = rounds + 1;
  END WHILE;
  SET living = 1;
  WHILE living > 0 AND rounds < 7200 DO
    BEGIN
      DECLARE CONTINUE HANDLER FOR 1205 SET living = 1;
      SET living = 0;
      DROP USER IF EXISTS {account};
    END;
    SET rounds = rounds + 1;
  END WHILE;
END"""
"""Kill, lock, kill to zero, drop. The kill comes first, for a session may hold what the lock waits for; a lock that does not come within a second (1205) is
tried again after another kill. By HEX, for the process list compares names without case. A session that ended by itself between being seen and being killed is 1094.
Logins that were half open at the lock are waited for, a second at least, and then killed (see ``sessions``)."""

COLUMNS = (
    "event_name, event_comment, execute_at, last_executed, time_zone FROM information_schema.events WHERE event_schema"
)
COLUMNS_WHERE_DISABLED = "name, comment, execute_at, last_executed, time_zone FROM mysql.event WHERE db"
"""MariaDB started with event_scheduler=DISABLED does not answer about events, and still has the table."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """The event of a user. ``fires_at`` and ``fired_at`` are the server's clock."""

    username: str
    ledger: str | None
    request_id: int | None
    fires_at: datetime | None
    fired_at: datetime | None


def find(connection: Connection, target: Target, username: str | None = None) -> dict[str, Event]:
    """By user name: one, or all of our prefix. Empty where the server does not let anybody see events."""
    return {row[0]: _event(*row) for row in _rows(connection, target, username)}


def _rows(connection: Connection, target: Target, username: str | None) -> list[Row]:
    try:
        return connection.run(_query(COLUMNS, connection, target, username))
    except pymysql.MySQLError as error:
        if code(error) != SCHEDULER_DISABLED:
            raise
    try:
        return connection.run(_query(COLUMNS_WHERE_DISABLED, connection, target, username))
    except pymysql.MySQLError:
        return []


def _query(columns: str, connection: Connection, target: Target, username: str | None) -> str:
    name, prefix = columns.partition(",")[0], connection.literal(target.prefix)
    which = (
        f"LEFT({name}, {len(target.prefix)}) = {prefix}"
        if username is None
        else f"{name} = {connection.literal(username)}"
    )
    return f"SELECT {columns} = {connection.literal(target.ops_schema)} AND {which}"


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


def set_up(server: Server, connection: Connection, username: str, *, request_id: int, at: datetime) -> None:
    """Make the event, or move it. Read back: a time in the past is accepted by the server and the event thrown away without an error."""
    target = server.target
    known = find(connection, target, username).get(username)
    if known is not None and known.ledger != target.ledger:
        raise ForeignUser(username, "its event carries another mark")
    mark = f"dbaccess ledger={target.ledger} request={request_id}" if known is None else None
    schedule = f"ON SCHEDULE AT {connection.literal(_whole_second(at))} ON COMPLETION PRESERVE ENABLE"
    try:
        statement = _statement(connection, target, username, schedule, mark)
        locks.run(server, connection, statement, username)
    except pymysql.MySQLError as error:
        if code(error) != SCHEDULER_DISABLED:
            raise
        remedy = "set event_scheduler = ON in the server's configuration and restart it"
        raise Rejected("the server makes no events (event_scheduler = DISABLED)", remedy=remedy) from None
    found = find(connection, target, username).get(username)
    if found is None or found.fires_at is None:
        raise Rejected(f"the server did not keep the event {shown(target.ops_schema)}.{username}")


def _statement(connection: Connection, target: Target, username: str, schedule: str, mark: str | None) -> str:
    """With the body also where it is there: one that was made by an older dbaccess gets today's."""
    verb, comment = ("ALTER", "") if mark is None else ("CREATE", f" COMMENT {connection.literal(mark)}")
    body = BODY.format(account=account(username), name=connection.literal(username))
    return f"{verb} EVENT {_name(target, username)} {schedule}{comment} DO {body}"


def _name(target: Target, username: str) -> str:
    return f"{quoted(target.ops_schema)}.{quoted(username)}"


def _whole_second(at: datetime) -> str:
    """Rounded up: never in the past, where it was not before."""
    return (at.astimezone(UTC) + timedelta(seconds=1)).strftime("%Y-%m-%d %H:%M:%S")


def drop(server: Server, connection: Connection, username: str) -> list[str]:
    """Notes for the receipt: an event that stays behind ends nobody who is not there, so it holds up no end."""
    statement = f"DROP EVENT IF EXISTS {_name(server.target, username)}"
    try:
        locks.run(server, connection, statement, username)
    except (pymysql.MySQLError, Blocked) as trouble:
        words = trouble.what if isinstance(trouble, Blocked) else str(trouble.args[-1])
        return [f"its event was left in {shown(server.target.ops_schema)} ({words}): {statement};"]
    return []


def scheduler_is_on(connection: Connection) -> bool:
    return scheduler(connection) == "ON"


def can_be_seen(connection: Connection) -> bool:
    """MariaDB with event_scheduler=DISABLED answers nothing about events and makes none; MySQL makes and keeps them."""
    try:
        connection.run("SELECT 1 FROM information_schema.events LIMIT 1")
    except pymysql.MySQLError as error:
        if code(error) != SCHEDULER_DISABLED:
            raise
        return False
    return True


def scheduler(connection: Connection) -> str:
    """ON, OFF or DISABLED."""
    return str(connection.value("SELECT @@event_scheduler")).upper()
