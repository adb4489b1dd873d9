"""Processes that compile side by side, one for each batch, and are then timed one after the other."""

import json
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu.plan import Plan
from benchmarks.results_file import ResultRow

_END: dict[str, Any] = {"end": True}


@dataclass(frozen=True)
class FirstPicture:
    """What a fresh process took.

    Attributes:
        process_seconds: From its start to its first compiled pictures, the weights drawn at random.
        compiling_seconds: The part of compiling and drawing.
    """

    process_seconds: float
    compiling_seconds: float


class BatchProcess:
    """A process of `benchmarks.gpu.batch`.

    Attributes:
        name: What it measures.
        first_picture: How soon detex drew its first pictures; None before it has, and where it could not.
    """

    def __init__(
        self, plan: Plan, model: str, images: int, turns: int, reach: float, environment: Mapping[str, str]
    ) -> None:
        """Start it."""
        self.name = f"{plan.shapes(model).name}, batch of {images}"
        self.first_picture: FirstPicture | None = None
        command = [sys.executable, "-m", "benchmarks.gpu.batch", "--model", model, "--images", str(images)]
        command += ["--device", plan.device.type, "--dtype", plan.dtype, "--turns", str(turns), "--reach", str(reach)]
        command += ["--with-unfused"] if plan.with_unfused else []
        self._begin = time.time()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(environment),
            cwd=Path(__file__).parents[2],
            text=True,
        )
        self._lines: queue.Queue[dict[str, Any]] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def wait_until_ready(self, timeout_seconds: float) -> bool:
        """Whether it has compiled in that time; otherwise it is ended."""
        deadline = time.monotonic() + timeout_seconds
        while (line := self._next(deadline)) is not _END:
            if "first_picture" in line:
                told = line["first_picture"]
                self.first_picture = FirstPicture(told["end_time"] - self._begin, told["compiling_seconds"])
            if "ready" in line:
                return True
        self.end()
        return False

    def rows(self, timeout_seconds: float) -> Iterator[ResultRow]:
        """Have it measure; where it fails or takes longer, a row says so. It is ended then."""
        deadline = time.monotonic() + timeout_seconds
        try:
            if self._process.stdin is not None:
                self._process.stdin.write("go\n")
                self._process.stdin.flush()
            while (line := self._next(deadline)) is not _END:
                if "row" in line:
                    yield ResultRow.model_validate(line["row"])
            status = self._process.poll()
            if status != 0:
                what = "took too long and was ended" if status is None else f"failed with status {status}"
                yield ResultRow(what=f"{self.name}: the rest", value=None, note=f"its process {what}")
        finally:
            self.end()

    def end(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait()

    def _next(self, deadline: float) -> dict[str, Any]:
        try:
            return self._lines.get(timeout=max(0.01, deadline - time.monotonic()))
        except queue.Empty:
            return _END

    def _read(self) -> None:
        if self._process.stdout is not None:
            for line in self._process.stdout:
                if line.startswith("{"):
                    self._lines.put(json.loads(line))
        self._process.wait()
        self._lines.put(_END)


def first_picture(
    plan: Plan, model: str, environment: Mapping[str, str], timeout_seconds: float
) -> FirstPicture | None:
    """What a fresh process takes to its first compiled picture; None where it fails or takes longer."""
    process = BatchProcess(plan, model, 1, 1, 1.0, environment)
    process.wait_until_ready(timeout_seconds)
    process.end()
    return process.first_picture
