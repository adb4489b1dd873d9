"""`detex demo` as people run it, on a tiny base model."""

import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from PIL import Image

from tests.e2e.conftest import DETEX, environment

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("demo")]


def demo(tiny_model: Path, out: Path, *arguments: str) -> "subprocess.Popen[str]":
    command = [*DETEX, "demo", "--base-model", f"tiny={tiny_model}", "--out", str(out), *arguments]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )


def test_demo_draws_a_contact_sheet_and_writes_the_facts(tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    with demo(tiny_model, out, "--steps", "1", "--drawing-steps", "1", "--seed", "5") as process:
        stdout, stderr = process.communicate(timeout=280)
    assert process.returncode == 0, stderr
    assert str(out / "contact_sheet.png") in stdout

    summary = json.loads((out / "summary.json").read_text())
    assert set(summary["seconds"]) == {"start", "contact_sheet", "total"}
    assert summary["base_model"]["name"] == "tiny"
    subject = summary["subjects"][0]
    assert set(subject["seconds"]) == {"upload", "training", "generation"}
    assert subject["hyperparameters"]["steps"] == 1
    name = subject["name"]
    prompts = [picture["prompt"] for picture in subject["pictures"]]
    assert [picture["seed"] for picture in subject["pictures"]] == list(range(5, 14))
    scenes, recombinations, other = prompts[:6], prompts[6:8], prompts[8]
    assert len({prompt.removeprefix(f"a photo of a [{name}] ") for prompt in scenes}) == 6
    assert not any(photo["scene"] in prompt for photo in subject["photos"] for prompt in scenes)
    for prompt in recombinations:
        assert f"[{name}:pose:" in prompt
        assert f"[{name}:background:" in prompt
    assert f"[{name}]" not in other
    assert f"[{name}:background:0]" in other

    with Image.open(out / "contact_sheet.png") as sheet:
        assert sheet.width == 1752
        assert sheet.height > 1000
    for picture in subject["pictures"]:
        with Image.open(out / picture["file"]) as image:
            assert image.size == (16, 16)
            assert json.loads(image.text["detex"])["prompt"] == picture["prompt"]  # type: ignore[attr-defined]
    assert (out / "logs" / "trainer.log").stat().st_size
    assert (out / "logs" / "generator.log").stat().st_size


def test_interrupted_demo_ends_all_that_it_started(tiny_model: Path, tmp_path: Path) -> None:
    with demo(tiny_model, tmp_path / "demo", "--steps", "20000") as process:
        eventually(lambda: bool(running_workers(process.pid)))
        started = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Interrupted; both services have been stopped." in stderr
    assert psutil.wait_procs(started, timeout=20)[1] == []


def test_killed_demo_leaves_no_services(tiny_model: Path, tmp_path: Path) -> None:
    with demo(tiny_model, tmp_path / "demo") as process:
        eventually(lambda: len(services_of(process.pid)) == 2)
        started = services_of(process.pid)
        process.kill()
    assert psutil.wait_procs(started, timeout=60)[1] == []


def test_service_that_cannot_start_is_told_with_its_log(tmp_path: Path) -> None:
    with demo(tmp_path / "missing", tmp_path / "demo") as process:
        _, stderr = process.communicate(timeout=120)
    assert process.returncode == 4
    assert "exited with code" in stderr
    assert str(tmp_path / "missing") in stderr


def services_of(pid: int) -> list[psutil.Process]:
    """The services of a demonstration that have begun."""
    return [
        child for child in psutil.Process(pid).children() if {"detex_trainer", "detex_generator"} & set(words(child))
    ]


def running_workers(pid: int) -> list[psutil.Process]:
    """The training workers below a demonstration."""
    below = psutil.Process(pid).children(recursive=True)
    return [child for child in below if "detex_trainer.worker" in words(child)]


def words(process: psutil.Process) -> list[str]:
    """Command line; empty where it has ended meanwhile."""
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def eventually(condition: Callable[[], bool]) -> None:
    """Poll with a deadline."""
    deadline = time.monotonic() + 200
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
