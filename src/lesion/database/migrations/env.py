"""Run the migrations on the caller's connection and in its transaction."""

from alembic import context

from lesion.database.tables import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()
