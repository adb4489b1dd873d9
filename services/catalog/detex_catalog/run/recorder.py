"""The journal and the state that follows from it, for several threads."""

from threading import Lock
from typing import Any

from detex_catalog.run.journal import Journal
from detex_catalog.run.run_state import RunState, Try, try_values
from detex_catalog.table.catalog import ConceptOrder, PictureOrder


class Recorder:
    """Writes events and lets the state follow; safe to use from several threads.

    Args:
        journal: Open for writing.
        state: What the journals told so far.
    """

    def __init__(self, journal: Journal, state: RunState) -> None:
        self._journal = journal
        self._lock = Lock()
        self.state = state

    def record(self, kind: str, **values: Any) -> None:
        """Write an event; on the disk when this returns."""
        with self._lock:
            self.state.apply(self._journal.append(kind, **values))

    def picture(self, kind: str, order: PictureOrder, **values: Any) -> None:
        """Write an event of a picture."""
        self.record(kind, output=order.output, fingerprint=order.fingerprint, **values)

    def tried(self, kind: str, order: PictureOrder, found: Try, **values: Any) -> None:
        """Write how a try of a picture has ended."""
        self.picture(kind, order, **try_values(found), **values)

    def concept(self, kind: str, order: ConceptOrder, **values: Any) -> None:
        """Write an event of a concept."""
        self.record(kind, concept=order.name, fingerprint=order.fingerprint, **values)
