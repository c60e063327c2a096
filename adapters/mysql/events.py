"""The event with which the server itself ends a user: it kills sessions, locks the account, kills again and drops the user.

It fires ``grace`` after the end of the grant, so that dbaccess acts first, and then every few seconds until the user is gone. It is in the
schema ``ops_schema``, where only the bot has the EVENT right. Its comment is the mark that names the user's ledger; the user cannot
change it. The event stays when it is done, disabled, so that the receipt can say that the server ended the user.
A server that was a replica does not run the events that it received; ``enable_again`` repairs that after a promotion.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pymysql

from adapters.base import Blocked, ForeignUser, Rejected, Target
from adapters.mysql import locks
from adapters.mysql.connection import MySQLConnection, Row, account, names_condition, quoted, quoted_if_needed
from adapters.mysql.errors import SCHEDULER_DISABLED, code
from adapters.mysql.server import Server

REPLICATED = frozenset({"SLAVESIDE_DISABLED", "REPLICA_SIDE_DISABLED"})
MARK = re.compile(r"dbaccess ledger=([a-z0-9]+) request=([0-9]+)")

EVERY_SECONDS = 10
"""The event fires again after so many seconds, until the user is gone. So a lock that outlives one firing does not keep the user alive."""

BODY = """BEGIN
  DECLARE session, newest BIGINT;
  DECLARE stop_at DATETIME(6) DEFAULT UTC_TIMESTAMP(6) + INTERVAL 8 SECOND;
  DECLARE is_locked, since_lock, waiting, is_done INT DEFAULT 0;
  DECLARE living INT DEFAULT 1;
  SET SESSION lock_wait_timeout = 1, innodb_lock_wait_timeout = 1;
  WHILE (living > 0 OR is_locked = 0) AND UTC_TIMESTAMP(6) < stop_at DO
    BEGIN
      DECLARE is_last INT DEFAULT 0;
      DECLARE found CURSOR FOR SELECT id FROM information_schema.processlist WHERE HEX(user) = HEX({name})
        OR (user = 'unauthenticated user' AND id <= newest AND since_lock > 100);
      DECLARE CONTINUE HANDLER FOR NOT FOUND SET is_last = 1;
      DECLARE CONTINUE HANDLER FOR 1094, 1095 BEGIN END;
      OPEN found;
      kills: LOOP
        FETCH found INTO session;
        IF is_last THEN LEAVE kills; END IF;
        KILL session;
      END LOOP;
      CLOSE found;
    END;
    IF is_locked = 0 THEN
      SELECT COUNT(*) INTO waiting FROM information_schema.processlist
        WHERE id <> CONNECTION_ID() AND user = SUBSTRING_INDEX(CURRENT_USER(), '@', 1)
        AND (info LIKE CONCAT('ALTER USER IF EXISTS%', {name}, '%') OR info LIKE CONCAT('DROP USER IF EXISTS%', {name}, '%'));
      IF waiting = 0 THEN
        BEGIN
          DECLARE CONTINUE HANDLER FOR 1205 SET is_locked = 0;
          SET is_locked = 1;
          ALTER USER IF EXISTS {account} ACCOUNT LOCK;
        END;
      ELSE
        DO SLEEP(0.1);
      END IF;
      SELECT MAX(id) INTO newest FROM information_schema.processlist WHERE user = 'unauthenticated user';
    ELSE
      SET since_lock = since_lock + 1;
      DO SLEEP(0.01);
    END IF;
    SELECT COUNT(*) INTO living FROM information_schema.processlist WHERE HEX(user) = HEX({name})
      OR (user = 'unauthenticated user' AND id <= newest);
  END WHILE;
  IF is_locked = 1 AND living = 0 THEN
    BEGIN
      DECLARE CONTINUE HANDLER FOR 1205 SET is_done = 0;
      DECLARE CONTINUE HANDLER FOR 4006 SET is_done = 1;
      SET is_done = 1;
      DROP USER IF EXISTS {account};
    END;
  END IF;
  IF is_done = 1 THEN
    ALTER EVENT {event} DISABLE;
  END IF;
