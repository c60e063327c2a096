"""The one translation of the driver's errors, with secrets taken out of them and of what is chained behind."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from adapters.base import AdapterError, Rejected, ServerDown, scrub

RETRY_CLASSES = ("08", "40", "53", "55P", "57", "58")
RETRY = frozenset({"55006", "23505", "42710", "25006", "25P03", "25P04"})
"""In use, made by somebody in parallel (twice), read-only (a standby, until the address points to the primary), idle or transaction time-out."""

CONCURRENT_CHANGE = ("concurrently", "could not find tuple", "cache lookup failed")
MAX_MESSAGE_LENGTH = 300

NOT_YET_CONNECTED = re.compile(r"connection (failed|is bad|timeout)|failed to resolve|could not match")
LOGIN_REFUSED = re.compile(
    r"authentication failed|role .* does not exist|is not permitted to log in|no password supplied", re.IGNORECASE
)
NO_DATABASE = re.compile(r"database .* does not exist|not currently accepting connections", re.IGNORECASE)
NO_CONNECT = re.compile(r"permission denied for database", re.IGNORECASE)
NOT_LET_IN = re.compile(r"no pg_hba\.conf entry|pg_hba\.conf rejects", re.IGNORECASE)
NO_TLS = re.compile(
    r"server does not support SSL|certificate|sslrootcert|sslmode value|SSL error: (?!.*(EOF|reset|closed))",
    re.IGNORECASE,
)


@contextmanager
def translated_errors(hidden: tuple[str, ...], *, login: str, database: str) -> Iterator[None]:
    """What the driver raises inside becomes an AdapterError; the driver's own stays behind it as context, without secrets."""
    try:
        yield
    except psycopg.Error as error:
        trouble = translate(error, hidden, login=login, database=database)
        _scrub_chain(error, hidden)
        raise trouble from None
    except UnicodeError:
        raise Rejected("a name or value cannot be sent in the server's encoding") from None
    except OSError as error:
        raise ServerDown(f"no connection: {_clean(str(error), hidden)}", is_ambiguous=True) from None


def _scrub_chain(error: BaseException | None, hidden: tuple[str, ...]) -> None:
    """Whoever logs an error may log what it came from."""
    while error is not None:
        error.args = tuple(scrub(part, *hidden) if isinstance(part, str) else part for part in error.args)
        if isinstance(error, psycopg.Error):
            vars(error)["_pgconn"] = None  # of a login that failed, it holds all parts of the admin URL
        error = error.__cause__ or error.__context__


def translate(error: psycopg.Error, hidden: tuple[str, ...], *, login: str, database: str) -> AdapterError:
    """Try again, or not: by SQLSTATE, as measured; by words only while there is no connection that could give one."""
    state = error.sqlstate or ""
    if not state:
        return _without_state(error, hidden, login, database)
    primary = error.diag.message_primary or type(error).__name__
    words = _clean(primary, hidden)
    if state in RETRY or state.startswith(RETRY_CLASSES):
        return ServerDown(f"the server did not finish ({words})", is_ambiguous=True)
    if state == "XX000" and any(part in primary for part in CONCURRENT_CHANGE):
        return ServerDown(f"the server was busy with the same rows ({words})", is_ambiguous=True)
    if state == "42501":
        return Rejected(f"the bot lacks a right: {words}", remedy="run dbaccess doctor: it prints what is missing")
    return Rejected(f"the server refused ({state}): {words}")


def _without_state(error: psycopg.Error, hidden: tuple[str, ...], login: str, database: str) -> AdapterError:
    words = _clean(str(error), hidden)
    if isinstance(error, psycopg.ProgrammingError | psycopg.DataError | psycopg.NotSupportedError):
        return Rejected(f"the driver refused: {words}")
    if NOT_YET_CONNECTED.search(words) is None:
        return ServerDown(f"the connection was lost: {words}", is_ambiguous=True)
    return _no_connection(words, login, database) or ServerDown(f"no connection: {words}")


def _no_connection(words: str, login: str, database: str) -> Rejected | None:
    """A login that was answered with no. A server that starts, is full or goes down is none of these."""
    remedies = (
        (LOGIN_REFUSED, f"put the right user and password of {login} into the admin URL"),
        (NO_CONNECT, f'GRANT CONNECT ON DATABASE "{database}" TO "{login}";'),
        (NO_DATABASE, f"name a database of this server that takes connections instead of {database}"),
        (NOT_LET_IN, f"let {login} in from this machine in the server's pg_hba.conf"),
        (
            NO_TLS,
            "put tls in databases.yml right: its mode, and ca with the authority that signed the server's certificate",
        ),
    )
    for pattern, remedy in remedies:
        if pattern.search(words):
            return Rejected(f"the server refused the bot's own login: {words}", remedy=remedy)
    return None


def refused_role(role: str, login: str, *, is_there: bool) -> Rejected:
    """The admin role cannot be taken on."""
    make = "" if is_there else f"CREATE ROLE {role} NOLOGIN CREATEROLE; "
    return Rejected(f"the bot's login cannot take on the role {role}", remedy=f"{make}GRANT {role} TO {login};")


def _clean(words: str, hidden: tuple[str, ...]) -> str:
    return scrub(" ".join(words.split()), *hidden)[:MAX_MESSAGE_LENGTH]
