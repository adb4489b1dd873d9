"""Progress of a run: bars with the time left on a terminal, JSON lines elsewhere."""

import json
import sys
import time
from types import TracebackType
from typing import Any, Protocol, Self, TextIO

from detex_catalog.run.catalog_run import CatalogRun

INTERVAL_SECONDS = 5.0


class Progress(Protocol):
    """Where a run reports its progress."""

    def update(self, run: CatalogRun) -> None:
        """Called several times a second."""

    def say(self, event: str, text: str, **values: Any) -> None:
        """Report an event, as text and as values."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


def open_progress(*, json_lines: bool) -> Progress:
    """Bars where standard error is a terminal and no JSON is asked for; JSON lines on standard output otherwise."""
    return JsonLines(sys.stdout) if json_lines or not sys.stderr.isatty() else Bars()


def seconds_left(run: CatalogRun) -> float | None:
    """Time to the end of a run by its own speed, or by that of earlier runs; None while neither is known."""
    rates = run.recorder.state.rates
    pictures, seconds = run.clocks.pictures, run.clocks.drawing_seconds
    if not (pictures and seconds):
        pictures, seconds = rates.pictures, rates.drawing_seconds
    drawing = run.undecided * seconds / pictures if pictures else None
    training = _training_seconds_left(run)
    return None if drawing is None else max(drawing, training)


def _training_seconds_left(run: CatalogRun) -> float:
    """By the trainer's own estimates where it has one for each concept, else by what was trained so far."""
    estimates = [job.progress.time_left_seconds for job in run.training.progress() if job.progress is not None]
    known = [seconds for seconds in estimates if seconds is not None]
    if run.untrained and len(known) >= run.untrained:
        return max(known)
    if run.clocks.trained:
        return run.untrained * run.clocks.training_seconds / run.clocks.trained
    return max(known, default=0.0)


class JsonLines:
    """One JSON object a line: every few seconds, and when something happens."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._told = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def update(self, run: CatalogRun) -> None:
        """Report progress, every few seconds."""
        now = time.monotonic()
        if now - self._told < INTERVAL_SECONDS:
            return
        self._told = now
        left = seconds_left(run)
        self._write(
            "progress",
            undecided=run.undecided,
            drawn=run.clocks.pictures,
            untrained=run.untrained,
            seconds_left=None if left is None else round(left, 1),
        )

    def say(self, event: str, text: str, **values: Any) -> None:
        """Report an event."""
        self._write(event, message=text, **values)

    def _write(self, event: str, **values: Any) -> None:
        self._stream.write(json.dumps({"event": event, **values}, ensure_ascii=True) + "\n")
        self._stream.flush()


class Bars:
    """Two bars, concepts and pictures, on standard error."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self._console = Console(stderr=True, markup=False, highlight=False, emoji=False, soft_wrap=True)
        self._bars = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            console=self._console,
            transient=True,
        )
        self._concepts = self._bars.add_task("Concepts", total=None, left="", visible=False)
        self._pictures = self._bars.add_task("Pictures", total=None, left="", visible=False)
        self._first: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def update(self, run: CatalogRun) -> None:
        """Move the bars."""
        from detex_client.cli.progress_display import clock

        if self._first is None:
            self._first = run.untrained, run.undecided
        concepts, pictures = self._first
        left = seconds_left(run)
        said = "" if left is None else f"{clock(left)} left"
        self._bars.update(self._concepts, total=concepts, completed=concepts - run.untrained, visible=concepts > 0)
        self._bars.update(self._pictures, total=pictures, completed=pictures - run.undecided, left=said, visible=True)

    def say(self, event: str, text: str, **values: Any) -> None:
        """Report an event."""
        del event, values
        self._console.print(text)
