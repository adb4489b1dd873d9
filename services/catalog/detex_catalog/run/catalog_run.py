"""One run of a catalog, or of a shard of it: trains, draws, checks and redraws until nothing is open."""

import time
from collections.abc import Callable
from queue import Empty, Queue
from threading import Event

from detex_catalog.checks.appearances import Appearances
from detex_catalog.checks.near_duplicates import AcceptedHashes
from detex_catalog.checks.picture_check import PictureCheck
from detex_catalog.checks.unsafe import UnsafeCheck
from detex_catalog.run.clocks import Clocks
from detex_catalog.run.drawing import Drawing
from detex_catalog.run.news import (
    DrawingTask,
    Drawn,
    News,
    NotTrained,
    Refused,
    ServiceAway,
    ServiceBack,
    ThreadFailed,
    Trained,
)
from detex_catalog.run.options import RunOptions
from detex_catalog.run.outcomes import Outcomes
from detex_catalog.run.picture_folder import PictureFolder
from detex_catalog.run.recorder import Recorder
from detex_catalog.run.run_state import PictureStatus, seed_of_try
from detex_catalog.run.training import Training
from detex_catalog.table.catalog import Catalog, ConceptOrder, PictureOrder
from detex_client import GeneratorClient, TrainerClient

_TICK_SECONDS = 0.25
_NOTED_SECONDS = 30.0


class ServicesAwayError(Exception):
    """A service was unavailable for longer than the patience."""


