"""Progress of long operations: live bars on a terminal, plain lines elsewhere, nothing with `--json`."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.text import Text

PLAIN_INTERVAL_SECONDS = 5.0
LONGEST_REFRESH_SECONDS = 0.25


class Bar(Protocol):
    """Progress of one task."""

    def update(
        self,
        completed: float,
        total: float | None,
        *,
        amount: str = "",
        detail: str = "",
        time_left_seconds: float | None = None,
    ) -> None:
        """Report progress.

        Args:
            completed: Units done.
            total: Units in all; None where that is not known.
            amount: Both in words, for example `120/300 steps`.
            detail: What else is worth knowing, for example losses.
            time_left_seconds: The worker's own estimate; None leaves it to the display.
        """

    def finish(self, detail: str = "") -> None:
        """Report that the work is done."""


class ProgressDisplay(Protocol):
    """Where bars are shown."""

    def bar(self, description: str) -> Bar:
        """Start a task."""


class _Silent:
    """Shows nothing."""

    def bar(self, description: str) -> Bar:
        return _SilentBar()


class _SilentBar:
    def update(
        self,
        completed: float,
        total: float | None,
        *,
        amount: str = "",
        detail: str = "",
        time_left_seconds: float | None = None,
    ) -> None:
        pass

    def finish(self, detail: str = "") -> None:
        pass


class _Lines:
    """A line when a task starts, every few seconds, and when it is done."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def bar(self, description: str) -> Bar:
        return _LineBar(self._console, description)


class _LineBar:
    def __init__(self, console: Console, description: str) -> None:
        self._console = console
        self._description = description
        self._begun = self._told = time.monotonic()
        self._told_any = False

    def update(
        self,
        completed: float,
        total: float | None,
        *,
        amount: str = "",
        detail: str = "",
        time_left_seconds: float | None = None,
    ) -> None:
        now = time.monotonic()
        if self._told_any and now - self._told < PLAIN_INTERVAL_SECONDS:
            return
        self._told, self._told_any = now, True
        if time_left_seconds is None and total and completed > 0:
            time_left_seconds = (now - self._begun) / completed * (total - completed)
        self._tell(amount, detail, "" if time_left_seconds is None else f"{clock(time_left_seconds)} left")

    def finish(self, detail: str = "") -> None:
        self._tell("done", detail, f"took {clock(time.monotonic() - self._begun)}")

    def _tell(self, *pieces: str) -> None:
        self._console.print(f"{self._description}: {', '.join(piece for piece in pieces if piece) or 'started'}")


class _Bars:
    """Live bars."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def bar(self, description: str) -> Bar:
        task = self._progress.add_task(description, total=None, amount="", detail="", time_left_seconds=None)
        return _LiveBar(self._progress, task)


class _LiveBar:
    def __init__(self, progress: Progress, task: TaskID) -> None:
        self._progress = progress
        self._task = task

    def update(
        self,
        completed: float,
        total: float | None,
        *,
        amount: str = "",
        detail: str = "",
        time_left_seconds: float | None = None,
    ) -> None:
        self._progress.update(
            self._task,
            completed=completed,
            total=total,
            amount=amount,
            detail=detail,
            time_left_seconds=time_left_seconds,
        )

    def finish(self, detail: str = "") -> None:
        task = next(task for task in self._progress.tasks if task.id == self._task)
        total = task.total or 1.0
        self._progress.update(self._task, total=total, completed=total, detail=detail or task.fields["detail"])
        self._progress.stop_task(self._task)


class _TimeColumn(ProgressColumn):
    """Time left, by the worker's estimate if any; elapsed time where the task is done or the time left is unknown."""

    max_refresh = LONGEST_REFRESH_SECONDS

    def render(self, task: Task) -> Text:
        """The column of one task."""
        if task.finished or task.total is None:
            return Text(clock(task.elapsed or 0.0), style="cyan")
        left = task.fields.get("time_left_seconds")
        left = task.time_remaining if left is None else left
        return Text("" if left is None else f"{clock(left)} left", style="cyan")


@contextmanager
def progress_display(console: Console, *, silent: bool) -> Iterator[ProgressDisplay]:
    """A display on the console for as long as the block runs: bars on a terminal, lines elsewhere, or nothing."""
    if silent:
        yield _Silent()
    elif not console.is_terminal:
        yield _Lines(console)
    else:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[amount]}", markup=False),
            _TimeColumn(),
            TextColumn("{task.fields[detail]}", markup=False, style="dim"),
        )
        with Progress(*columns, console=console) as progress:
            yield _Bars(progress)


def clock(seconds: float) -> str:
    """A readable duration: `0:07`, `12:30` or `1:02:03`."""
    whole = max(0, round(seconds))
    return str(timedelta(seconds=whole)) if whole >= 3600 else f"{whole // 60}:{whole % 60:02d}"
