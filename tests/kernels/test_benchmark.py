"""The benchmark of kernels says what it cannot measure, and writes what it can."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.kernels.__main__ import CONTESTS, CPU_CONTESTS, NO_GPU_STATUS, main
from benchmarks.kernels.contest import Contest, rows_of
from benchmarks.kernels.timing import Candidate, measure
from detex_generator.ops.operation import Operation

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    """The benchmark takes all cores; other tests of this process do not."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_every_operation_has_a_contest() -> None:
    assert set(CONTESTS) == set(CPU_CONTESTS) == {operation.value for operation in Operation}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to measure on")
def test_without_a_gpu_it_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "results.json"
    monkeypatch.setattr("sys.argv", ["kernels", "--out", str(path)])
    assert main() == NO_GPU_STATUS
    assert "cannot be timed here: torch finds no GPU" in capsys.readouterr().err
    assert not path.exists()


def test_on_a_cpu_references_are_timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    only = ["--only", "guided_solver_step", "segmented_attention", "unet_step"]
    monkeypatch.setattr("sys.argv", ["kernels", "--device", "cpu", "--turns", "1", "--out", str(path), *only])
    assert main() == 0
    rows = {row["what"]: row for row in json.loads(path.read_text())["rows"]}
    assert rows["whole denoising step by kernels"]["value"] is None
    assert "NVIDIA" in rows["whole denoising step by kernels"]["note"]
    times = [row for row in rows.values() if row["unit"] == "us"]
    assert len(times) == 6
    assert all(row["value"] > 0 for row in times)
    ratios = [row["value"] for what, row in rows.items() if "largest error" in what]
    assert len(ratios) == 2
    assert all(0.1 < ratio < 10 for ratio in ratios)  # both compute the same


def test_the_fastest_peer_is_the_measure_and_who_cannot_run_is_named() -> None:
    def slow(index: int) -> torch.Tensor:
        return torch.linalg.matrix_power(torch.ones(200, 200, dtype=torch.float64) / 200, 64 + index)

    def impossible(index: int) -> torch.Tensor:
        raise RuntimeError("no such backend\nand more")

    ones = torch.ones(2)
    contest = Contest(
        "work", 8, {"ours": lambda _: ones}, {"slow": slow, "quick": lambda _: ones, "absent": impossible}, reach=1.0
    )
    rows = {row.what: row for row in rows_of(contest, CPU, 3)}
    row = rows["work: ours against the fastest peer"]
    assert row.note == "the fastest is quick. absent cannot: no such backend"
    assert len(row.runs) == 3
    nobody = Contest("work", 8, {"ours": impossible}, {"quick": lambda _: ones}, reach=1.0)
    (*_, missing) = rows_of(nobody, CPU, 1)
    assert missing.value is None
    assert missing.met is False


def test_candidates_take_turns() -> None:
    calls: list[str] = []
    candidates = [Candidate(name, lambda index, name=name: calls.append(f"{name}{index}")) for name in "ab"]
    timings = measure(candidates, 2, CPU, 4)
    assert calls[:2] == ["a0", "b0"]  # once each to warm up
    assert {tuple(sorted(calls[2 + 4 * turn : 6 + 4 * turn])) for turn in range(4)} == {("a0", "a1", "b0", "b1")}
    assert {name: len(seconds) for name, seconds in timings.seconds.items()} == {"a": 4, "b": 4}
