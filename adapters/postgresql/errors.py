"""Translation of the driver's errors into adapter errors without secrets, and the constructors of a check's findings.

The secrets are also removed from the driver's error, which stays the context of the adapter error.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from adapters.base import AdapterError, Finding, Rejected, ServerDown
from adapters.usernames import scrub

RETRY_CLASSES = ("08", "40", "53", "55P", "57", "58")
RETRY = frozenset({"55006", "23505", "42710", "25006", "25P03", "25P04"})
"""SQLSTATE of errors that a later try may not meet: in use, created in parallel (two), read-only (a standby, until the address
points to the primary), idle time-out and transaction time-out."""

CONCURRENT_CHANGE = ("concurrently", "could not find tuple", "cache lookup failed")
MAX_MESSAGE_LENGTH = 300
UNREADABLE = (TypeError, LookupError, AttributeError, ArithmeticError, AssertionError)
"""Raised where an answer has another form than its query asks for: a proxy in between, or a changed catalog."""

NOT_YET_CONNECTED = re.compile(r"connection (failed|is bad|timeout)|failed to resolve|could not match")
LOGIN_REFUSED = re.compile(
    r"authentication failed|role .* does not exist|is not permitted to log in|no password supplied", re.IGNORECASE
)
NO_DATABASE = re.compile(r"database .* does not exist|not currently accepting connections", re.IGNORECASE)
NO_CONNECT = re.compile(r"permission denied for database", re.IGNORECASE)
UNKNOWN_SETTING = re.compile("idle_session_timeout|createrole_self_grant|scram_iterations|transaction_timeout")
"""The message about a setting that the server does not know names it, in every language."""
UNSUPPORTED_OPTIONS = re.compile(r"unsupported startup parameter")
"""PgBouncer's message; its language is always English."""
NO_ANSWER = re.compile(
    r"connection refused|timed? ?out|timeout expired|resolve|translate host|unreachable|no route|closed the connection|reset by peer|SSL|certificate",
    re.IGNORECASE,
)
"""Messages of the driver, in English, about a server that did not answer. All others come from the server."""
NOT_LET_IN = re.compile(r"no pg_hba\.conf entry|pg_hba\.conf rejects", re.IGNORECASE)
NO_TLS = re.compile(
    r"server does not support SSL|certificate|sslrootcert|sslmode value|SSL error: (?!.*(EOF|reset|closed))",
    re.IGNORECASE,
)


class ConcurrentChange(ServerDown):
    """Others changed the same rows at the same time. The same statement succeeds later."""


@contextmanager
def translated_errors(secrets: tuple[str, ...], *, login: str, database: str) -> Iterator[None]:
    """Raise what the driver raises in the block as an AdapterError. ``secrets`` are removed; ``login`` and ``database`` go into remedies."""
    try:
        yield
    except psycopg.Error as error:
        translated = translate(error, secrets, login=login, database=database)
        _scrub_chain(error, secrets)
        raise translated from None
    except UnicodeError:
        raise Rejected("a name or value cannot be sent in the server's encoding") from None
    except (NotImplementedError, OverflowError, ValueError) as error:
        raise Rejected(f"the driver cannot read the server's answer ({type(error).__name__})") from None
    except UNREADABLE as error:
        raise ServerDown(f"an answer of the server cannot be read ({_place(error)})", is_ambiguous=True) from None
    except OSError as error:
        raise ServerDown(f"no connection: {_clean(str(error), secrets)}", is_ambiguous=True) from None


