"""Processes that compile, one for each candidate and size, at the same time: inductor keeps one core busy each."""

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.gpu.plan import Plan


@dataclass(frozen=True)
class FirstPicture:
    """What a fresh process took.

    Attributes:
        process_seconds: From its start to its first pictures, the weights drawn at random.
        compiling_seconds: The part of compiling and drawing.
    """

    process_seconds: float
    compiling_seconds: float


class CompilingProcess:
    """A process of `benchmarks.gpu.first_picture`."""

    def __init__(self, plan: Plan, model: str, candidate: str, images: int, environment: Mapping[str, str]) -> None:
        """Start it."""
        self.name = f"{candidate}, {model}, {images} images"
        self._begin = time.time()
        command = [sys.executable, "-m", "benchmarks.gpu.first_picture", "--model", model, "--candidate", candidate]
        command += ["--images", str(images), "--device", plan.device.type, "--dtype", plan.dtype]
        self._process = subprocess.Popen(
            command, stdout=subprocess.PIPE, env=dict(environment), cwd=Path(__file__).parents[2], text=True
        )

    def result(self, timeout_seconds: float) -> FirstPicture | None:
        """Wait for it; None where it failed or took longer, and then it is ended."""
        try:
            output, _ = self._process.communicate(timeout=max(0.1, timeout_seconds))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            return None
        if self._process.returncode != 0 or not output.strip():
            return None
        found = json.loads(output.splitlines()[-1])
        return FirstPicture(found["end_time"] - self._begin, found["compiling_and_drawing_seconds"])
