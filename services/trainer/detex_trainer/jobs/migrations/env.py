"""What Alembic runs: all steps that are missing, on the connection and in the transaction that it is given."""

from alembic import context

from detex_trainer.jobs.tables import Table

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Table.metadata,
    render_as_batch=True,
)
context.run_migrations()
