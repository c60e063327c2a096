"""The one translation of the driver's errors, with secrets taken out of them and of what is chained behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pymysql

from adapters.base import AdapterError, Rejected, ServerDown, scrub

LONGEST = 300

NO_CONNECTION = frozenset({2001, 2002, 2003, 2005, 1040, 1129, 1203, 1226, 1053, 3032, 3169})
"""Not reached, full, going down, or the bot's own limit of connections: nothing was done."""

AGAIN = frozenset(
    {0, 2006, 2013, 2014, 2055, 1105, 1158, 1159, 1160, 1161, 1205, 1213, 1317, 1792, 1836, 1927, 1969, 3024, 4031}
)
"""Lost, timed out, deadlocked, killed: it may have been done. 0 is what the driver says of a connection that is closed."""

OPTION_PREVENTS = 1290
"""Some option of the server stands against it: read-only is one of several, strict-password-validation another."""

READ_ONLY = frozenset({OPTION_PREVENTS, 1836, 1792})
"""A replica, or a server on its way to be one: until the address points to the primary."""

LOGIN_REFUSED = frozenset({1045, 1044, 1049, 1130, 1698, 1862, 3118, 4151, 2049, 2059, 2061})
LOCKED = frozenset({3118, 4151})
NO_RIGHT = frozenset({1044, 1045, 1095, 1142, 1143, 1227, 1370, 1410, 1419, 1698, 1873, 3619, 3523, 3879})
NO_TLS = frozenset({2026, 3159})
CERTIFICATE = "CERTIFICATE_VERIFY_FAILED"
NO_SUCH_PROCESS = 1094
LOCK_TIMEOUTS = frozenset({1205, 1969})
"""A lock did not come in time; 1969 is MariaDB's, by max_statement_time."""

SCHEDULER_DISABLED = 1577
MAY_NOT_RECOVER = 1401
"""XA RECOVER without the right; doctor names it."""

NO_SUCH_USER = 1396
IS_DEFINER = 4006
"""DROP USER of somebody whom a view, routine, trigger or event names as definer; MySQL 8.0.22 and later."""


@contextmanager
def translated(hidden: tuple[str, ...], *, login: str, where: str) -> Iterator[None]:
    """What the driver raises inside becomes an AdapterError; the driver's own stays behind it as context, without secrets."""
    try:
        yield
    except pymysql.MySQLError as error:
        trouble = translate(error, hidden, login=login, where=where)
        _take_out(error, hidden)
        raise trouble from None
    except UnicodeError:
        raise Rejected("a name or value cannot be sent in the server's encoding") from None
    except RuntimeError as error:  # the driver's own word for a login it has no means for
        raise Rejected(f"the driver cannot log in: {_clean(str(error), hidden)}") from None
    except OSError as error:
        _take_out(error, hidden)
        raise ServerDown(f"no connection to {where}: {_clean(str(error), hidden)}", is_ambiguous=True) from None


def _take_out(error: BaseException | None, hidden: tuple[str, ...]) -> None:
    """Whoever logs an error may log what it came from."""
    while error is not None:
        error.args = tuple(scrub(part, *hidden) if isinstance(part, str) else part for part in error.args)
        vars(error).pop("original_exception", None)
        error = error.__cause__ or error.__context__


def code(error: pymysql.MySQLError) -> int:
    """The server's number; 0 where the driver has none."""
    return error.args[0] if error.args and isinstance(error.args[0], int) else 0


def translate(error: pymysql.MySQLError, hidden: tuple[str, ...], *, login: str, where: str) -> AdapterError:
    """Try again, or not: by the number, as measured."""
    number = code(error)
    words = _clean(str(error.args[1]) if len(error.args) > 1 else str(error), hidden)
    if number in READ_ONLY and (number != OPTION_PREVENTS or "read" in words):
        return ServerDown(f"{where} is read-only ({words}): a replica, or one that is becoming one")
    if number in NO_CONNECTION and CERTIFICATE not in words:
        return ServerDown(f"no connection to {where}: {words}")
    if number in NO_TLS or CERTIFICATE in words:
        remedy = (
            "put tls in databases.yml right: its mode, and ca with the authority that signed the server's certificate"
        )
        return Rejected(f"{where} refused the bot's own login: {words}", remedy=remedy)
    if number in AGAIN:
        return ServerDown(f"{where} did not finish: {words}", is_ambiguous=True)
    if number in NO_RIGHT:
        return _no_right(number, words, login, where)
    return Rejected(f"{where} refused ({number}): {words}")


def _no_right(number: int, words: str, login: str, where: str) -> Rejected:
    if number in (1045, 1698) and "to user" not in words:
        remedy = f"put the right user and password of {login} into the admin URL"
        return Rejected(f"{where} refused the bot's own login: {words}", remedy=remedy)
    return Rejected(f"the bot lacks a right: {words}", remedy="run dbaccess doctor: it prints what is missing")


def _clean(words: str, hidden: tuple[str, ...]) -> str:
    return scrub(" ".join(words.split()), *hidden)[:LONGEST]
