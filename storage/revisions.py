"""The revisions of the schema: which one a database has, which ones this program knows, and the upgrade to the newest."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, delete, insert, select

from storage.schema import meta

READABLE_FROM = "readable_from"
"""A migration names the oldest revision whose program can use the ledger afterwards; without it, only a program with this migration can.

The value for the whole ledger is stored in ``meta``. Revisions are in the order of their text.
"""


def alembic_config() -> Config:
    """Alembic's configuration, without a file."""
    config = Config()
    folder = str(Path(__file__).parent / "migrations")
    config.set_main_option(
        "script_location", folder.replace("%", "%%")
    )  # ``%`` has a meaning in Alembic's configuration
    config.set_main_option("path_separator", "os")
    return config


def scripts() -> ScriptDirectory:
    """The migrations, next to this file."""
    return ScriptDirectory.from_config(alembic_config())


def known_revisions() -> set[str]:
    """The revisions that this program can read or upgrade."""
    return {script.revision for script in scripts().walk_revisions()}


def current_revision(connection: Connection) -> str | None:
    """The revision of the schema; None for a database without a ledger."""
    return MigrationContext.configure(connection).get_current_revision()


def upgrade(connection: Connection) -> None:
    """Run the migrations that are missing, and store the oldest revision whose program can use the ledger afterwards."""
    config = alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    oldest = max(getattr(script.module, READABLE_FROM, script.revision) for script in scripts().walk_revisions())
    connection.execute(delete(meta).where(meta.c.name == READABLE_FROM))
    connection.execute(insert(meta).values(name=READABLE_FROM, value=oldest))


def is_readable(connection: Connection) -> bool:
    """Whether this program can use the ledger of a newer one: the newer one stored a revision that this one knows."""
    found = connection.execute(select(meta.c.value).where(meta.c.name == READABLE_FROM)).scalar_one_or_none()
    return found in known_revisions()
