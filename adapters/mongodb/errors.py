"""The one translation of the driver's errors, with secrets taken out of them and of what is chained behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

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

from adapters.base import AdapterError, Rejected, ServerDown, scrub

LONGEST = 300
USER_NOT_FOUND, NOT_ALLOWED, LOGIN_FAILED, ROLE_NOT_FOUND = 11, 13, 18, 31
ROLE_EXISTS, USER_EXISTS, ATLAS = 51002, 51003, 8000
TIMED_OUT = frozenset({50, 64, 89, 262})
AGAIN = frozenset({6, 7, 43, 91, 112, 189, 202, 246, 251, 391, 9001, 10107, 11600, 11601, 11602, 13435, 13436})
"""Host away, write conflict, stepping down, interrupted: it may be different next time."""

NO_TLS = ("CERTIFICATE_VERIFY_FAILED", "WRONG_VERSION_NUMBER", "certificate verify failed")
REFUSALS = {
    LOGIN_FAILED: (
        "{where} refused the bot's own login",
        "put the right user and password, and authSource, into the admin URL",
    ),
    NOT_ALLOWED: ("the bot lacks a right", "run dbaccess doctor: it prints what is missing"),
    ATLAS: (
        "{where} does not take this command",
        "Atlas makes users by its Administration API alone, which dbaccess does not use",
    ),
}


@contextmanager
def translated(hidden: tuple[str, ...], *, where: str) -> Iterator[None]:
    """What the driver raises inside becomes an AdapterError; the driver's own stays behind it as context, without secrets."""
    try:
        yield
    except PyMongoError as error:
        trouble = translate(error, hidden, where=where)
        _take_out(error, hidden)
        raise trouble from None
    except UnicodeError:
        raise Rejected("a name or value cannot be sent to the server") from None
    except ValueError:  # the driver's own word for some addresses; it may hold any part of the URL
        raise Rejected(f"the admin URL of {where} cannot be read by the driver") from None
    except OSError as error:
        _take_out(error, hidden)
        raise ServerDown(f"no connection to {where}: {clean(str(error), hidden)}", is_ambiguous=True) from None


def _take_out(error: BaseException | None, hidden: tuple[str, ...]) -> None:
    """Whoever logs an error may log what it came from."""
    seen = set[int]()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        error.args = tuple(scrub(part, *hidden) if isinstance(part, str) else part for part in error.args)
        for name, value in list(vars(error).items()):
            if isinstance(value, str):
                vars(error)[name] = scrub(value, *hidden)
            elif isinstance(value, dict | list | tuple):
                vars(error)[name] = None  # the server's whole answer
        error = error.__cause__ or error.__context__


def code(error: PyMongoError) -> int:
    """The server's number, 0 where there is none. NotPrimaryError has it in its details alone."""
    found = getattr(error, "code", None)
    if found is None:
        details = getattr(error, "details", None)
        found = details.get("code") if isinstance(details, dict) else None
    return found if isinstance(found, int) else 0


def translate(error: PyMongoError, hidden: tuple[str, ...], *, where: str) -> AdapterError:
    """Try again, or not: by the number, and by the class only where there is none."""
    number, words = code(error), clean(str(error), hidden)
    if any(part in words for part in NO_TLS):
        remedy = (
            "put tls in databases.yml right: its mode, and ca with the authority that signed the server's certificate"
        )
        return Rejected(f"{where} refused the bot's own connection: {words}", remedy=remedy)
    if isinstance(error, ServerSelectionTimeoutError):
        return ServerDown(f"no connection to {where}: {words}")
    if number in TIMED_OUT | AGAIN or isinstance(error, AutoReconnect | ConnectionFailure):
        return ServerDown(f"{where} did not finish: {words}", is_ambiguous=True)
    return _refused(error, number, words, where)


def _refused(error: PyMongoError, number: int, words: str, where: str) -> Rejected:
    if isinstance(error, InvalidURI | ConfigurationError | InvalidOperation):
        return Rejected(f"the driver refused: {words}")
    what, remedy = REFUSALS.get(number, (f"{{where}} refused ({number})", None))
    return Rejected(f"{what.format(where=where)}: {words}", remedy=remedy)


def of_reply(reply: dict[str, Any], *, where: str) -> None:
    """A write concern that was not met comes with ok: 1, and the driver raises nothing for it."""
    if (trouble := reply.get("writeConcernError")) is not None:
        words = clean(str(trouble.get("errmsg")), ())
        raise ServerDown(f"{where} has not confirmed it on a majority: {words}", is_ambiguous=True)


def is_refusal(error: OperationFailure) -> bool:
    """A login that was answered with no."""
    return code(error) == LOGIN_FAILED


def clean(words: str, hidden: tuple[str, ...]) -> str:
    return scrub(" ".join(words.split()), *hidden)[:LONGEST]
