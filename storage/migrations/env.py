"""Alembic's environment: run from code with the connection handed in, so that it works from an installed package."""

from alembic import context

from storage.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
context.run_migrations()
