"""Hostile acts on PostgreSQL of the kind D: the owner of the admin URL's database gives it settings that every connection starts with."""

from __future__ import annotations

from adapters.base import Level
from adapters.contract.acts.postgresql_lasting import owning
from adapters.contract.scene import Scene, statements

SETTINGS = (
    "default_transaction_read_only = on",
    "datestyle = 'German'",
    "search_path = 'shop'",
    "standard_conforming_strings = off",
    "default_transaction_isolation = 'serializable'",
)


def owning_the_database(scene: Scene) -> Level:
    """A level whose role owns the database."""
    level = owning(scene)
    scene.as_administrator(
        'ALTER DATABASE "{database}" OWNER TO {owner}',
        'GRANT CONNECT ON DATABASE "{database}" TO {granter} WITH GRANT OPTION',
    )
    return level


SETTING_ACTS = [
    statements(
        "D1",
        f"sets {setting} for the database of the bot",
        f'ALTER DATABASE "{{database}}" SET {setting}',
        level=owning_the_database,
    )
    for setting in SETTINGS
]
