"""Nothing of a job leaves the machine, and nothing of its photos stays."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = ("-m", "tests.trainer.offline_job")
GUARD = Path(__file__).with_name("network_guard")


def has_namespaces() -> bool:
    """Whether this user may make networks of its own."""
    program = shutil.which("unshare")
    return (
        program is not None
        and subprocess.run([program, "-rn", "true"], check=False, capture_output=True).returncode == 0
    )


@pytest.mark.parametrize("way", ["namespace", "guard"])
def test_a_whole_job_runs_with_all_but_loopback_blocked(tmp_path: Path, way: str) -> None:
    if has_namespaces() != (way == "namespace"):
        pytest.skip("a network of its own where that is allowed, a guard in every process elsewhere")
    prefix = ["unshare", "-rn"] if way == "namespace" else []
    paths = [*([str(GUARD)] if way == "guard" else []), *sys.path]
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [*prefix, sys.executable, *SCRIPT, str(tmp_path), way],
        cwd=root,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(root), *filter(None, paths)])},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4_000:]
    outcome = json.loads(done.stdout)
    assert outcome["state"] == "JOB_STATE_SUCCEEDED", outcome
    assert outcome["photos_left"] == []


def test_the_guard_lets_nothing_but_loopback_through() -> None:
    code = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(GUARD)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "blocked: socket" in done.stderr
