"""From a command line to a run and its report: everything that a run needs, opened in order and closed again."""

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from types import FrameType

from detex_catalog.checks.unsafe import UnsafeDetector, open_unsafe_check
from detex_catalog.exit_codes import ExitCode
from detex_catalog.progress import Progress
from detex_catalog.report.page import page_name, write_pages
from detex_catalog.report.results import counts, results_of, write_results
from detex_catalog.report.run_metrics import RunMetrics
from detex_catalog.run.catalog_run import CatalogRun
from detex_catalog.run.journal import FolderUnusableError, Journal, read_events
from detex_catalog.run.marks import read_marks
from detex_catalog.run.options import RunOptions
from detex_catalog.run.picture_folder import PictureFolder
from detex_catalog.run.preparation import apply_marks, settle_files
from detex_catalog.run.recorder import Recorder
from detex_catalog.run.run_state import PictureStatus, RunState
from detex_catalog.service_check import published_versions, refused_pictures
from detex_catalog.sharding import Shard
from detex_catalog.table.catalog import Catalog, PictureOrder
from detex_catalog.table.catalog_file import load_catalog
from detex_catalog.table.faults import CatalogFaultsError
from detex_client import DetexClientError, GeneratorClient, TrainerClient
from detex_core.metrics import MetricsServer

_METRICS_SECONDS = 15.0
_HEALTH_POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Request:
    """What the command line asks for.

    Attributes:
        file: The catalog.
        out: Output folder.
        unsafe: What looks for unsafe parts.
        metrics_file: Text file for Prometheus' node exporter; None writes none.
        metrics_address: `host:port` to serve metrics on meanwhile; empty does not.
    """

    file: Path
    out: Path
    encoding: str = "utf-8"
    shard: Shard = field(default_factory=Shard)
    options: RunOptions = field(default_factory=RunOptions)
    unsafe: UnsafeDetector = UnsafeDetector.OFF
    metrics_file: Path | None = None
    metrics_address: str = ""


def read_state(out: Path) -> RunState:
    """What earlier runs of an output folder did; empty where there is none.

    Raises:
        FolderUnusableError: A journal cannot be read.
    """
    return RunState(read_events(out))


def load(request: Request, state: RunState) -> Catalog:
    """The whole catalog, checked as far as that goes without the services.

    Raises:
        CatalogFaultsError: With every fault.
    """
    return load_catalog(request.file, encoding=request.encoding, known_photos=state.known_photos)


def check_with_services(
    catalog: Catalog, state: RunState, trainer: TrainerClient, generator: GeneratorClient
) -> dict[str, str]:
    """Ask the services whether they take what is left to draw.

    Returns:
        Versions of concepts that are published already, by name.

    Raises:
        CatalogFaultsError: They refuse some of it.
        DetexClientError: One does not answer.
    """
    todo = _undone(catalog, state)
    names = dict.fromkeys(name for order in todo for name in order.concepts)
    orders = [catalog.concepts[name] for name in names]
    versions, faults = published_versions(trainer, [order for order in orders if not order.photos])
    for order in orders:
        version = state.concept(order).version
        if order.photos and version and _is_there(trainer, order.name, version):
            versions[order.name] = version
    faults += refused_pictures(generator, catalog, todo, versions)
    if faults:
        raise CatalogFaultsError(faults)
    return versions


def run(request: Request, trainer: TrainerClient, generator: GeneratorClient, progress: Progress) -> ExitCode:
    """Run the catalog, or its shard, and write what came of it.

    Raises:
        CatalogFaultsError: The catalog or a file of marks is at fault; nothing was started.
        DetectorMissingError: The detector that was asked for is not installed.
        FolderUnusableError: The output folder is in use or cannot be written.
        DetexClientError: A service refuses this caller, or was not there at the start.
        ServicesAwayError: A service was unavailable for too long.
    """
    with ExitStack() as stack:
        stop = stack.enter_context(_stopped_by_signals())
        journal = stack.enter_context(Journal(request.out, request.shard))
        recorder = Recorder(journal, read_state(request.out))
        folder = PictureFolder(request.out, request.shard)
        folder.sweep()
        stack.callback(folder.sweep)
        catalog = load(request, recorder.state)
        part = request.shard.part(catalog)
        marks = read_marks(request.out)
        unsafe = open_unsafe_check(request.unsafe)
        settle_files(part.pictures, recorder, folder)
        approved, rejected = apply_marks(marks, part.pictures, recorder, folder)
        if approved or rejected:
            progress.say(
                "marks", f"Marks: {approved} approved, {rejected} rejected.", approved=approved, rejected=rejected
            )
        metrics = _open_metrics(request, stack)
        metrics.begin(time.time())
        code = ExitCode.SERVICES_AWAY
        running: CatalogRun | None = None
        try:
            versions: dict[str, str] = {}
            if _undone(part, recorder.state):
                _wait_for_services(trainer, generator, request.options.patience_seconds, stop, progress)
                versions = check_with_services(part, recorder.state, trainer, generator)
                _note_photos(part, recorder)
            running = CatalogRun(
                part,
                versions,
                trainer,
                generator,
                recorder,
                folder,
                request.options,
                unsafe=unsafe,
                stop=stop,
                on_progress=_Reports(request, part, metrics, progress),
            )
            finished = running.run()
            code = _exit_code(part, recorder.state, finished=finished)
        except CatalogFaultsError:
            code = ExitCode.INPUT_AT_FAULT
            raise
        except FolderUnusableError:
            code = ExitCode.FOLDER_UNUSABLE
            raise
        finally:
            if code is not ExitCode.FOLDER_UNUSABLE:
                metrics.update(part, recorder.state, running)
                metrics.end(time.time(), int(code))
                if request.metrics_file is not None:
                    metrics.write(request.metrics_file)
                if code is not ExitCode.INPUT_AT_FAULT:
                    write_report(request, catalog, progress)
    return code


