"""The settings that the bot's statements depend on: set at the start of each connection, and read back.

The owner of a database, the server's configuration or a connection pooler may set others. For example, a date style that the driver
cannot read stops every verb, and with a search_path of its user's choice a statement runs that user's functions.
"""

from __future__ import annotations

from collections.abc import Mapping

LOCK_TIMEOUT_SECONDS = 4

FIXED = {
    "search_path": "pg_catalog, pg_temp",
    "datestyle": "ISO, MDY",
    "intervalstyle": "postgres",
    "timezone": "UTC",
    "bytea_output": "hex",
    "standard_conforming_strings": "on",
    "default_transaction_read_only": "off",
    "default_transaction_isolation": "read committed",
    "default_transaction_deferrable": "off",
    "local_preload_libraries": "",
    "jit": "off",
    "quote_all_identifiers": "off",
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
    "createrole_self_grant": "",
    "scram_iterations": "4096",
    "synchronous_commit": "on",
    "exit_on_error": "off",
}
"""Settings with one value for all connections. ``jit``: compiling a query on the catalogs takes longer than the query (1.9 s against 0.4 s).
``scram_iterations``: the driver computes verifiers with the server's number, and 2,147,483,647 stop the whole process."""

SINCE = {
    "idle_session_timeout": 14,
    "createrole_self_grant": 16,
    "scram_iterations": 16,
    "transaction_timeout": 17,
}
"""The first major version of each setting that older servers do not know."""

SET_PINS = (
    "SELECT pg_catalog.set_config(p.name, p.setting, true) FROM ROWS FROM (pg_catalog.unnest(%s::pg_catalog.text[]),"
    " pg_catalog.unnest(%s::pg_catalog.text[])) AS p(name, setting)"
)
READ_BACK = (
    "SELECT pg_catalog.pg_backend_pid(), (SELECT system_identifier FROM pg_catalog.pg_control_system()),"
    " ARRAY(SELECT pg_catalog.current_setting(n, true) FROM pg_catalog.unnest(%s::pg_catalog.text[]) n)"
)
"""Both statements mean the same with every search_path, because no pin holds yet when they run."""
READ_BACK_AND_ACT = (
    READ_BACK
    + ", CASE WHEN pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.=) %s::pg_catalog.int4 THEN pg_catalog.set_config('role', %s, false) END"
)
"""``READ_BACK``, and the admin role is set, unless a pooler is in between. One round trip instead of two."""


def pins(version: int, *, limit: float) -> dict[str, str]:
    """The settings for a server of this major version. ``limit`` is the time limit of one statement in seconds."""
    known = {n: v for n, v in FIXED.items() if SINCE.get(n, 0) <= version}
    limits = {
        "statement_timeout": f"{int(limit * 1000)}ms",
        "lock_timeout": f"{int(LOCK_TIMEOUT_SECONDS * 1000)}ms",
        "idle_in_transaction_session_timeout": f"{int(limit * 2000)}ms",
    }
    return {**known, **limits}


def startup_options(settings: Mapping[str, str]) -> str:
    """The pins as the value of ``options``: they overrule the settings of databases and roles from the first moment on."""
    return " ".join(f"-c {name}={_escaped(value)}" for name, value in settings.items())


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace(" ", "\\ ")


def is_equal(name: str, wanted: str, found: str | None) -> bool:
    """Whether the server's answer means the wanted value. The server writes times with the largest unit that fits."""
    if found is None:
        return False
    if name.endswith("_timeout"):
        return _milliseconds(found) == _milliseconds(wanted)
    return _plain(found) == _plain(wanted)


def _plain(value: str) -> str:
    return value.replace(" ", "").replace('"', "").lower()


def _milliseconds(value: str) -> float | None:
    units = {"ms": 1, "s": 1000, "min": 60_000, "h": 3_600_000, "d": 86_400_000, "": 1}
    number = value.rstrip("adhimns ")
    unit = value[len(number) :].strip()
    return float(number) * units[unit] if number.isdigit() and unit in units else None
