"""Prometheus metrics of a run: a text file for the node exporter, and a listener where one is asked for."""

from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.exposition import generate_latest

from detex_catalog.report.results import counts, results_of
from detex_catalog.run.catalog_run import CatalogRun
from detex_catalog.run.picture_folder import write_whole
from detex_catalog.run.run_state import RunState
from detex_catalog.sharding import Shard
from detex_catalog.table.catalog import Catalog

_PREFIX = "detex_catalog_"


class RunMetrics:
    """The metrics of one run; labels are the name of the catalog and the shard.

    Args:
        catalog: Name of the catalog, of its file without the ending.
        shard: Which part.
    """

    def __init__(self, catalog: str, shard: Shard) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self._labels = {"catalog": catalog, "shard": str(shard.index)}

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(_PREFIX + name, text, [*self._labels, *labels], registry=self.registry)

        self._pictures = gauge("pictures", "Pictures of the catalog's part, by status.", "status")
        self._untrained = gauge("untrained_concepts", "Concepts not yet trained.")
        self._drawn = gauge("drawn_pictures", "Pictures generated in this run, including retries.")
        self._drawing = gauge("drawing_seconds", "Time spent generating pictures in this run.")
        self._exit_code = gauge("exit_code", "Exit code of the last run; -1 during a run.")
        self._start_time = gauge("start_time_seconds", "Start of the run, since the epoch.")
        self._end_time = gauge("end_time_seconds", "End of the run, since the epoch; 0 during a run.")

    def begin(self, time_seconds: float) -> None:
        """The run begins."""
        self._start_time.labels(**self._labels).set(time_seconds)
        self._end_time.labels(**self._labels).set(0)
        self._exit_code.labels(**self._labels).set(-1)

    def update(self, part: Catalog, state: RunState, run: CatalogRun | None) -> None:
        """Take the figures as they are now."""
        for status, count in counts(results_of(part, state)).items():
            self._pictures.labels(**self._labels, status=status).set(count)
        self._untrained.labels(**self._labels).set(run.untrained if run else 0)
        self._drawn.labels(**self._labels).set(run.clocks.pictures if run else 0)
        self._drawing.labels(**self._labels).set(run.clocks.drawing_seconds if run else 0)

    def end(self, time_seconds: float, exit_code: int) -> None:
        """The run has ended."""
        self._end_time.labels(**self._labels).set(time_seconds)
        self._exit_code.labels(**self._labels).set(exit_code)

    def write(self, path: Path) -> None:
        """Write the text file, whole or not at all.

        Raises:
            FolderUnusableError: It cannot be written.
        """
        unfinished = path.parent / f".{path.name}.unfinished"
        write_whole(path, generate_latest(self.registry), unfinished)
        unfinished.rmdir()
