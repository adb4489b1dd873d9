"""Notes which object store the jobs of this database belong to."""

from sqlalchemy.exc import IntegrityError

from detex_trainer.jobs.database import Database
from detex_trainer.jobs.tables import ObjectStoreRow

_ONLY = 1


class StoreNote:
    """The identity of the object store, as trainers that share the database have first found it; thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def read(self) -> str:
        """The identity; empty where none is noted yet."""
        with self._database.reading() as session:
            row = session.get(ObjectStoreRow, _ONLY)
            return "" if row is None else row.identity

    def take(self, identity: str) -> str:
        """Note an identity where none is noted; returns the one that is."""
        try:
            with self._database.writing() as session:
                row = session.get(ObjectStoreRow, _ONLY)
                if row is not None:
                    return row.identity
                session.add(ObjectStoreRow(sequence=_ONLY, identity=identity))
        except IntegrityError:  # another trainer was first
            return self.read()
        return identity

    def replace(self, identity: str) -> None:
        """Note an identity in the place of any other."""
        with self._database.writing() as session:
            session.merge(ObjectStoreRow(sequence=_ONLY, identity=identity))
