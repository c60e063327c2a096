"""Columns are named as the code and the documents name them; a column that nothing ever filled goes."""

from alembic import op

revision = "0002"
down_revision = "0001"

RENAMED = (
    ("tasks", "lane", "lock_key"),
    ("requests", "asked_at", "requested_at"),
    ("requests", "ended_words", "ended_note"),
)


def upgrade() -> None:
    for table, old, new in RENAMED:
        op.execute(f"ALTER TABLE {table} RENAME COLUMN {old} TO {new}")
    op.execute("DROP INDEX uq_tasks_claimed_lane")
    op.execute("CREATE UNIQUE INDEX uq_tasks_claimed_lock_key ON tasks (lock_key) WHERE claim IS NOT NULL")
    op.execute("ALTER TABLE requests DROP COLUMN first_login_at")
