"""Translates the driver's errors into ``AdapterError`` and removes secrets from them and from the errors chained behind them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager

import pymysql

from adapters.base import AdapterError, Rejected, ServerDown
from adapters.usernames import scrub

LONGEST = 300

NO_CONNECTION = frozenset({2001, 2002, 2003, 2005, 1040, 1129, 1203, 1226, 1053, 3032, 3169})
"""The server was not reached, is full, is shutting down, or the bot's own connection limit is used up. Nothing was done."""

TRANSIENT = frozenset(
    {0, 2006, 2013, 2014, 2055, 1105, 1158, 1159, 1160, 1161, 1205, 1213, 1317, 1792, 1836, 1927, 1969, 3024, 4031}
)
"""Connection lost, timeout, deadlock or KILL: the statement may have run. The driver reports 0 for a connection that is closed."""

CONNECTION_LOST = frozenset({0, 2006, 2013, 2014, 2055})

DRIVER_FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
    struct.error,
    RuntimeError,
)
"""What the driver raises for an answer that it does not understand, from a proxy or from something that is no such server."""

OPTION_PREVENTS = 1290
"""A server option forbids the statement: read-only is one such option, strict-password-validation another."""

READ_ONLY = frozenset({OPTION_PREVENTS, 1836, 1792})
"""The server is a replica or is becoming one. Repeating helps once the address leads to the primary."""

LOGIN_REFUSED = frozenset({1045, 1044, 1049, 1130, 1698, 1862, 3118, 4151, 2049, 2059, 2061})
NO_RIGHT = frozenset({1044, 1045, 1095, 1142, 1143, 1227, 1370, 1410, 1419, 1698, 1873, 3619, 3523, 3879})
NO_TLS = frozenset({2026, 3159})
CERTIFICATE = "CERTIFICATE_VERIFY_FAILED"
NO_SUCH_PROCESS = 1094
LOCK_TIMEOUTS = frozenset({1205, 1969})
"""A lock was not granted in time. MariaDB reports 1969 when max_statement_time ran out."""

SCHEDULER_DISABLED = 1577
MAY_NOT_RECOVER = 1401
"""XA RECOVER without the right. ``check`` reports it."""

UNKNOWN_XID = 1397
"""XA ROLLBACK of a transaction that does not exist any more."""

NO_SUCH_USER = 1396
UNKNOWN_VARIABLE = 1193
NO_SUCH_GRANTS = 1141
"""SHOW GRANTS of an account that does not exist any more."""

IS_DEFINER = 4006
"""DROP USER of an account that is the definer of a view, routine, trigger or event. Only MySQL refuses this."""


@contextmanager
def translated(secrets: tuple[str, ...], *, login: str, where: str) -> Iterator[None]:
    """Raise the driver's errors as AdapterError. The driver's error stays as its context, without secrets.

    ``login`` is the bot's user name and ``where`` names the server; both appear in the messages.
    """
    try:
        yield
    except pymysql.MySQLError as error:
        translation = translate(error, secrets, login=login, where=where)
        _scrub_chain(error, secrets)
        raise translation from None
    except UnicodeError:
        raise Rejected("a name or value cannot be sent in the server's encoding") from None
    except RuntimeError as error:  # the driver raises it for a login method that it does not support
        raise Rejected(f"the driver cannot log in: {_one_line(str(error), secrets)}") from None
    except DRIVER_FAULTS as error:
        raise ServerDown(
            f"the driver cannot read the answer of {where} ({type(error).__name__})", is_ambiguous=True
        ) from None
    except OSError as error:
        _scrub_chain(error, secrets)
        raise ServerDown(f"no connection to {where}: {_one_line(str(error), secrets)}", is_ambiguous=True) from None


def _scrub_chain(error: BaseException | None, secrets: tuple[str, ...]) -> None:
    """A caller that logs an error may log its causes too."""
    while error is not None:
        error.args = tuple(scrub(part, *secrets) if isinstance(part, str) else part for part in error.args)
        vars(error).pop("original_exception", None)
        error = error.__cause__ or error.__context__


def code(error: pymysql.MySQLError) -> int:
    """The server's error number; 0 where the driver has none."""
    return error.args[0] if error.args and isinstance(error.args[0], int) else 0


def translate(error: pymysql.MySQLError, secrets: tuple[str, ...], *, login: str, where: str) -> AdapterError:
    """The AdapterError for an error number. The groups of numbers were measured on both servers."""
    number = code(error)
    message = _one_line(str(error.args[1]) if len(error.args) > 1 else str(error), secrets)
    if number in READ_ONLY and (number != OPTION_PREVENTS or "read" in message):
        return ServerDown(f"{where} is read-only ({message}): a replica, or one that is becoming one")
    if number in NO_CONNECTION and CERTIFICATE not in message:
        return ServerDown(f"no connection to {where}: {message}")
    if number in NO_TLS or CERTIFICATE in message:
        remedy = (
            "correct tls in databases.yml: its mode, and ca with the authority that signed the server's certificate"
        )
        return Rejected(f"{where} refused the bot's own login: {message}", remedy=remedy)
    if number in TRANSIENT:
        return ServerDown(f"{where} did not finish: {message}", is_ambiguous=True)
    if number in NO_RIGHT:
        return _missing_right(number, message, login, where)
    return Rejected(f"{where} refused ({number}): {message}")


def _missing_right(number: int, message: str, login: str, where: str) -> Rejected:
    if number in (1045, 1698) and "to user" not in message:
        remedy = f"put the right user and password of {login} into the admin URL"
        return Rejected(f"{where} refused the bot's own login: {message}", remedy=remedy)
    return Rejected(f"the bot lacks a right: {message}", remedy="run dbaccess doctor: it prints what is missing")


def _one_line(text: str, secrets: tuple[str, ...]) -> str:
    return scrub(" ".join(text.split()), *secrets)[:LONGEST]
