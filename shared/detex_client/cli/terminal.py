"""Output of a command: results to standard output, messages to standard error; with `--json`, JSON only."""

import sys
from contextlib import AbstractContextManager
from typing import Any

from rich.console import Console, RenderableType

from detex_client.cli.json_document import document, written
from detex_client.cli.progress_display import ProgressDisplay, progress_display

_UNBOUNDED_COLUMNS = 100_000


class Terminal:
    """Output of one command.

    Nothing is read as markup: prompts are full of square brackets.

    Args:
        json_output: Whether results are JSON; people are told nothing but errors then.
    """

    def __init__(self, *, json_output: bool) -> None:
        self.json_output = json_output
        # What a program reads is neither wrapped nor shortened.
        width = None if sys.stdout.isatty() else _UNBOUNDED_COLUMNS
        self._results = Console(markup=False, highlight=False, emoji=False, soft_wrap=True, width=width)
        self._talk = Console(stderr=True, markup=False, highlight=False, emoji=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """Print a message; nothing with `--json`."""
        if not self.json_output:
            self._talk.print(text)

    def warn(self, text: str) -> None:
        """Print a warning, with `--json` too."""
        self._talk.print(f"Warning: {text}", style="yellow")

    def fail(self, text: str) -> None:
        """Print an error, with `--json` too."""
        self._talk.print(f"Error: {text}", style="red")

    def result(self, result: RenderableType) -> None:
        """Print a result to standard output; nothing with `--json`."""
        if not self.json_output:
            self._results.print(result)

    def document(self, value: Any) -> None:
        """Print the command's JSON document."""
        if self.json_output:
            self._write(written(value, indent=2, ascii_only=_ascii_only()))

    def event(self, kind: str, value: Any) -> None:
        """Print one JSON line of a command that streams its results."""
        if self.json_output:
            self._write(written({"event": kind, **document(value)}, ascii_only=_ascii_only()))

    def progress(self) -> AbstractContextManager[ProgressDisplay]:
        """A progress display while the block runs."""
        return progress_display(self._talk, silent=self.json_output)

    def flush(self) -> None:
        """Write out what is buffered."""
        sys.stdout.flush()
        sys.stderr.flush()

    def _write(self, text: str) -> None:
        sys.stdout.write(f"{text}\n")
        sys.stdout.flush()


def _ascii_only() -> bool:
    """Whether standard output is in an encoding that cannot write every character."""
    return (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "").replace("_", "") != "utf8"
