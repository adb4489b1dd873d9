"""The benchmark for short stays on a GPU: all parts run, time and faults cost what they must and no more."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks.gpu.plan import Plan, cache_environment
from benchmarks.gpu.processes import BatchProcess

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
# Nothing is compiled: that takes minutes, and `tests/kernels/test_compiled_steps.py` does it.
ENVIRONMENT = os.environ | {"TORCHDYNAMO_DISABLE": "1", "OMP_NUM_THREADS": "1"}


def dry_run(out: Path, seconds: float) -> list[dict[str, object]]:
    command = [sys.executable, "-m", "benchmarks.gpu", "--dry-run", "--seconds", str(seconds), "--out", str(out)]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=600, check=True)
    assert "What there is to reach:" in done.stdout
    rows: list[dict[str, object]] = json.loads((out / "gpu.json").read_text())["rows"]
    return rows


def test_a_dry_run_goes_through_all_parts(tmp_path: Path) -> None:
    rows = {str(row["what"]): row["value"] for row in dry_run(tmp_path, 500)}
    assert not [what for what in rows if "failed" in what or "the rest" in what]
    for images in (1, 2, 3):
        batch = f"tiny, 64 px, batch of {images}: detex compiled, a concept each"
        assert isinstance(rows[batch], float)
        assert isinstance(rows[f"{batch}, against diffusers compiled, one concept"], float)
        assert isinstance(rows[f"{batch}, against diffusers compiled that swaps concepts image by image"], float)
    assert sum("first compiled picture" in what for what in rows) == 2
    assert any("largest difference" in what for what in rows)
    assert json.loads((tmp_path / "kernels.json").read_text())["rows"]


def test_it_ends_inside_its_time_and_names_what_it_leaves_out(tmp_path: Path) -> None:
    begin = time.monotonic()
    rows = dry_run(tmp_path, 5)
    assert time.monotonic() - begin < 60
    left_out = {str(row["what"]) for row in rows if row["value"] is None}
    assert {f"tiny, batch of {images}" for images in (1, 2, 3)} <= left_out
    assert "kernels" in left_out


def test_a_batch_whose_process_dies_costs_no_other(tmp_path: Path) -> None:
    plan = Plan("tiny", (1,), "", torch.device("cpu"), "float32", 1, time.monotonic() + 300, tmp_path)
    environment = cache_environment(tmp_path) | ENVIRONMENT
    process = BatchProcess(plan, "tiny", 1, 1, 1.0, environment)
    assert process.wait_until_ready(120)
    assert process.first_picture is not None
    process._process.kill()
    (row,) = process.rows(60)
    assert (row.what, row.value) == ("tiny, batch of 1: the rest", None)
    assert "failed with status -9" in row.note
