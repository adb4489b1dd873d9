"""Brings the tables of the job database to what this version works with."""

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection, func, inspect, select

from detex_core.errors import FailedPreconditionError

_SCRIPTS = "detex_trainer.jobs:migrations"
_BEFORE_MIGRATIONS = "0001"  # how tables look that were made before there were migrations
_LOCK = int.from_bytes(b"detex")  # any number that nobody else in this database locks by


def upgrade_schema(connection: Connection) -> None:
    """Run the migrations that are missing, within the transaction of the connection: all of them or none.

    Raises:
        FailedPreconditionError: The tables are of a later version of detex.
    """
    if connection.dialect.name == "postgresql":
        # Trainers start side by side; SQLite has one writer anyway.
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
    config = Config()
    config.set_main_option("script_location", _SCRIPTS)
    config.attributes["connection"] = connection
    tables = inspect(connection)
    try:
        if tables.has_table("jobs") and not tables.has_table("alembic_version"):
            command.stamp(config, _BEFORE_MIGRATIONS)
        command.upgrade(config, "head")
    except CommandError as error:
        newest = ScriptDirectory.from_config(config).get_current_head()
        raise FailedPreconditionError(
            f"The job database has tables of a later version of detex; this trainer supports up to version {newest}."
        ) from error
