"""Python imports this module at its start where its folder is on PYTHONPATH. It notes each statement that SQLite runs, one line each.

A line has the first words of the statement. BEGIN and COMMIT are statements too.
"""

import os
import sqlite3
import sqlite3.dbapi2
from typing import Any

_SHOWN = 100
_connect: Any = sqlite3.connect


def _noting(*arguments: Any, **named: Any) -> Any:
    connection = _connect(*arguments, **named)
    connection.set_trace_callback(_note)
    return connection


def _note(statement: str) -> None:
    line = " ".join(statement.split())[:_SHOWN]
    os.write(_file, f"{line}\n".encode())


if _path := os.environ.get("DBACCESS_FIGURES_STATEMENTS"):
    _file = os.open(_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for _module in (sqlite3, sqlite3.dbapi2):
        setattr(_module, "connect", _noting)  # noqa: B010 - the type checker does not accept another function
