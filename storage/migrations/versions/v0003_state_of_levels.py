"""A request stores the state of its level before the grant, as JSON text. Requests of earlier versions have none."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("requests", sa.Column("level_state", sa.Text(), nullable=True))
