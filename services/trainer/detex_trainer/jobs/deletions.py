"""What is still to be deleted in the object store: a debt until it is gone."""

from collections.abc import Callable, Iterable
from datetime import datetime

from sqlalchemy import delete, select

from detex_trainer.jobs.clock import utc_now
from detex_trainer.jobs.database import Database
from detex_trainer.jobs.tables import DeletionRow


class DeletionLedger:
    """Lists prefixes of objects before they are deleted and until they are gone; each method is one transaction."""

    def __init__(self, database: Database, now: Callable[[], datetime] = utc_now) -> None:
        self._database = database
        self._now = now

    def add(self, tenant: str, prefixes: Iterable[str]) -> None:
        """List prefixes, each once."""
        with self._database.writing() as session:
            for prefix in prefixes:
                session.merge(DeletionRow(prefix=prefix, tenant=tenant, request_time=self._now()))

    def due(self, *, prefix: str = "", limit: int = 64) -> tuple[str, ...]:
        """Listed prefixes that begin with `prefix`, those listed first coming first."""
        wanted = DeletionRow.prefix.startswith(prefix, autoescape=True)
        statement = select(DeletionRow.prefix).where(wanted).order_by(DeletionRow.request_time).limit(limit)
        with self._database.reading() as session:
            return tuple(session.scalars(statement))

    def strike(self, prefix: str) -> None:
        """Nothing of a prefix is left."""
        with self._database.writing() as session:
            session.execute(delete(DeletionRow).where(DeletionRow.prefix == prefix))
