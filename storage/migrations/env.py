"""Alembic's environment. The program passes the connection in, so that it also works from an installed package."""

from alembic import context

from storage.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
context.run_migrations()