class CatalogRun:
    """Runs once, in `run`.

    Args:
        catalog: What this run is to do; its shard.
        versions: Versions of concepts that are published, by name; others are trained.
        trainer: The trainer.
        generator: The generator.
        recorder: Journal and state.
        folder: Where pictures go.
        options: Limits and thresholds.
        unsafe: Looks for unsafe parts; None does not.
        stop: Set when the run is to end early.
        on_progress: Called several times a second with the run.
    """

    def __init__(
        self,
        catalog: Catalog,
        versions: dict[str, str],
        trainer: TrainerClient,
        generator: GeneratorClient,
        recorder: Recorder,
        folder: PictureFolder,
        options: RunOptions,
        *,
        unsafe: UnsafeCheck | None = None,
        stop: Event,
        on_progress: Callable[["CatalogRun"], None] = lambda _: None,
    ) -> None:
        self.catalog = catalog
        self.recorder = recorder
        self.clocks = Clocks()
        self._versions = dict(versions)
        self._options = options
        self._stop = stop
        self._on_progress = on_progress
        self._news: Queue[News] = Queue()
        self._drawing = Drawing(generator, self._news, streams=options.streams)
        self._training = Training(trainer, recorder, self._news, limit=options.training_jobs)
        self._waiting = [
            order for order in catalog.pictures if recorder.state.picture(order).status is PictureStatus.OPEN
        ]
        named = dict.fromkeys(name for order in self._waiting for name in order.concepts)
        self._to_train = [name for name in named if name not in self._versions]
        self._undecided = len(self._waiting)
        self._noted = time.monotonic()
        self._away_since: dict[str, tuple[float, ServiceAway]] = {}
        hashes = AcceptedHashes()
        check = PictureCheck(options.thresholds, hashes, Appearances(catalog.concepts), unsafe)
        self._outcomes = Outcomes(recorder, folder, check, hashes, options.max_redraws)
        for order in catalog.pictures:
            self._outcomes.remember(order)

    @property
    def undecided(self) -> int:
        """Pictures that are neither accepted, nor in review, nor given up."""
        return self._undecided

    @property
    def untrained(self) -> int:
        """Concepts that are still to be trained."""
        return len(self._to_train)

    @property
    def training(self) -> Training:
        """The training under way."""
        return self._training

    def run(self) -> bool:
        """Do it; whether nothing is left open.

        Raises:
            ServicesAwayError: A service was unavailable for too long.
            FolderUnusableError: The output folder cannot be written.
            DetexClientError: A service refuses this caller altogether.
        """
        if not self._undecided:
            return True
        self._drawing.start()
        self._submit_ready()
        self._training.start([self.catalog.concepts[name] for name in self._to_train])
        try:
            self.clocks.tick(drawing=False, training=False)
            while self._undecided and not self._stop.is_set():
                drawing, training = self._undecided > len(self._waiting), bool(self._to_train)
                self._take_news(_TICK_SECONDS)
                self.clocks.tick(drawing=drawing, training=training)
                self._note_rates(_NOTED_SECONDS)
                self._check_patience()
                self._on_progress(self)
        finally:
            self._end()
        return not self._undecided

    def _submit_ready(self) -> None:
        """Have those pictures drawn whose concepts are all there."""
        ready = [order for order in self._waiting if self._versions.keys() >= set(order.concepts)]
        if ready:
            self._waiting = [order for order in self._waiting if not self._versions.keys() >= set(order.concepts)]
        for order in ready:
            self._submit_try(order)

    def _submit_try(self, order: PictureOrder) -> None:
        number = self.recorder.state.picture(order).tries
        versions = {name: self._versions[name] for name in order.concepts}
        self._drawing.submit(DrawingTask(order, number, seed_of_try(order.seed, number), versions))

    def _take_news(self, seconds: float) -> None:
        try:
            news = self._news.get(timeout=seconds)
            while True:
                self._take(news)
                news = self._news.get_nowait()
        except Empty:
            pass

    def _take(self, news: News) -> None:
        match news:
            case Drawn(task, png):
                self._away_since.pop("generator", None)
                self.clocks.pictures += 1
                if self._outcomes.drawn(task, png):
                    self._undecided -= 1
                else:
                    self._submit_try(task.order)
            case Refused(task, error):
                self._outcomes.failed(task.order, f"the generator refuses it: {error.message}")
                self._undecided -= 1
            case Trained(order, version):
                self.clocks.trained += 1
                self._versions[order.name] = version
                self._to_train.remove(order.name)
                self._submit_ready()
            case NotTrained(order, message):
                self._give_up(order, message)
            case ServiceAway(service):
                self._away_since.setdefault(service, (time.monotonic(), news))
            case ServiceBack(service):
                self._away_since.pop(service, None)
            case ThreadFailed(error):
                raise error

    def _give_up(self, concept: ConceptOrder, message: str) -> None:
        self._to_train.remove(concept.name)
        for order in [order for order in self._waiting if concept.name in order.concepts]:
            self._outcomes.failed(order, f"concept {concept.name} could not be trained: {message}")
            self._waiting.remove(order)
            self._undecided -= 1

    def _check_patience(self) -> None:
        for service, (since, news) in self._away_since.items():
            seconds = time.monotonic() - since
            if seconds > self._options.patience_seconds:
                raise ServicesAwayError(f"The {service} was away for {seconds:.0f} seconds: {news.error.message}")

    def _end(self) -> None:
        """Let what is on its way arrive, and write it down."""
        self._training.end(self._options.drain_seconds)
        deadline = time.monotonic() + self._options.drain_seconds
        while not self._drawing.end(_TICK_SECONDS) and time.monotonic() < deadline:
            self._take_late_news()
        self._take_late_news()
        self._note_rates(0.0)

    def _note_rates(self, every_seconds: float) -> None:
        """Write the speed down now and then, so that a kill does not take it along."""
        now = time.monotonic()
        if now - self._noted < every_seconds:
            return
        self._noted = now
        if values := self.clocks.take():
            self.recorder.record("rates", **values)

    def _take_late_news(self) -> None:
        while not self._news.empty():
            news = self._news.get()
            if isinstance(news, Drawn):
                self.clocks.pictures += 1
                self._undecided -= self._outcomes.drawn(news.task, news.png)
