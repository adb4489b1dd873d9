"""Notices that a job of this worker was ended by somebody else.

One job of several is cancelled, or misses its deadline, while the worker continues with the others; or another trainer
has taken this one's jobs for lost. Whoever ends a job writes its outcome first, and that is where a worker looks,
wherever it runs.
"""

import logging
import threading
from collections.abc import Collection

from detex_core.artifact import PublicationClosedError, find_publication
from detex_core.errors import DetexError
from detex_core.object_store import ObjectStore
from detex_trainer.domain.job_files import outcome_key
from detex_trainer.domain.job_spec import JobSpec

_LOOK_SECONDS = 2.0

_log = logging.getLogger(__name__)


class OutcomeWatch:
    """Looks at the outcomes of jobs, again and again in a thread of its own."""

    def __init__(self, store: ObjectStore, jobs: Collection[JobSpec], look_seconds: float = _LOOK_SECONDS) -> None:
        """Nothing is known yet.

        Args:
            store: Where outcomes are.
            jobs: The jobs.
            look_seconds: Time between two looks.
        """
        self._store = store
        self._open = {job.job_id: job for job in jobs}
        self._look_seconds = look_seconds
        self._ended: set[str] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="outcomes", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stop.set()

    def has_ended(self, job_id: str) -> bool:
        """Whether somebody else has ended a job."""
        return job_id in self._ended

    def _run(self) -> None:
        while not self._stop.wait(self._look_seconds):
            for job_id, job in list(self._open.items()):
                try:
                    published = find_publication(self._store, outcome_key(job.tenant, job_id))
                except PublicationClosedError as closed:
                    _log.info("job %s was ended elsewhere: %s", job_id, closed.closing.message)
                    self._note(job_id)
                except DetexError as error:
                    _log.warning("the outcome of job %s is not known: %s", job_id, error.message)
                except Exception:
                    _log.exception("the outcome of job %s is not known", job_id)
                else:
                    if published is not None:
                        self._note(job_id)

    def _note(self, job_id: str) -> None:
        self._ended.add(job_id)
        del self._open[job_id]
