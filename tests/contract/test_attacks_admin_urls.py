"""Admin URLs with a password that contains URL syntax. No part of the password appears in an error, an endpoint, a warning or a DNS lookup."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from adapters.base import AdapterError, Level, Secrets, Target, Tls
from adapters.contract import everything_on
from adapters.mongodb import MongoDB
from adapters.mongodb import connection as mongodb_connection
from adapters.mysql import MariaDB, MySQL
from adapters.postgresql import PostgreSQL
from adapters.redis import Redis
from tests.open_faults import open_fault

ENGINES: dict[str, Callable[[Target, Secrets], Any]] = {
    "postgresql": PostgreSQL,
    "mysql": MySQL,
    "mariadb": MariaDB,
    "mongodb": MongoDB,
    "redis": Redis,
}
PASSWORDS = (
    "Sup3r@Secr3tW0rd",
    "Sup3r/Secr3tW0rd",
    "Sup3r#Secr3tW0rd",
    "Sup3r?Secr3tW0rd",
    "Sup3r%Secr3tW0rd",
    "Sup3r%zzSecr3tW0rd",
    "Sup3r:Secr3tW0rd",
    "Sup3r Secr3tW0rd",
    "Sup3r[Secr3tW0rd",
    "Sup3r]@Secr3tW0rd",
    "Sup3r[x]Secr3tW0rd",
    "Sup3r&Secr3tW0rd=1",
    "Sup3r@Secr3tW0rd/x",
    "Sup3r@Secr3tW0rd#x",
    "Sup3r@Secr3tW0rd?x",
    "Sup3r@Secr3tW0rd/x?y=1",
    "Sup3r@x/y?Secr3tW0rd=1",
    "31337/Secr3tW0rd",
    "31337#Secr3tW0rd",
    "31337?Secr3t=W0rd",
    "31337,Secr3tW0rd",
)
HOST = "the part between an @ and the next delimiter is taken for the host, shown and looked up"
PORT = "the parts around a / are taken for port and database, and shown"
BARE_ERROR = "the part before a / is taken for the port, and shown in a ValueError"
OPTION = "the part after a ? is taken for an option, and the driver shows its name in a warning"
CONTEXT = "the error does not show it, but its context does"
SHOWN = {
    ("postgresql", "Sup3r@Secr3tW0rd"): HOST,
    ("postgresql", "Sup3r@Secr3tW0rd#x"): HOST,
    ("mysql", "Sup3r@Secr3tW0rd#x"): HOST,
    ("mariadb", "Sup3r@Secr3tW0rd#x"): HOST,
    ("mongodb", "Sup3r@Secr3tW0rd/x?y=1"): HOST,
    **{(engine, "Sup3r@Secr3tW0rd/x"): HOST for engine in ENGINES},
    ("postgresql", "31337/Secr3tW0rd"): PORT,
    ("redis", "31337/Secr3tW0rd"): PORT,
    ("postgresql", "Sup3r/Secr3tW0rd"): BARE_ERROR,
    ("mongodb", "Sup3r@x/y?Secr3tW0rd=1"): OPTION,
    **{(engine, f"Sup3r{sign}Secr3tW0rd"): CONTEXT for engine in ("mysql", "mariadb") for sign in "/#?"},
}
VERBS, BARE = ("endpoint", "identity", "check"), "not an AdapterError:"


@pytest.fixture(autouse=True)
def _short_mongodb_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """MongoDB's driver looks for a server until this time limit."""
    monkeypatch.setattr(mongodb_connection, "CONNECT_MS", 200)


def make_adapter(engine: str, url: str) -> Any:
    known = {"name": "x", "admin_url": "env:ADMIN", "prefix": "jit_", "ledger": "l", "tls": Tls(mode="prefer")}
    return ENGINES[engine](Target(engine=engine, **known), Secrets(admin_url=url))  # type: ignore[arg-type]


def answer(engine: str, password: str, verb: str) -> str:
    """The result of a verb with such a URL, or all text of its error. No server listens at the address."""
    try:
        adapter = make_adapter(engine, f"{engine}://fancy:{password}@127.0.0.1:1/db")
        return repr(adapter.endpoint(Level(name="r", roles=("r",))) if verb == "endpoint" else getattr(adapter, verb)())
    except AdapterError as error:
        return everything_on(error)
    except ValueError as error:
        return f"{BARE} {error!r}"


def parts(password: str) -> list[str]:
    return [part for part in re.split(r"[^A-Za-z0-9]", password) if len(part) > 2]


def cases() -> list[Any]:
    """Each password on each engine. The cases of the open fault come first."""
    every = sorted(
        ((engine, password) for engine in ENGINES for password in PASSWORDS), key=lambda case: case not in SHOWN
    )
    marks = {case: (open_fault("U4", what),) for case, what in SHOWN.items()}
    return [pytest.param(*case, marks=marks.get(case, ())) for case in every]


@pytest.mark.parametrize(("engine", "password"), cases())
def test_no_part_of_a_password_is_shown(looked_up_hosts: list[str], engine: str, password: str) -> None:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        answers = [answer(engine, password, verb) for verb in VERBS]
    shown = " ".join([*answers, *looked_up_hosts, *(str(warning.message) for warning in warned)])
    assert [part for part in parts(password) if part.lower() in shown.lower()] == []
    assert BARE not in shown