END"""
"""Kill, lock, kill until no session is left, drop, and disable the event.

The kill comes first because a session may hold the lock that ALTER USER waits for. If the account is not locked within a second
(1205), the event kills again and repeats it; MariaDB limits no wait for its tables of accounts, so a firing does not lock while an earlier
one waits. Without the right to kill (1095) the account is locked. Names are compared by HEX because the process list compares them
without case. 1094 is a session that ended by itself after it was read. 4006 is a definer, whom MySQL does not drop: it stays locked.
Logins that were half open at the lock get at least a second and are then killed (see ``sessions``)."""

COLUMNS = (
    "event_name, event_comment, COALESCE(starts, execute_at), last_executed, time_zone, status"
    " FROM information_schema.events WHERE event_schema"
)
COLUMNS_WHERE_DISABLED = (
    "name, comment, COALESCE(starts, execute_at), last_executed, time_zone, status FROM mysql.event WHERE db"
)
"""MariaDB with event_scheduler=DISABLED answers no query about events, but its table can be read."""


@dataclass(frozen=True, kw_only=True)
class ExpiryEvent:
    """The event of a user. ``fires_at`` and ``fired_at`` are by the server's clock. ``ledger`` and ``request_id`` are its mark.

    ``is_replicated``: it came by replication, so this server does not run it.
    """

    username: str
    ledger: str | None
    request_id: int | None
    fires_at: datetime | None
    fired_at: datetime | None
    is_replicated: bool


def find(connection: MySQLConnection, target: Target, usernames: Sequence[str] | None = None) -> dict[str, ExpiryEvent]:
    """Events by user name, of these names or of all names with the prefix. Empty where the server shows events to nobody."""
    return {row[0]: _event(row) for row in _rows(connection, target, usernames)}


def find_all(connection: MySQLConnection, target: Target) -> dict[str, ExpiryEvent]:
    """Events of all names in ``ops_schema``: other ledgers with other prefixes may share it."""
    return {row[0]: _event(row) for row in _rows(connection, target, None, prefix="")}


def _rows(
    connection: MySQLConnection, target: Target, usernames: Sequence[str] | None, *, prefix: str | None = None
) -> list[Row]:
    target = target if prefix is None else replace(target, prefix=prefix)
    try:
        return connection.run(_query(COLUMNS, connection, target, usernames))
    except pymysql.MySQLError as error:
        if code(error) != SCHEDULER_DISABLED:
            raise
    try:
        return connection.run(_query(COLUMNS_WHERE_DISABLED, connection, target, usernames))
    except pymysql.MySQLError:
        return []


def _query(columns: str, connection: MySQLConnection, target: Target, usernames: Sequence[str] | None) -> str:
    condition = names_condition(connection, columns.partition(",")[0], usernames, target.prefix)
    return f"SELECT {columns} = {connection.literal(target.ops_schema)} AND {condition}"


def _event(row: Row) -> ExpiryEvent:
    """The bot creates events in UTC. The times of an event in another zone are not read."""
    name, comment, at, last, zone, status = row
    mark = MARK.fullmatch(comment or "")
    is_utc = zone == "+00:00"
    return ExpiryEvent(
        username=name,
        ledger=mark[1] if mark else None,
        request_id=int(mark[2]) if mark else None,
        fires_at=at.replace(tzinfo=UTC) if at and is_utc else None,
        fired_at=last.replace(tzinfo=UTC) if last and is_utc else None,
        is_replicated=status in REPLICATED,
    )


def set_up(server: Server, connection: MySQLConnection, username: str, *, request_id: int, at: datetime) -> None:
    """Create the event or move it to ``at``, then read it back: the server accepts a time in the past and drops the event without an error.

    Raises ForeignUser where the event carries another ledger's mark, and Rejected where the server keeps no events.
    """
    target = server.target
    known = find(connection, target, [username]).get(username)
    if known is not None and known.ledger != target.ledger:
        raise ForeignUser(username, "its event carries another mark")
    mark = f"dbaccess ledger={target.ledger} request={request_id}" if known is None else None
    try:
        statement = _statement(connection, target, username, at, mark)
        locks.run(server, connection, statement, username)
    except pymysql.MySQLError as error:
        if code(error) != SCHEDULER_DISABLED:
            raise
        remedy = "set event_scheduler = ON in the server's configuration and restart it"
        raise Rejected("the server creates no events (event_scheduler = DISABLED)", remedy=remedy) from None
    found = find(connection, target, [username]).get(username)
    if found is None or found.fires_at is None:
        raise Rejected(f"the server did not keep the event {quoted_if_needed(target.ops_schema)}.{username}")


def _statement(connection: MySQLConnection, target: Target, username: str, at: datetime, mark: str | None) -> str:
    """CREATE or ALTER EVENT. ALTER sets the body too, so that an event of an older dbaccess gets the current body."""
    verb, comment = ("ALTER", "") if mark is None else ("CREATE", f" COMMENT {connection.literal(mark)}")
    starts = connection.literal(_whole_second(at))
    schedule = f"ON SCHEDULE EVERY {EVERY_SECONDS} SECOND STARTS {starts} ON COMPLETION PRESERVE ENABLE"
    name = _name(target, username)
    body = BODY.format(account=account(username), name=connection.literal(username), event=name)
    return f"{verb} EVENT {name} {schedule}{comment} DO {body}"


def _name(target: Target, username: str) -> str:
    return f"{quoted(target.ops_schema)}.{quoted(username)}"


def _whole_second(at: datetime) -> str:
    """Rounded up, so that rounding never moves the time into the past."""
    return (at.astimezone(UTC) + timedelta(seconds=1)).strftime("%Y-%m-%d %H:%M:%S")


def received(connection: MySQLConnection, target: Target) -> list[ExpiryEvent]:
    """Events of this ledger that came by replication. The server does not run them, also after it was promoted."""
    return [e for e in find(connection, target).values() if e.is_replicated and e.ledger == target.ledger]


def enable_again(server: Server, connection: MySQLConnection) -> list[str]:
    """On a server that was promoted, enable the events that it received as a replica. Returns a sentence for each."""
    waiting = received(connection, server.target)
    if not waiting or server.dialect.is_replica(connection):
        return []
    done = list[str]()
    for event in waiting:
        at = event.fires_at or connection.now()
        statement = _statement(connection, server.target, event.username, at, None)
        locks.run(server, connection, statement, event.username)
        done.append(f"the event of {event.username}, which came by replication, was enabled")
    return done


def drop(server: Server, connection: MySQLConnection, username: str) -> list[str]:
    """Drop the event. Where that fails, the result is a note for the receipt: the event of a dropped user does nothing, so the revocation goes on."""
    statement = f"DROP EVENT IF EXISTS {_name(server.target, username)}"
    try:
        locks.run(server, connection, statement, username)
    except (pymysql.MySQLError, Blocked) as error:
        reason = error.what if isinstance(error, Blocked) else str(error.args[-1])
        return [f"its event was left in {quoted_if_needed(server.target.ops_schema)} ({reason}): {statement};"]
    return []


def is_scheduler_on(connection: MySQLConnection) -> bool:
    return scheduler(connection) == "ON"


def are_visible(connection: MySQLConnection) -> bool:
    """Whether the server answers queries about events. MariaDB with event_scheduler=DISABLED does not, and creates none; MySQL does both."""
    try:
        connection.run("SELECT 1 FROM information_schema.events LIMIT 1")
    except pymysql.MySQLError as error:
        if code(error) != SCHEDULER_DISABLED:
            raise
        return False
    return True


def scheduler(connection: MySQLConnection) -> str:
    """ON, OFF or DISABLED."""
    return str(connection.value("SELECT @@event_scheduler")).upper()
