"""Translates the driver's errors into AdapterError. Secrets are removed from the new error and from the chained ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bson.errors import BSONError
from pymongo.errors import (
    AutoReconnect,
    ConfigurationError,
    ConnectionFailure,
    InvalidOperation,
    InvalidURI,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
)

from adapters.base import AdapterError, Rejected, ServerDown
from adapters.usernames import scrub

LONGEST = 300
USER_NOT_FOUND, NOT_ALLOWED, LOGIN_FAILED, ROLE_NOT_FOUND = 11, 13, 18, 31
ROLE_EXISTS, USER_EXISTS, ATLAS = 51002, 51003, 8000
TIMED_OUT = frozenset({50, 64, 89, 262})
AGAIN = frozenset({6, 7, 43, 91, 112, 189, 202, 246, 251, 391, 9001, 10107, 11600, 11601, 11602, 13435, 13436})
"""Host away, write conflict, primary stepping down, interrupted: a later try may succeed."""

NO_TLS = ("CERTIFICATE_VERIFY_FAILED", "WRONG_VERSION_NUMBER", "certificate verify failed")
REFUSALS = {
    LOGIN_FAILED: (
        "{where} refused the bot's own login",
        "correct user, password and authSource in the admin URL",
    ),
    NOT_ALLOWED: ("the bot lacks a right", "run dbaccess doctor: it prints what is missing"),
    ATLAS: (
        "{where} does not accept this command",
        "Atlas creates users only through its Administration API, which dbaccess does not use",
    ),
}


@contextmanager
def translated(hidden: tuple[str, ...], *, where: str) -> Iterator[None]:
    """Errors of the driver inside become AdapterError. The driver's error stays as context, without secrets."""
    unreadable = None
    try:
        yield
    except PyMongoError as error:
        trouble = translate(error, hidden, where=where)
        _scrub_chain(error, hidden)
        raise trouble from None
    except UnicodeError:
        raise Rejected("a name or value cannot be sent to the server") from None
    except ValueError:  # some addresses; its text may hold any part of the URL
        raise Rejected(f"the admin URL of {where} cannot be read by the driver") from None
    except OSError as error:
        _scrub_chain(error, hidden)
        raise ServerDown(f"no connection to {where}: {clean(str(error), hidden)}", is_ambiguous=True) from None
    except (BSONError, LookupError, TypeError, AttributeError, OverflowError) as error:
        unreadable = type(error).__name__
    if unreadable is not None:  # raised here, so that it has no context, whose text may hold any part of the reply
        raise ServerDown(f"a reply of {where} could not be read ({unreadable})", is_ambiguous=True)


def _scrub_chain(error: BaseException | None, hidden: tuple[str, ...]) -> None:
    """A logger may print the whole chain of an error."""
    seen = set[int]()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        error.args = tuple(scrub(part, *hidden) if isinstance(part, str) else part for part in error.args)
        for name, value in list(vars(error).items()):
            if isinstance(value, str):
                vars(error)[name] = scrub(value, *hidden)
            elif isinstance(value, dict | list | tuple):
                vars(error)[name] = None  # the server's whole reply
        error = error.__cause__ or error.__context__


def code(error: PyMongoError) -> int:
    """The server's error code, 0 where there is none. NotPrimaryError has it only in its details."""
    found = getattr(error, "code", None)
    if found is None:
        details = getattr(error, "details", None)
        found = details.get("code") if isinstance(details, dict) else None
    return found if isinstance(found, int) else 0


def translate(error: PyMongoError, hidden: tuple[str, ...], *, where: str) -> AdapterError:
    """ServerDown where a later try may succeed, else Rejected. The code decides; the class decides only where there is no code."""
    number, text = code(error), clean(str(error), hidden)
    if any(part in text for part in NO_TLS):
        remedy = (
            "correct tls in databases.yml: its mode, and ca with the authority that signed the server's certificate"
        )
        return Rejected(f"{where} refused the bot's own connection: {text}", remedy=remedy)
    if isinstance(error, ServerSelectionTimeoutError):
        return ServerDown(f"no connection to {where}: {text}")
    if number in TIMED_OUT | AGAIN or isinstance(error, AutoReconnect | ConnectionFailure):
        return ServerDown(f"{where} did not finish: {text}", is_ambiguous=True)
    return _rejected(error, number, text, where)


def _rejected(error: PyMongoError, number: int, text: str, where: str) -> Rejected:
    if isinstance(error, InvalidURI | ConfigurationError | InvalidOperation):
        return Rejected(f"the driver refused: {text}")
    what, remedy = REFUSALS.get(number, (f"{{where}} refused ({number})", None))
    return Rejected(f"{what.format(where=where)}: {text}", remedy=remedy)


def refuse_unconfirmed(reply: dict[str, Any], *, where: str) -> None:
    """Raises ServerDown where a majority did not confirm a write. Such a reply has ok: 1, so the driver raises nothing."""
    if (trouble := reply.get("writeConcernError")) is not None:
        text = clean(str(trouble.get("errmsg")), ())
        raise ServerDown(f"{where} did not confirm the change on a majority: {text}", is_ambiguous=True)


@contextmanager
def suppress_code(*codes: int) -> Iterator[None]:
    """Replies with one of these codes are no error here."""
    try:
        yield
    except OperationFailure as error:
        if code(error) not in codes:
            raise


def clean(text: str, hidden: tuple[str, ...]) -> str:
    """One line of at most LONGEST characters, without secrets."""
    return scrub(" ".join(text.split()), *hidden)[:LONGEST]