def _place(error: Exception) -> str:
    """The kind of the error, and the line of code that met it: for the log, since the error itself may hold what the server sent."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {frame.filename.rpartition('/')[2]}:{frame.lineno}"


def _scrub_chain(error: BaseException | None, secrets: tuple[str, ...]) -> None:
    """Remove the secrets from the error and its chain: a log of an error includes the chain."""
    while error is not None:
        error.args = tuple(scrub(part, *secrets) if isinstance(part, str) else part for part in error.args)
        if isinstance(error, psycopg.Error):
            vars(error)["_pgconn"] = None  # after a failed login it holds all parts of the admin URL
        error = error.__cause__ or error.__context__


def translate(error: psycopg.Error, secrets: tuple[str, ...], *, login: str, database: str) -> AdapterError:
    """The adapter error for a driver error, by its SQLSTATE. Without a connection there is no SQLSTATE, and the message decides."""
    state = error.sqlstate or ""
    if not state:
        return _without_state(error, secrets, login, database)
    primary = error.diag.message_primary or type(error).__name__
    message = _clean(primary, secrets)
    if is_concurrent_change(error):
        return ConcurrentChange(f"the server was busy with the same rows ({message})", is_ambiguous=True)
    if state in RETRY or state.startswith(RETRY_CLASSES):
        return ServerDown(f"the server did not finish ({message})", is_ambiguous=True)
    if state == "42501":
        return Rejected(f"the bot lacks a right: {message}", remedy="run dbaccess doctor: it prints what is missing")
    return Rejected(f"the server refused ({state}): {message}")


def is_concurrent_change(error: psycopg.Error) -> bool:
    """Whether others changed the same rows at the same time, so that the same statement succeeds later."""
    if isinstance(
        error, psycopg.errors.UniqueViolation | psycopg.errors.DuplicateObject | psycopg.errors.DeadlockDetected
    ):
        return True
    primary = error.diag.message_primary or ""
    return isinstance(error, psycopg.errors.InternalError_) and any(part in primary for part in CONCURRENT_CHANGE)


def is_no_answer(message: str) -> bool:
    """Whether the message says that no server answered, as opposed to one that refused the login."""
    return NO_ANSWER.search(message) is not None


def _without_state(error: psycopg.Error, secrets: tuple[str, ...], login: str, database: str) -> AdapterError:
    message = _clean(str(error), secrets)
    if isinstance(error, psycopg.ProgrammingError | psycopg.DataError | psycopg.NotSupportedError):
        return Rejected(f"the driver refused: {message}")
    if NOT_YET_CONNECTED.search(message) is None:
        return ServerDown(f"the connection was lost: {message}", is_ambiguous=True)
    return _no_connection(message, login, database) or ServerDown(f"no connection: {message}")


def _no_connection(message: str, login: str, database: str) -> Rejected | None:
    """The error for a login that the server refused, or None. A server that starts, stops or is full is not a refusal."""
    remedies = (
        (LOGIN_REFUSED, f"put the right user and password of {login} into the admin URL"),
        (NO_CONNECT, f'GRANT CONNECT ON DATABASE "{database}" TO "{login}";'),
        (NO_DATABASE, f"name a database of this server that takes connections instead of {database}"),
        (NOT_LET_IN, f"allow {login} from this machine in the server's pg_hba.conf"),
        (
            NO_TLS,
            "correct tls in databases.yml: its mode, and ca with the authority that signed the server's certificate",
        ),
    )
    for pattern, remedy in remedies:
        if pattern.search(message):
            return Rejected(f"the server refused the bot's own login: {message}", remedy=remedy)
    return None


def refused_role(role: str, login: str, *, is_there: bool) -> Rejected:
    """The error for an admin role that the bot's login cannot SET ROLE to. Both names are quoted."""
    create = "" if is_there else f"CREATE ROLE {role} NOLOGIN CREATEROLE; "
    return Rejected(f"the bot's login cannot act as the role {role}", remedy=f"{create}GRANT {role} TO {login};")


def _clean(message: str, secrets: tuple[str, ...]) -> str:
    return scrub(" ".join(message.split()), *secrets)[:MAX_MESSAGE_LENGTH]


# Findings of a check.


def ok(what: str) -> Finding:
    return Finding(is_ok=True, is_fatal=False, what=what)


def fatal(what: str, remedy: str | None = None) -> Finding:
    """A finding that prevents grants, or their end, from working as promised."""
    return Finding(is_ok=False, is_fatal=True, what=what, remedy=remedy)


def warning(what: str, remedy: str | None = None) -> Finding:
    """A finding that leaves more open than it should be."""
    return Finding(is_ok=False, is_fatal=False, what=what, remedy=remedy)


def fatal_error(error: AdapterError, prefix: str = "") -> Finding:
    """The finding for an error that a check met. ``prefix`` is put before its sentence."""
    if isinstance(error, Rejected):
        return fatal(prefix + error.what, error.remedy)
    return fatal(prefix + str(error))
