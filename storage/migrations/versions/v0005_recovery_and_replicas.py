"""Recovery mode, the running bots, and the order of configurations get tables. A program of version 0004 does not use them."""

import sqlalchemy as sa
from alembic import op

from storage.schema import Id, UTCDateTime

revision = "0005"
down_revision = "0004"
readable_from = "0004"


def upgrade() -> None:
    op.create_table(
        "recoveries",
        sa.Column("id", Id, primary_key=True, autoincrement=True),
        sa.Column("since", UTCDateTime(), nullable=False),
        sa.Column("reason", sa.String(32), nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.Column("ended_at", UTCDateTime()),
        sa.Column("ended_by", sa.String(64)),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "bots",
        sa.Column("worker", sa.String(32), primary_key=True),
        sa.Column("version", sa.String(32), nullable=False),
        sa.Column("started_at", UTCDateTime(), nullable=False),
        sa.Column("seen_at", UTCDateTime(), nullable=False),
        sa.Column("digest", sa.String(64)),
    )
    op.create_table(
        "configurations",
        sa.Column("id", Id, primary_key=True, autoincrement=True),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("at", UTCDateTime(), nullable=False),
        sa.Column("worker", sa.String(32), nullable=False),
        sqlite_autoincrement=True,
    )