def write_report(request: Request, catalog: Catalog, progress: Progress) -> dict[str, int]:
    """Write tables and page of the whole catalog, by the journals of all shards; pictures by status.

    Raises:
        FolderUnusableError: They cannot be written.
    """
    results = results_of(catalog, read_state(request.out))
    unfinished = request.out / f".report-{request.shard.index}-of-{request.shard.count}"
    page = request.out / page_name(1)
    if write_results(results, request.out, unfinished) or not page.is_file():
        write_pages(results, request.out, unfinished, title=request.file.stem)
        unfinished.rmdir()
    found = counts(results)
    progress.say(
        "summary",
        f"{found['accepted']} accepted, {found['review']} in review, {found['failed']} failed, {found['open']} "
        f"open. Report: {page}",
        **found,
        report=str(page),
    )
    return found


class _Reports:
    """Passes progress on to the terminal, and to Prometheus now and then."""

    def __init__(self, request: Request, part: Catalog, metrics: RunMetrics, progress: Progress) -> None:
        self._request = request
        self._part = part
        self._metrics = metrics
        self._progress = progress
        self._written = 0.0

    def __call__(self, running: CatalogRun) -> None:
        self._progress.update(running)
        now = time.monotonic()
        if now - self._written >= _METRICS_SECONDS:
            self._written = now
            self._metrics.update(self._part, running.recorder.state, running)
            if self._request.metrics_file is not None:
                self._metrics.write(self._request.metrics_file)


def _undone(catalog: Catalog, state: RunState) -> list[PictureOrder]:
    done = (PictureStatus.ACCEPTED, PictureStatus.REVIEW)
    return [order for order in catalog.pictures if state.picture(order).status not in done]


def _is_there(trainer: TrainerClient, name: str, version: str) -> bool:
    import grpc

    try:
        trainer.concept(name, version)
    except DetexClientError as error:
        if error.code is grpc.StatusCode.NOT_FOUND:
            return False
        raise
    return True


def _note_photos(part: Catalog, recorder: Recorder) -> None:
    """Photos that were decoded once need not be again."""
    found = {
        sha256
        for concept in part.concepts.values()
        for photo in (*concept.photos, *concept.references)
        for sha256 in (photo.sha256, photo.mask_sha256)
        if sha256
    } - recorder.state.known_photos
    if found:
        recorder.record("photos", sha256=sorted(found))


def _open_metrics(request: Request, stack: ExitStack) -> RunMetrics:
    metrics = RunMetrics(request.file.stem, request.shard)
    if request.metrics_address:
        server = MetricsServer(request.metrics_address, metrics.registry)
        stack.callback(server.close)
    return metrics


def _wait_for_services(
    trainer: TrainerClient, generator: GeneratorClient, patience_seconds: float, stop: Event, progress: Progress
) -> None:
    """Wait until both answer; what then is missing is told by the calls themselves."""
    deadline = time.monotonic() + patience_seconds
    for client in (trainer, generator):
        told = False
        while not client.serving(5.0) and time.monotonic() < deadline and not stop.is_set():
            if not told:
                told = True
                left = deadline - time.monotonic()
                progress.say("waiting", f"Waiting for the {client.peer}, at most {left:.0f} seconds.", peer=client.peer)
            stop.wait(_HEALTH_POLL_SECONDS)


def _exit_code(part: Catalog, state: RunState, *, finished: bool) -> ExitCode:
    if not finished:
        return ExitCode.ENDED_EARLY
    good = all(state.picture(order).status is PictureStatus.ACCEPTED for order in part.pictures)
    return ExitCode.ALL_GOOD if good else ExitCode.REVIEW


@contextmanager
def _stopped_by_signals() -> Iterator[Event]:
    """An event that SIGTERM and Ctrl-C set; a second one ends the process as it usually does."""
    stop = Event()

    def set_stop(number: int, _frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, previous[number])

    previous = {int(number): signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    for number in previous:
        signal.signal(number, set_stop)
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
