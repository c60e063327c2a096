"""Every error of the driver becomes an adapter error without secrets."""

from __future__ import annotations

import inspect

import psycopg
import pytest
from psycopg import errors

from adapters.base import AdapterError, Finding, Rejected, Secrets, ServerDown, Target, Tls
from adapters.contract import everything_on
from adapters.postgresql import PostgreSQL
from adapters.postgresql.errors import translated_errors
from tests.servers.postgresql import PostgresServer

SECRET = "Never0Shown0Anywhere"


def target(**changes: object) -> Target:
    known = {"name": "shop", "engine": "postgresql", "admin_url": "env:X", "prefix": "jit_", "ledger": "abcdefghijkl"}
    return Target(**{"tls": Tls(mode="prefer"), **known, **changes})  # type: ignore[arg-type]


def every_class() -> list[type[psycopg.Error]]:
    found = {
        c for m in (psycopg, errors) for _, c in inspect.getmembers(m, inspect.isclass) if issubclass(c, psycopg.Error)
    }
    return sorted(found, key=lambda c: c.__name__)


def raised(error: BaseException) -> AdapterError:
    with pytest.raises(AdapterError) as caught, translated_errors((SECRET,), login="bot", database="shop"):
        raise error
    return caught.value


@pytest.mark.parametrize("kind", every_class(), ids=lambda c: c.__name__)
def test_every_driver_error_becomes_an_adapter_error(kind: type[psycopg.Error]) -> None:
    error = raised(kind(f"could not use postgresql://bot:{SECRET}@db/shop and {SECRET}"))
    assert isinstance(error, ServerDown | Rejected)
    assert SECRET not in everything_on(error)


@pytest.mark.parametrize(
    "kind",
    [
        errors.SerializationFailure,
        errors.DeadlockDetected,
        errors.LockNotAvailable,
        errors.AdminShutdown,
        errors.CrashShutdown,
        errors.CannotConnectNow,
        errors.TooManyConnections,
        errors.UniqueViolation,
        errors.QueryCanceled,
        errors.ReadOnlySqlTransaction,
        errors.DuplicateObject,
    ],
)
def test_temporary_errors_are_server_down(kind: type[psycopg.Error]) -> None:
    error = raised(kind("x"))
    assert isinstance(error, ServerDown)
    assert error.is_ambiguous


@pytest.mark.parametrize(
    "kind", [errors.SyntaxError, errors.UndefinedObject, errors.InsufficientPrivilege, errors.ReservedName]
)
def test_permanent_errors_are_rejected(kind: type[psycopg.Error]) -> None:
    assert isinstance(raised(kind("x")), Rejected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Connection refused", ServerDown),
        ("timeout expired", ServerDown),
        ("FATAL:  the database system is starting up", ServerDown),
        ("FATAL:  the database system is shutting down", ServerDown),
        ("FATAL:  sorry, too many clients already", ServerDown),
        ("server closed the connection unexpectedly", ServerDown),
        ("SSL SYSCALL error: EOF detected", ServerDown),
        ('FATAL:  password authentication failed for user "bot"', Rejected),
        ('FATAL:  role "bot" does not exist', Rejected),
        ('FATAL:  database "shop" does not exist', Rejected),
        ('FATAL:  permission denied for database "shop"', Rejected),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.1"', Rejected),
        ("server does not support SSL, but SSL was required", Rejected),
        ("SSL error: certificate verify failed", Rejected),
        ('server certificate for "a" does not match host name "b"', Rejected),
    ],
)
def test_a_failed_connection_is_classified(text: str, expected: type[AdapterError]) -> None:
    head = 'connection failed: connection to server at "10.0.0.1", port 5432 failed: '
    error = raised(psycopg.OperationalError(head + text))
    assert isinstance(error, expected)
    if isinstance(error, ServerDown):
        assert not error.is_ambiguous
    else:
        assert error.remedy  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "url",
    [
        f"mysql://bot:{SECRET}@h/d",
        f"postgresql://bot:{SECRET}@[/d",
        f"host=x password={SECRET}",
        f"postgresql://h/d?no={SECRET}",
        "",
    ],
)
def test_an_invalid_admin_url_is_named_by_its_reference(url: str) -> None:
    with pytest.raises(Rejected) as rejected:
        PostgreSQL(target(), Secrets(admin_url=url))
    assert "env:X" in rejected.value.what
    assert SECRET not in everything_on(rejected.value)


def test_refusals_of_a_real_server_are_rejected(postgresql: PostgresServer) -> None:
    def check(url: str, **changes: object) -> Rejected:
        with pytest.raises(Rejected) as rejected:
            PostgreSQL(target(**changes), Secrets(admin_url=url)).check()
        assert SECRET not in everything_on(rejected.value)
        return rejected.value

    def problems(url: str) -> tuple[Finding, ...]:
        """Another database of the server lets the bot in, so that users can be ended. The findings tell what is wrong with this one."""
        found = PostgreSQL(target(), Secrets(admin_url=url)).check().problems
        assert SECRET not in str(found)
        return found

    with postgresql.admin() as c:
        c.execute(f"CREATE ROLE plain_bot LOGIN PASSWORD '{SECRET}'")
        c.execute("GRANT CONNECT ON DATABASE postgres TO plain_bot")
        c.execute("CREATE DATABASE closed_to_bots")
        c.execute("REVOKE ALL ON DATABASE closed_to_bots FROM PUBLIC")
    try:
        assert "authentication failed" in check(postgresql.url("nobody_at_all", SECRET)).what
        (absent_database, *_) = problems(postgresql.url("plain_bot", SECRET, "no_such_db"))
        assert "does not exist" in absent_database.what
        (closed, *_) = problems(postgresql.url("plain_bot", SECRET, "closed_to_bots"))
        assert closed.remedy == 'GRANT CONNECT ON DATABASE "closed_to_bots" TO "plain_bot";'
        assert "support SSL" in check(postgresql.url("plain_bot", SECRET), tls=Tls(mode="require")).what
        missing = check(postgresql.url("plain_bot", SECRET), tls=Tls(mode="verify-full", ca="/no/such.pem"))
        assert "tls in databases.yml" in str(missing.remedy)
        absent = check(postgresql.url("plain_bot", SECRET), admin_role="no_such_owner")
        assert absent.remedy == "CREATE ROLE no_such_owner NOLOGIN CREATEROLE; GRANT no_such_owner TO plain_bot;"
        foreign = check(postgresql.url("plain_bot", SECRET), admin_role="postgres")
        assert foreign.remedy == "GRANT postgres TO plain_bot;"
    finally:
        with postgresql.admin() as c:
            c.execute("DROP DATABASE closed_to_bots")
            c.execute("REVOKE CONNECT ON DATABASE postgres FROM plain_bot")
            c.execute("DROP ROLE plain_bot")
