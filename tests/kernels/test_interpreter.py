"""Parity of every kernel in Triton's interpreter, which a process chooses when it imports Triton."""

import os
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from detex_generator.ops.operation import Operation

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parent / "interpreted"


def test_every_operation_has_a_test_of_parity() -> None:
    tests = {path.stem.removeprefix("test_") for path in FOLDER.glob("test_*.py")}
    assert {operation.value for operation in Operation} <= tests


@pytest.mark.skipif(
    version("triton").startswith(("3.6.", "3.7.")) and int(version("numpy").split(".")[1]) >= 4,
    reason="the interpreter of Triton before 3.8 does not work with numpy 2.4",
)
def test_kernels_agree_with_double_precision() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", str(FOLDER)],
        cwd=FOLDER.parents[2],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed, done.stdout
    assert int(passed[1]) >= 50, done.stdout
    assert "skipped" not in done.stdout
